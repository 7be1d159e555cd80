"""The trainer's end of the guardian: owns the instruments, starts the process, gives signs of life, says the last word.

    with guarded(resources, ...) as guard:          owned; what an earlier program left is made safe first; the process starts
        link = VisaLink(address, beat=guard.beat)   every use of the wire is a beat
        guard.watch([driver.safe_state()])          ready: now outputs may go on
        stack.push(guard.leaving(device.close))     closed and verified, or made safe over wires of our own
        guard.rest(error)                           the same, before anything is written down of what ended the work

A beat is a look at the clock, and a byte into a pipe some times in a silence. A thread asks the guardian whether it still
listens: one that died, or gives no answer, is ended and started anew, once in RENEW_S. When that fails the outputs are made
safe at once and every use of a wire raises GuardianLost, until leaving: no output is on without a guardian.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from types import TracebackType

from drivers import lock
from drivers.lock import Owned, Owner, lock_file
from drivers.make_safe import SafeOutcome, securing, unsafe
from drivers.safe import SafeState, conversation, outputs_after
from hil import child, system
from hil.errors import ConfigError, GuardianLost, UnsafeOutputs
from hil.guardian.messages import ANSWER, BEAT, DONE, PROBE, READY, UNSAFE, Charge
from hil.guardian.record import NAME, GuardianRecord, left_by, watching
from hil.guardian.secure import secure

START_S, AGAIN_S = 30.0, 10.0  # how long a process may take until it is ready; outputs are on while it is started again
END_S = 5.0
BEATS_A_SILENCE = 40
ANSWER_PART, ANSWER_LEAST_S, ANSWER_MOST_S = 0.1, 0.5, 2.0  # of silence_s: how long an answer may take
ASKS_AN_ANSWER = 4
RENEW_S = 600.0
Leave = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]


@contextmanager
def guarded(
    resources: Sequence[str], *, silence_s: float, patience_s: float, run: Path | None = None, virtual: bool = False
) -> Iterator[Guard]:
    """Own `resources` and start their guardian; on leaving all is safe, or UnsafeOutputs.

    Args:
        resources: of the instruments.
        silence_s: see hil.config.bench.GuardianTable.
        patience_s: see there.
        run: its folder gets guardian.jsonl.
        virtual: the instruments live in a process that ends with this one; what earlier ones left is gone.

    Raises:
        RunError: another program owns one of them. UnsafeOutputs: what an earlier program left cannot be made safe.
        GuardianLost: the process does not start.
    """
    owner = Owner(
        os.getpid(), "" if run is None else str(run.resolve()), datetime.now().astimezone().isoformat(timespec="seconds"),
        " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200], virtual,
    )  # fmt: skip
    with lock.take(resources, owner) as owned:
        log = owned.folder / f"guardian-{os.getpid()}.jsonl" if run is None else run.resolve() / NAME
        record = GuardianRecord(log)
        for resource, who in owned.strangers.items():
            record.note("left by another account: outputs unknown until opening it resets it", resource=resource, by=who)
        if not virtual:
            _make_leftovers_safe(owned, run, patience_s, record)
        guard = Guard(owned, owner, record, silence_s, patience_s, virtual)
        try:
            with guard:
                yield guard
        finally:
            record.drain()
            if run is None and (virtual or guard.uneventful):
                log.unlink(missing_ok=True)


class Guard:
    """Made by `guarded`."""

    def __init__(
        self, owned: Owned, owner: Owner, record: GuardianRecord, silence_s: float, patience_s: float, virtual: bool
    ) -> None:
        self._owned, self._owner, self._record = owned, owner, record
        self._silence_s, self._patience_s, self._virtual = silence_s, patience_s, virtual
        self._states: tuple[SafeState, ...] = ()
        self._lock = threading.Lock()  # of the two pipes, and of who is at their other ends
        self._process: subprocess.Popen[bytes] | None = None
        self._words: system.Outlet | None = None
        self._answers: system.Inlet | None = None
        self._ready = False
        self._asked_s: float | None = None  # by system.clock_s; None: it answered
        self._lost = ""
        self._renewed = 0
        self._renewed_s = -float("inf")
        self._due_s = 0.0
        self._leaving = False
        self._ended = threading.Event()
        self._settled = False  # closed, and verified
        self._outcomes: tuple[SafeOutcome, ...] = ()
        self._closings: list[_Closing] = []

    @property
    def pid(self) -> int:
        """Process id of the guardian; -1 without one."""
        return -1 if self._process is None else self._process.pid

    @property
    def uneventful(self) -> bool:
        """True if everything ended safe, or nothing could be unsafe, and the guardian was never replaced."""
        return (self._settled or not self._states) and not self._renewed

    @property
    def outputs_after(self) -> str:
        """Say what is known of the outputs once they were made safe."""
        return outputs_after(self._states)

    def beat(self) -> None:
        """Tell that this program makes progress. Costs a look at the clock most of the time.

        Raises:
            GuardianLost: there is no guardian, and none can be started; never while leaving.
            RunError: a lock file was removed, and another program has the instrument; never while leaving.
        """
        now = time.monotonic()
        if now < self._due_s:
            return
        if not self._lock.acquire(blocking=not self._leaving):  # a guardian that starts must not keep anybody from leaving
            return
        try:
            if self._lost and not self._leaving:
                raise _lost(self._lost)
            for path in () if self._leaving else self._owned.check():
                self._record.note("lock file removed; locked again", file=str(path))
            if not self._put(BEAT):  # it died; or it does not read and the pipe is full
                self._renew("died")
            self._due_s = now + self._silence_s / BEATS_A_SILENCE
        finally:
            self._lock.release()

    def watch(self, states: Sequence[SafeState]) -> None:
        """Have the guardian make these safe when this program ends or hangs; return when it is ready.

        Raises:
            ConfigError: the conversation of one cannot be imported. GuardianLost: the guardian is not ready.
        """
        for state in states:
            conversation(state)
        with self._lock:
            self._states = tuple(states)
            self._settled = False
            for state, table in zip(self._states, watching(self._states), strict=True):
                self._owned.write(state.resource, table)
            self._tell(START_S)

    def leaving(self, close: Callable[[], None]) -> Leave:
        """Wrap `close` for `ExitStack.push`: it verifies safe outputs; where it cannot, they are made so over new wires.

        On a Ctrl-C the outputs go off at once over such a wire, before `close` waits for a shot that still runs.

        Raises:
            UnsafeOutputs: they could not be verified that way either. KeyboardInterrupt: they are safe all the same.
        """
        closing = _Closing(lambda error: self._close(close, error))
        self._closings.append(closing)

        def leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
            closing.done(error)

        return leave

    def rest(self, error: BaseException | None) -> None:
        """Make the outputs safe now, as leaving would, because `error` has ended the work.

        What is still to be written down about it must not keep an output on, whatever the disk or the terminal does. What
        this cannot do, leaving says.

        Raises:
            KeyboardInterrupt: somebody does not want to wait; the outputs are safe all the same.
        """
        stop: KeyboardInterrupt | None = None
        whole = True
        for closing in reversed(self._closings):
            try:
                closing.done(error)
            except KeyboardInterrupt as again:
                error = stop = again
            except Exception as fault:  # noqa: BLE001 - raised again on leaving
                error, whole = fault, False
        if whole and self._settled:  # what is still to be done may take long, and a guardian would take that for a hang
            self._dismiss(DONE)
        if stop is not None:
            raise stop

    def _close(self, close: Callable[[], None], error: BaseException | None) -> None:
        self._leaving = True
        if isinstance(error, KeyboardInterrupt):
            list(securing(list(takewhile(lambda state: state.shared, self._states)), 0.0))  # the order holds for the rest too
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
                doubt.outputs = f"{self.outputs_after}; over another connection"

    def __enter__(self) -> Guard:
        with self._lock:
            self._start()
        threading.Thread(target=self._attend, name="guardian attended", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leaving = True
        known = self._settled or not self._states or bool(self._outcomes)
        if not known:  # nobody closed what may be on
            self._secured(error)
        safe = self._settled or not self._states
        unverified = [] if safe or self._virtual else [o.state.resource for o in self._outcomes if not o.verified]
        self._dismiss(DONE if safe else UNSAFE)
        self._owned.release(unverified)
        if not safe and error is None:
            raise unsafe(self._outcomes, "closing")

    def _dismiss(self, word: bytes) -> None:
        """Dismiss the guardian: there is nothing left for it to do. May be called twice."""
        if not self._ended.is_set():
            self._ended.set()
            if word == DONE:
                self._record.note("done", say=False, outputs="safe")
            self._say(word)

    def _secured(self, why: BaseException | None) -> bool:
        self._record.hold()
        self._record.note("closing failed", because=str(why).splitlines()[0] if str(why) else type(why).__name__)
        self._outcomes = secure(self._states, self._patience_s, self._record)
        self._settled = all(o.verified for o in self._outcomes)
        return self._settled

    # The process. Whoever calls what follows holds the lock, but for `_attend` and `_say`.

    def _start(self) -> None:
        read, write = os.pipe()  # neither is inherited: were the other end open in a child, the end of file would never come
        try:
            self._process = subprocess.Popen(
                child.command("hil.guardian"),
                stdin=read,
                stdout=subprocess.PIPE,
                cwd=Path(sys.executable).anchor,  # a folder of ours may be on a disk that goes away
                env=child.environment(),
                **system.apart(tuple(self._owned.files.values())),  # Ctrl-C and the end of the terminal are for the trainer
            )
        except OSError as error:
            os.close(write)
            raise _lost(f"it cannot be started: {error}") from error
        finally:
            os.close(read)
        assert self._process.stdout is not None
        self._ready = False
        if self._words is not None:
            self._words.close()
        self._words, self._answers = system.Outlet(write), system.Inlet(self._process.stdout.fileno())

    def _tell(self, within_s: float) -> None:
        """Send the charge and wait until the guardian is ready."""
        log = self._record.path
        assert log is not None
        charge = Charge(
            self._owner, self._states, self._silence_s, self._patience_s, str(log), self._owned.files, self._virtual,
            child.search_path(),
        )  # fmt: skip
        assert self._process is not None
        assert self._words is not None
        assert self._answers is not None
        left = (charge.to_json() + "\n").encode()
        answer = b""
        end = time.monotonic() + within_s
        try:
            while READY not in (lines := answer.split(b"\n")[:-1]):
                if unknown := [line for line in lines if line != ANSWER]:
                    raise _lost(f"it said {unknown[0]!r}")
                wait_s = end - time.monotonic()
                said, free, _ = system.ready(self._answers, self._words if left else None, None, max(0.0, wait_s))
                if free:
                    left = left[self._words.put(left) :]
                elif said:
                    piece = self._answers.take()
                    if not piece:
                        raise _lost(f"it ended with status {self._process.wait(END_S)}")
                    answer += piece
                elif wait_s <= 0:
                    raise _lost(f"not ready within {within_s:g} s")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _lost(f"{type(error).__name__}: {error}") from error
        self._ready, self._asked_s = True, None

    def _put(self, word: bytes) -> bool:
        """Send words to the guardian; False: nobody takes them."""
        try:
            return self._words is not None and self._words.put(word + b"\n") > 0
        except OSError:
            return False

    def _answered(self) -> bool:
        try:
            return self._answers is not None and bool(self._answers.take())
        except OSError:  # not yet
            return False

    def _attend(self) -> None:
        """Ask the guardian whether it listens, until the end."""
        patience_s = min(ANSWER_MOST_S, max(ANSWER_LEAST_S, ANSWER_PART * self._silence_s))
        pause_s = patience_s / ASKS_AN_ANSWER
        now = system.clock_s()
        while not self._leaving and not self._ended.wait(pause_s):
            before, now = now, system.clock_s()
            try:
                with self._lock:
                    self._ask(now, patience_s, now - before > pause_s + patience_s / 2)
            except GuardianLost:  # the next use of a wire raises it, and may be far away
                list(securing(self._states, 0.0))
                return

    def _ask(self, now: float, patience_s: float, away: bool) -> None:
        """Ask the guardian for a sign of life.

        Args:
            now: s, monotonic.
            patience_s: how long an answer is waited for.
            away: this program itself did not run, because it or the whole computer was stopped; that time is not held
                against a guardian that was stopped with it.

        Raises:
            GuardianLost: it gave no answer for `patience_s`, and there is no other.
        """
        if not self._ready or self._leaving:
            return
        if self._answered():
            self._asked_s = None
        if self._asked_s is None:
            self._asked_s = now
            if not self._put(PROBE):
                self._renew("died")
        elif away:
            self._asked_s = now
        elif now - self._asked_s > patience_s:
            self._renew("does not answer")

    def _renew(self, why: str) -> None:
        """End it, whatever is left of it, and start it again.

        Raises:
            GuardianLost: not again, or it does not start.
        """
        if self._leaving:  # nobody needs it any more
            return
        self._due_s = 0.0
        self._ready = False
        now = time.monotonic()
        try:
            if now - self._renewed_s < RENEW_S:
                raise _lost(f"it {why}, and that again after it was started anew")
            self._renewed, self._renewed_s = self._renewed + 1, now
            self._record.note(f"guardian {why}; started again", pid=self.pid)
            self._end()
            self._start()
            if self._states:
                self._tell(AGAIN_S)
        except GuardianLost as error:
            self._lost = error.got
            self._record.note("guardian lost", because=error.got)
            self._end()
            raise

    def _say(self, word: bytes) -> None:
        """The last word. Outputs are safe, or on record as they are: nothing is waited for without a bound."""
        if not self._lock.acquire(timeout=AGAIN_S):  # one that is being started hangs
            self._end()
            return
        try:
            self._put(word)
            if self._words is not None:
                self._words.close()
            self._words = None
            with suppress(subprocess.TimeoutExpired):
                if self._process is not None:
                    self._process.wait(END_S)
            self._end()
        finally:
            self._lock.release()

    def _end(self) -> None:
        """Kill it: SIGKILL also ends one that is stopped; one that hangs in the kernel runs no line of its own any more."""
        if self._process is not None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            if self._process.stdout is not None:
                self._process.stdout.close()


class _Closing:
    """Closes once; asked again it says the same."""

    def __init__(self, close: Callable[[BaseException | None], None]) -> None:
        self._close = close
        self._begun = False
        self._fault: Exception | None = None

    def done(self, error: BaseException | None) -> None:
        if not self._begun:
            self._begun = True
            try:
                self._close(error)
            except Exception as fault:
                self._fault = fault
                raise
        elif self._fault is not None and self._fault is not error:
            raise self._fault from error  # what ended the work, and is told together with it


def _make_leftovers_safe(owned: Owned, run: Path | None, patience_s: float, record: GuardianRecord) -> None:
    """Make safe, before anything else, what a program left that could not say that its outputs were safe.

    What is sent comes from the lock files alone. What the run folder says of its instruments is told to people: the bench file
    says where they are, and opening the bench resets them.
    """
    for resource in _left_unsafe(run):
        owned.add(resource)
    states: dict[str, SafeState] = {}
    for one, table in owned.found.items():
        try:
            states[one] = SafeState.from_table(table)
        except ConfigError:  # of another version: opening the instrument resets it
            owned.spare(one)
    named = left_by(run) if run is not None else ()
    if not states:
        if named:
            record.note("an earlier program left outputs unknown", names=", ".join(named), now="opening a bench resets its own")
        return
    record.hold()
    record.note("left by an earlier program", names=", ".join(s.name for s in states.values()))
    outcomes = secure(tuple(states.values()), patience_s, record)
    failed = [o.state.resource for o in outcomes if not o.verified]
    if failed:
        record.drain()
        files = ", ".join(str(lock_file(resource)) for resource in failed)
        raise unsafe(
            outcomes, "left by an earlier program",
            f"switch it off at the instrument, then look at power, cable and address; if it is another one now, remove {files}",
        )  # fmt: skip
    for state in states.values():
        owned.write(state.resource, None)


def _left_unsafe(run: Path | None) -> list[str]:
    """Resources that `run` left, as their lock files say; the bench file may name others by now."""
    if run is None:
        return []
    folder = str(run.resolve())
    found = [content["safe"] for content in lock.left_unsafe().values() if content.get("run") == folder]
    return [safe["resource"] for safe in found if isinstance(safe.get("resource"), str)]


def _unsafe_in(error: BaseException | None) -> UnsafeOutputs | None:
    while error is not None and not isinstance(error, UnsafeOutputs):
        error = error.__cause__ or error.__context__
    return error


def _lost(got: str) -> GuardianLost:
    return GuardianLost(
        "nobody would make the outputs safe if this program died", where="guardian", got=got,
        outputs="as they were; nothing was sent", todo="see what ended the guardian (memory?), then hil resume",
    )  # fmt: skip
