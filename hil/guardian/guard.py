"""The trainer's end of the guardian: owns the instruments, starts the process, gives signs of life, says the last word.

    with guarded(resources, ...) as guard:          owned; what an earlier program left is made safe first; the process starts
        link = VisaLink(address, beat=guard.beat)   every use of the wire is a beat
        guard.watch([driver.safe_state()])          ready: now outputs may go on
        stack.push(guard.leaving(device.close))     closed and verified, or made safe over wires of our own

A beat is a look at the clock, and a byte into a pipe some times in a silence. A guardian that died is started again, once; when
that fails every use of a wire raises GuardianLost, until leaving: no output is on without a guardian.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType

from drivers import ownership
from drivers.make_safe import Outcome, securing, unsafe
from drivers.ownership import Owned, Owner, canonical, lock_file
from drivers.safe import SafeState
from hil import child
from hil.errors import ConfigError, GuardianLost, UnsafeOutputs
from hil.guardian.charge import DONE, READY, UNSAFE, Charge
from hil.guardian.record import NAME, Record, left_by, watching
from hil.guardian.secure import secure

START_S = 30.0
END_S = 5.0
BEATS_A_SILENCE = 40
Leave = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]


@contextmanager
def guarded(
    resources: Sequence[str], *, silence_s: float, patience_s: float, run: Path | None = None, virtual: bool = False
) -> Iterator[Guard]:
    """Own `resources` and start their guardian; on leaving all is safe, or UnsafeOutputs.

    Args:
        silence_s, patience_s: see hil.config.GuardianTable. run: its folder gets guardian.jsonl.
        virtual: the instruments live in a process that ends with this one; what earlier ones left is gone.

    Raises:
        RunError: another program owns one of them. UnsafeOutputs: what an earlier program left cannot be made safe.
        GuardianLost: the process does not start.
    """
    owner = Owner(
        os.getpid(), "" if run is None else str(run.resolve()), datetime.now().astimezone().isoformat(timespec="seconds"),
        " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
    )  # fmt: skip
    with ownership.take(resources, owner) as owned:
        log = owned.folder / f"guardian-{os.getpid()}.jsonl" if run is None else run.resolve() / NAME
        record = Record(log)
        if not virtual:
            _make_leftovers_safe(owned, run, patience_s, record)
        with Guard(owned, owner, record, silence_s, patience_s, virtual) as guard:
            yield guard
        if run is None and guard.uneventful:
            log.unlink(missing_ok=True)


class Guard:
    """Made by `guarded`."""

    def __init__(self, owned: Owned, owner: Owner, record: Record, silence_s: float, patience_s: float, virtual: bool) -> None:
        self._owned, self._owner, self._record = owned, owner, record
        self._silence_s, self._patience_s, self._virtual = silence_s, patience_s, virtual
        self._states: tuple[SafeState, ...] = ()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._starts, self._renewed = 0, False
        self._due_s = 0.0
        self._leaving = False
        self._settled = False  # closed, and verified
        self._outcomes: tuple[Outcome, ...] = ()

    @property
    def pid(self) -> int:
        """Of the guardian."""
        return -1 if self._process is None else self._process.pid

    @property
    def uneventful(self) -> bool:
        return self._settled and not self._renewed

    def beat(self) -> None:
        """This program makes progress. Costs a look at the clock most of the time.

        Raises:
            GuardianLost: there is no guardian, and none can be started; never while leaving.
        """
        now = time.monotonic()
        if now < self._due_s:
            return
        self._due_s = now + self._silence_s / BEATS_A_SILENCE
        starts = self._starts
        try:
            os.write(self._pipe, b"\n")
        except OSError:  # it died; or it does not read and the pipe is full
            self._renew(starts)

    def watch(self, states: Sequence[SafeState]) -> None:
        """From now on these are made safe when this program ends or hangs. Returns when the guardian is ready.

        Raises:
            GuardianLost: it is not.
        """
        with self._lock:
            self._states = tuple(states)
            self._settled = False
            for state, table in zip(self._states, watching(self._states), strict=True):
                self._owned.write(state.resource, table)
            self._tell()

    def leaving(self, close: Callable[[], None]) -> Leave:
        """For `ExitStack.push`: `close`, which verifies that the outputs are safe; where it cannot, over wires of our own.

        On a Ctrl-C the outputs go off at once over such a wire, before `close` waits for a shot that still runs.

        Raises:
            UnsafeOutputs: they could not be verified that way either. KeyboardInterrupt: they are safe all the same.
        """

        def leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
            self._leaving = True
            if isinstance(error, KeyboardInterrupt):
                list(securing([state for state in self._states if state.wire == "visa"], 0.0))
            try:
                close()
            except UnsafeOutputs as fault:
                if not self._secured(fault):
                    raise
            except KeyboardInterrupt as stop:
                if not self._secured(stop):
                    raise unsafe(self._outcomes, "closing, interrupted") from stop
                raise
            else:
                doubt = _unsafe_in(error)
                if doubt is None:
                    self._settled = True
                elif not self._outcomes and self._secured(doubt):
                    doubt.outputs = "off, read back over another connection"

        return leave

    def __enter__(self) -> Guard:
        with self._lock:
            self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leaving = True
        known = self._settled or not self._states or bool(self._outcomes)
        if not known:  # nobody closed what may be on
            self._secured(error)
        safe = self._settled or not self._states
        if safe:
            self._record.note("done", say=False, outputs="safe")
        unverified = [] if safe or self._virtual else [o.state.resource for o in self._outcomes if not o.verified]
        self._say(DONE if safe else UNSAFE)
        self._owned.release(unverified)
        if not safe and error is None:
            raise unsafe(self._outcomes, "closing")

    def _secured(self, why: BaseException | None) -> bool:
        self._record.note("closing failed", because=str(why).splitlines()[0] if str(why) else type(why).__name__)
        self._outcomes = secure(self._states, self._patience_s, self._record)
        self._settled = all(o.verified for o in self._outcomes)
        return self._settled

    # The process.

    def _start(self) -> None:
        read, write = os.pipe()  # neither is inherited: were the other end open in a child, the end of file would never come
        try:
            self._process = subprocess.Popen(
                child.command("hil.guardian"),
                stdin=read,
                stdout=subprocess.PIPE,
                pass_fds=tuple(self._owned.files.values()),
                env=child.environment(),
                start_new_session=True,  # Ctrl-C and the end of the terminal are for the trainer
            )
        except OSError as error:
            os.close(write)
            raise _lost(f"it cannot be started: {error}") from error
        finally:
            os.close(read)
        os.set_blocking(write, False)
        if self._pipe < 0:
            self._pipe = write
        else:  # under the same number: another thread may be about to write to it
            os.dup2(write, self._pipe, inheritable=False)
            os.close(write)
        self._starts += 1

    def _tell(self) -> None:
        """Send the charge and wait until the guardian is ready."""
        log = self._record.path
        assert log is not None
        charge = Charge(
            self._owner, self._states, self._silence_s, self._patience_s, str(log), self._owned.files, self._virtual
        )
        assert self._process is not None
        assert self._process.stdout is not None
        left = (charge.to_json() + "\n").encode()
        answer = b""
        end = time.monotonic() + START_S
        try:
            while not answer.endswith(b"\n"):
                wait_s = end - time.monotonic()
                inputs, outputs, _ = select.select([self._process.stdout], [self._pipe] if left else [], [], max(0.0, wait_s))
                if outputs:
                    left = left[os.write(self._pipe, left) :]
                elif inputs:
                    piece = os.read(self._process.stdout.fileno(), 64)
                    if not piece:
                        raise _lost(f"it ended with status {self._process.wait(END_S)}")
                    answer += piece
                elif wait_s <= 0:
                    raise _lost(f"not ready within {START_S:g} s")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _lost(f"{type(error).__name__}: {error}") from error
        if answer.strip() != READY:
            raise _lost(f"it said {answer!r}")

    def _renew(self, starts: int) -> None:
        """Start it again, once."""
        with self._lock:
            if self._leaving or self._starts != starts:  # nobody needs it any more; or another thread was here first
                return
            self._due_s = 0.0
            if self._renewed:
                raise _lost("it died, and again after it was started anew, or could not be")
            self._renewed = True
            self._record.note("guardian died; started again", pid=self.pid)
            self._end()
            self._start()
            if self._states:
                self._tell()

    def _say(self, word: bytes) -> None:
        with suppress(OSError):  # it may be gone
            os.set_blocking(self._pipe, True)
            os.write(self._pipe, word + b"\n")
        with suppress(OSError):
            os.close(self._pipe)
        self._pipe = -1
        with suppress(subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(END_S)
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()


def _make_leftovers_safe(owned: Owned, run: Path | None, patience_s: float, record: Record) -> None:
    """Before anything else: what a program left that could not say that its outputs were safe."""
    states: dict[str, SafeState] = {}
    for state in left_by(run) if run is not None else ():
        owned.add(state.resource)
        states[canonical(state.resource)] = state
    for one, table in owned.found.items():
        with suppress(ConfigError):  # of another version: opening the instrument resets it
            states[one] = SafeState.from_table(table)
    if not states:
        return
    record.note("left by an earlier program", names=", ".join(s.name for s in states.values()))
    outcomes = secure(tuple(states.values()), patience_s, record)
    failed = [o.state.resource for o in outcomes if not o.verified]
    if failed:
        files = ", ".join(str(lock_file(resource)) for resource in failed)
        raise unsafe(
            outcomes, "left by an earlier program",
            f"switch it off at the instrument, then look at power, cable and address; if it is another one now, remove {files}",
        )  # fmt: skip
    for state in states.values():
        owned.write(state.resource, None)


def _unsafe_in(error: BaseException | None) -> UnsafeOutputs | None:
    while error is not None and not isinstance(error, UnsafeOutputs):
        error = error.__cause__ or error.__context__
    return error


def _lost(got: str) -> GuardianLost:
    return GuardianLost(
        "nobody would make the outputs safe if this program died", where="guardian", got=got,
        outputs="as they were; nothing was sent", todo="see what ended the guardian (memory?), then hil resume",
    )  # fmt: skip
