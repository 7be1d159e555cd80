"""The guardian's process: waits on its stdin and on the trainer's end, and acts once. States and words: see the package.

Exit status: 0 nothing was to be done · 3 made safe, verified · 4 outputs unknown.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from drivers import ownership
from drivers.ownership import MACHINE, Owner
from drivers.visa_link import library
from hil.errors import HilError
from hil.guardian.charge import BEAT, DONE, READY, UNSAFE, Charge
from hil.guardian.record import Record, watching
from hil.guardian.secure import secure

READ_BYTES = 1 << 16
END_S = 5.0  # a killed process is gone long before


class Trainer:
    """The process that is watched. It is known by a descriptor, so one that is given its pid later is not taken for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self.handle: int | None = os.pidfd_open(pid)
        except OSError:  # gone already, or a kernel without it; then its pipe tells
            self.handle = None

    def ended(self, wait_s: float = 0.0) -> bool:
        if self.handle is not None:
            return bool(select.select([self.handle], [], [], wait_s)[0])
        time.sleep(min(wait_s, 0.1))
        return os.getppid() != self.pid

    def kill(self) -> bool:
        """SIGKILL; True when it is gone."""
        with suppress(ProcessLookupError, PermissionError):
            if self.handle is not None:
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            elif os.getppid() == self.pid:
                os.kill(self.pid, signal.SIGKILL)
        return self.ended(END_S)


class Watch:
    """What is read from the trainer, until it says a last word or none any more."""

    def __init__(self, stdin: int) -> None:
        self._stdin = stdin
        self._held = b""
        self.charge: Charge | None = None
        self.names: dict[str, str] = {}  # resource -> key of its lock, as long as a port that may be unplugged is there
        self.record = Record(None)
        self._trainer: Trainer | None = None

    def reason(self) -> str:
        """Waits. "done", "unsafe", "trainer gone", or "silence"."""
        last = time.monotonic()
        while True:
            waits = [self._stdin, *([self._trainer.handle] if self._trainer and self._trainer.handle is not None else [])]
            left_s = None if self.charge is None else max(0.0, last + self.charge.silence_s - time.monotonic())
            ready, _, _ = select.select(waits, [], [], left_s)
            if self._stdin in ready:  # first: a last word may lie in the pipe of a process that is gone
                for word in self._words():
                    last = time.monotonic()
                    if word is None:
                        return "trainer gone"
                    if word in (DONE, UNSAFE):
                        return word.decode()
                    if word != BEAT:
                        self._take(word)
            elif ready:
                return "trainer gone"
            elif time.monotonic() - last >= (self.charge.silence_s if self.charge else float("inf")):
                return "silence"

    @property
    def trainer(self) -> Trainer | None:
        return self._trainer

    def _words(self) -> Iterator[bytes | None]:
        """Whole lines without their ends; None at the end of the pipe."""
        data = os.read(self._stdin, READ_BYTES)
        *lines, self._held = (self._held + data).split(b"\n")
        yield from lines
        if not data:
            yield None

    def _take(self, line: bytes) -> None:
        """A charge replaces the one before."""
        charge = Charge.from_json(line)
        if self._trainer is None or self._trainer.pid != charge.owner.pid:
            self._trainer = Trainer(charge.owner.pid)
        self.charge, self.record = charge, Record(Path(charge.log))
        self.names = {state.resource: ownership.canonical(state.resource) for state in charge.states}
        self.record.note(
            "watching", say=False, pid=charge.owner.pid, guardian=os.getpid(), silence_s=charge.silence_s,
            virtual=charge.virtual, states=watching(charge.states),
        )  # fmt: skip
        with suppress(OSError):
            os.write(sys.stdout.fileno(), READY + b"\n")
        threading.Thread(target=_look_for_visa, daemon=True).start()  # now, while there is time


def main() -> int:
    """Watch the process that started this one."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the trainer, whose end is what counts here
        signal.signal(number, signal.SIG_IGN)
    watch = Watch(sys.stdin.fileno())
    reason = watch.reason()
    charge = watch.charge
    if charge is None or not charge.states:
        return 0
    if reason in ("done", "unsafe"):
        return 0 if reason == "done" else 4
    watch.record.note(reason, pid=charge.owner.pid)
    if watch.trainer is not None and not (gone := watch.trainer.kill() if reason == "silence" else watch.trainer.ended(END_S)):
        # A pipe that was closed by a trainer that lives, or one that cannot be killed: it may switch on again at any time.
        gone = watch.trainer.kill()
        watch.record.note("trainer killed" if gone else "trainer does not end", pid=charge.owner.pid)
    with _owning(charge, watch.names) as unverified:
        outcomes = secure(charge.states, charge.patience_s, watch.record)
        unverified += [watch.names[o.state.resource] for o in outcomes if not o.verified]
    return 4 if unverified else 3


def _look_for_visa() -> None:
    with suppress(OSError, ValueError):  # whoever needs it will be told
        library()


@contextmanager
def _owning(charge: Charge, names: Mapping[str, str]) -> Iterator[list[str]]:
    """Says in the lock files who holds them now; those of resources that are put into the list keep their safe state."""
    states = {names[state.resource]: state for state in charge.states}
    tables = {r: watching([states[r]])[0] if r in states else None for r in charge.locks}
    by = replace(charge.owner, pid=os.getpid(), command=f"guardian, making safe what process {charge.owner.pid} left")
    unverified: list[str] = []
    try:
        for resource, handle in charge.locks.items():
            with suppress(OSError, HilError):  # who has it meanwhile must not keep us from making safe
                ownership.retake(resource, handle)
            _write(handle, by, tables[resource])
        yield unverified
    except BaseException:
        unverified += charge.locks
        raise
    finally:
        for resource, handle in charge.locks.items():
            keep = resource.removesuffix(MACHINE) in unverified and not charge.virtual
            with suppress(OSError):
                if keep:
                    ownership.write(handle, charge.owner, tables[resource])
                else:
                    ownership.settle(resource, handle, remove=charge.virtual)


def _write(handle: int, owner: Owner, safe: object) -> None:
    with suppress(OSError):  # a full disk must not keep anybody from making safe
        ownership.write(handle, owner, safe)
