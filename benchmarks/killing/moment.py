"""In the process of a trainer: brings a fault about that needs one rung of the ladder, and ends or stops a process there.

    the SHOT-th shot begins           the fault is scheduled at the control port of the virtual bench
    the ladder enters the rung        "before"
    it has just switched on           "during"
    its shot has been answered        "after"

What was done, and when, is written to a file, a line of JSON each: {"what", "time_s", "pid", "guardian", "bench"}.
Each of these is a call that the trainer makes itself: it stands still at this place while the signal is sent.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.keysight_33600 import Keysight33600
from hil.build.shapes.waveform import OnPlant
from hil.devices.recovery import Ladder, Rung
from hil.guardian.client import Guard

SHOT = 12  # in the first epoch, after the first checkpoint within it
FAULTS: dict[Rung, tuple[str, str, dict[str, object]]] = {
    Rung.REPEAT: ("scope", "holes", {"points": 3}),
    Rung.RESTORE: ("awg", "flood", {"match": "FUNC:ARB"}),
    Rung.CLEAR: ("scope", "truncate", {"match": ":WAV:DATA?", "bytes": 100}),
    Rung.REOPEN: ("scope", "reset", {"match": ":WAV:DATA?"}),
}
PAUSE_S = 0.2  # before each shot without a guardian: the run must not be over before anybody can have noticed
MORE_SHOTS = 3  # under the new guardian, before the trainer is killed too


@dataclass
class Moment:
    """rung, when: of the ladder. victim: "trainer", "guardian" or "bench". number: SIGKILL or SIGSTOP.

    unguarded_s: a trainer whose guardian was struck is killed when it has a new one, or after so long without.
    """

    rung: Rung
    when: str
    victim: str
    number: signal.Signals
    told: Path
    unguarded_s: float

    def arm(self) -> None:
        """To be called once, in the process that becomes the trainer."""
        self._shots, self._inside, self._struck, self._more = 0, False, 0.0, MORE_SHOTS
        self._first: Rung | None = None
        self._guard: Guard | None = None
        self._bench: Any = None
        self._of = -1
        for name in ("forward", "submit"):
            _around(OnPlant, name, before=self._driving)
        _around(Guard, "__enter__", before=self._guarded)
        _around(Ladder, "_prepare", before=self._entering)
        _around(Ladder, "_recovered", before=self._answered)
        _around(Keysight33600, "output", after=self._switched)

    def _guarded(self, guard: Guard) -> None:
        self._guard = guard

    def _driving(self, device: OnPlant, x: object) -> None:
        self._shots, self._bench = self._shots + 1, device._served
        if self._shots == SHOT:
            box, kind, settings = FAULTS[self.rung]
            device.control.fault(box, kind, **settings)
        if self._struck and self.victim == "guardian":
            self._go_on()

    def _go_on(self) -> None:
        """The trainer, whose guardian was struck, makes some shots more, and is killed."""
        assert self._guard is not None
        renewed = self._guard.pid != self._of
        self._more -= renewed
        if self._more <= 0 or time.monotonic() - self._struck > self.unguarded_s:
            self._tell("trainer killed too", renewed=renewed)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(PAUSE_S)

    def _entering(self, ladder: Ladder, rung: Rung) -> None:
        self._first = rung if self._first is None else self._first
        if rung is not self.rung or self._struck:
            return
        self._inside = True
        if self.when == "before":
            self._strike()

    def _switched(self, generator: Keysight33600, on: bool) -> None:
        if self._inside and self.when == "during" and on:
            self._strike()

    def _answered(self, *of: object) -> None:
        if self._inside and self.when == "after":
            self._strike()
        self._inside = False

    def _strike(self) -> None:
        if self._struck:
            return
        assert self._guard is not None
        self._struck, self._of = time.monotonic(), self._guard.pid
        pid = {"trainer": os.getpid(), "guardian": self._guard.pid, "bench": self._bench.pid}[self.victim]
        self._tell("struck", pid=pid, first=None if self._first is None else self._first.name)
        os.kill(pid, self.number)
        while pid != os.getpid() and not standing(pid):
            time.sleep(0.001)

    def _tell(self, what: str, **facts: object) -> None:
        assert self._guard is not None
        line = {"what": what, "time_s": time.time(), "guardian": self._guard.pid, "bench": self._bench.pid, **facts}
        with self.told.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _nothing(*of: object) -> None: ...


def _around(owner: Any, name: str, before: Callable[..., None] = _nothing, after: Callable[..., None] = _nothing) -> None:
    """Call `before` and `after` with the arguments of every call."""
    original = getattr(owner, name)

    def called(*given: Any) -> Any:
        before(*given)
        found = original(*given)
        after(*given)
        return found

    setattr(owner, name, called)


def standing(pid: int) -> bool:
    """Whether a process does nothing any more: stopped, or over."""
    return state(pid) in "TZX"


def state(pid: int) -> str:
    """Its letter in /proc, see proc(5); X when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"
