"""The guardian's process: waits on its stdin and on the trainer's end, and acts once. States and words: see the package.

    end the trainer  ->  make safe, read back  ->  tell

Until every instrument was tried once, this process touches neither a disk nor a terminal: all that `secure` needs is loaded
before it is ready. What it tells is told by threads that may hang. Exit status: 0 nothing was to be done · 3 made safe,
verified · 4 outputs unknown.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from drivers import lock
from drivers.lock import MACHINE, Owner
from drivers.make_safe import SafeOutcome
from drivers.safe import conversation
from drivers.scpi_talk import prepare
from hil import system
from hil.errors import HilError
from hil.guardian.messages import ANSWER, BEAT, DONE, PROBE, READY, UNSAFE, Charge
from hil.guardian.record import GuardianRecord, watching
from hil.guardian.secure import secure
from hil.telling import Background, Teller

LOOK_S = 0.25  # how often it is looked whether a trainer that said nothing still runs
AWAY_S = 1.0  # a longer wait than this was no wait: this process did not run
KILLED_S = 0.5  # a killed process that is not gone by then hangs in the kernel, and runs no line of its own any more
TELL_S = 1.0


class TrainerProcess(system.Process):
    """The process that is watched."""

    def ended(self, wait_s: float = 0.0) -> bool:
        """Wait up to `wait_s` for the trainer's end; return whether it ended, or is dying."""
        end = time.monotonic() + wait_s
        while not self.gone(min(LOOK_S / 5, wait_s)):
            if time.monotonic() >= end:
                return self.dying()
        return True


class TrainerWatch:
    """Reads from the trainer until it says a last word or none any more.

    Args:
        stdin: words of the trainer.
        stdout: answers.
    """

    def __init__(self, stdin: system.Inlet, stdout: system.Outlet) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._held = b""
        self.charge: Charge | None = None
        self.names: dict[str, str] = {}  # resource -> key of its lock, as long as a port that may be unplugged is there
        self._voice = Teller(sys.stderr)
        self.record = GuardianRecord(None, self._voice)
        self.trainer: TrainerProcess | None = None

    def reason(self) -> str:
        """Wait for the reason to act: "done", "unsafe", "trainer gone", or "silence"."""
        last = now = time.monotonic()
        while True:
            silence_s = self.charge.silence_s if self.charge else float("inf")
            wait_s = max(0.0, min(LOOK_S, last + silence_s - now))
            heard, _, gone = system.ready(self._stdin, None, self.trainer, wait_s)
            before, now = now, time.monotonic()
            if now - before > LOOK_S + AWAY_S:  # stopped, or starved; so was the trainer perhaps, and it gets that time back
                last = min(now, last + now - before)
            if heard:  # first: a last word may lie in the pipe of a process that is gone
                for word in self._words():
                    last = last if word == PROBE else now
                    if word is None:
                        return "trainer gone"
                    if word in (DONE, UNSAFE):
                        return word.decode()
                    self._hear(word)
            elif gone or (self.trainer is not None and self.trainer.dying()):
                return "trainer gone"
            if now - last >= silence_s:
                return "silence"

    def _words(self) -> Iterator[bytes | None]:
        """Return whole lines without their ends; None at the end of the pipe."""
        try:
            data = self._stdin.take()
        except BlockingIOError:  # it was taken before
            return
        *lines, self._held = (self._held + data).split(b"\n")
        yield from lines
        if not data:
            yield None

    def _hear(self, word: bytes) -> None:
        if word == PROBE:
            self._say(ANSWER)
        elif word != BEAT:
            self._take(word)

    def _say(self, word: bytes) -> None:
        with suppress(OSError):  # gone, or it does not read; its end, or its silence, will say so
            self._stdout.put(word + b"\n")

    def _take(self, line: bytes) -> None:
        """A charge replaces the one before."""
        charge = Charge.from_json(line)
        if self.trainer is None or self.trainer.pid != charge.owner.pid:
            self.trainer = TrainerProcess(charge.owner.pid)
        self.charge, self.record = charge, GuardianRecord(Path(charge.log), self._voice)
        self.names = {state.resource: lock.canonical(state.resource) for state in charge.states}
        self.record.note(
            "watching", say=False, pid=charge.owner.pid, guardian=os.getpid(), silence_s=charge.silence_s,
            virtual=charge.virtual, states=watching(charge.states),
        )  # fmt: skip
        sys.path.extend(folder for folder in charge.search_path if folder not in sys.path)
        for state in charge.states:
            conversation(state)
        self.record.drain()
        self._say(READY)


def main() -> int:
    """Watch the process that started this one."""
    prepare()  # most instruments speak SCPI: while the trainer opens its bench, the time costs nobody anything
    watch = TrainerWatch(system.Inlet(sys.stdin.fileno()), system.Outlet(sys.stdout.fileno()))
    reason = watch.reason()
    charge = watch.charge
    if charge is None or not charge.states or reason == "done":
        return 0
    if reason == "unsafe":
        return 4
    record, trainer, locks = watch.record, watch.trainer, Background("locks")
    record.hold()
    record.note(reason, pid=charge.owner.pid)
    # A pipe that was closed by a trainer that lives, or one that hangs: it may switch on again at any time.
    if trainer is not None and (reason == "silence" or not trainer.ended(KILLED_S)):
        trainer.kill()
        gone = trainer.ended(KILLED_S)
        record.note("trainer killed" if gone else "trainer does not end", pid=charge.owner.pid)
    held = dict(charge.locks) if system.INHERITS else {}
    if not system.INHERITS:  # the trainer let go of them
        for name in charge.locks:
            locks.later(partial(_locked, name, held))
    outcomes = secure(charge.states, charge.patience_s, record, lambda: _owning(charge, watch.names, held, locks))
    _settled(charge, watch.names, held, outcomes, locks)
    locks.drain(TELL_S)
    record.drain(TELL_S)
    return 3 if all(o.verified for o in outcomes) else 4


def _locked(name: str, held: dict[str, int]) -> None:
    """Lock the file of `name`; the program that has it meanwhile makes safe itself, as the file says, and keeps it."""
    with suppress(HilError):
        held[name] = lock.locked(name, name.removesuffix(MACHINE))


def _owning(charge: Charge, names: Mapping[str, str], held: Mapping[str, int], locks: Background) -> None:
    """Say in the lock files who holds them now."""
    by = replace(charge.owner, pid=os.getpid(), command=f"guardian, making safe what process {charge.owner.pid} left")
    tables = {names[state.resource]: watching([state])[0] for state in charge.states}
    for name in charge.locks:
        locks.later(partial(_held, name, held, by, tables.get(name)))


def _held(name: str, held: Mapping[str, int], by: Owner, safe: object) -> None:
    if name in held:
        with suppress(HilError):  # who has it meanwhile must not keep us from making safe
            lock.retake(name, held[name])
        lock.write(held[name], by, safe)


def _settled(
    charge: Charge, names: Mapping[str, str], held: Mapping[str, int], outcomes: Sequence[SafeOutcome], locks: Background
) -> None:
    """Empty the lock files; those of instruments that are not verified keep their safe state."""
    kept = {} if charge.virtual else {names[o.state.resource]: watching([o.state])[0] for o in outcomes if not o.verified}
    for name in charge.locks:
        if name.removesuffix(MACHINE) in kept:
            locks.later(partial(_written, name, held, charge.owner, kept.get(name)))
        else:
            locks.later(partial(_emptied, name, held, charge.virtual))


def _written(name: str, held: Mapping[str, int], owner: Owner, safe: object) -> None:
    if name in held:
        lock.write(held[name], owner, safe)


def _emptied(name: str, held: Mapping[str, int], remove: bool) -> None:
    if name in held:
        lock.settle(name, held[name], remove)
