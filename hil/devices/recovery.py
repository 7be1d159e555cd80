"""The recovery ladder: from a fault back to the whole shot, by the least that helps.

    fault ──row──> REPEAT ──fails──> RESTORE ──fails──> CLEAR ──fails──> REOPEN ──fails──> pause, REOPEN … until patience ends
                     │                  │                 │                │
                   shot        reinstate verify     clear identify   reopen identify
                                     shot           reinstate verify reinstate verify
                                                          shot             shot

`reinstate` begins with a reset of every instrument: what is set up again does not depend on what somebody or something else had
set meanwhile. A fault enters at the rung of its row (`ROWS`) and leaves the ladder above the row's last one. Every rung ends
with the whole shot, so no answer is ever put together from two of them, and none is read from a session that was not identified
again. What happens on the way is told (`EventListener`): the journal keeps it, people see it. When the ladder ends, its last
fault goes on to the caller, who makes the outputs safe.

Source: IEEE 488.2-1992, section 6 (what may follow a broken exchange); SCPI-1999 volume 2, 21.8 (-350, queue overflow).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Protocol, TypeVar

from pydantic import Field

from hil.device import Recoverable
from hil.errors import (
    Changed,
    ChangeForbidden,
    CommandRefused,
    DirtySession,
    Disconnected,
    Ended,
    ForeignError,
    GuardianLost,
    HilError,
    InstrumentError,
    Jumped,
    LinkError,
    MeasurementError,
    Misaligned,
    MissedTrigger,
    NotAReading,
    OpenFailed,
    Overload,
    Refused,
    Saturated,
    SwitchedOff,
    Unrepeatable,
    UnsafeOutputs,
    WrongInstrument,
)
from hil.settings import check

A = TypeVar("A")
PAUSE_S = 0.2  # before the second reopening; doubled each time
LONGEST_PAUSE_S = 10.0
BEAT_S = 1.0
BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # goes on while the computer sleeps; Linux has it
SLEEP_S = 5.0  # a shorter nap is not seen by an instrument


class Rung(IntEnum):
    """A rung of the ladder: how much is done before the shot is repeated."""

    REPEAT = 0
    RESTORE = 1
    CLEAR = 2
    REOPEN = 3


@dataclass(frozen=True, slots=True)
class LadderRow:
    """A kind of fault.

    Args:
        first, last: the rungs that may help; first None: nothing does, and the run stops safely.
    """

    error: type[HilError]
    first: Rung | None
    last: Rung
    why: str


ROWS = (
    LadderRow(Refused, None, Rung.REPEAT, "what was asked for cannot be; asking again changes nothing"),
    LadderRow(UnsafeOutputs, None, Rung.REPEAT, "nothing may be sent while the outputs are unknown"),
    LadderRow(GuardianLost, None, Rung.REPEAT, "nobody would make the outputs safe"),
    LadderRow(ForeignError, None, Rung.REPEAT, "code that is not hil's failed; the same call again changes nothing"),
    LadderRow(Unrepeatable, None, Rung.REPEAT, "the whole batch must be repeated, by whoever began it"),
    LadderRow(LinkError, Rung.CLEAR, Rung.REOPEN, "the wire may hold half a message"),
    LadderRow(DirtySession, Rung.REPEAT, Rung.REOPEN, "the consequence of another fault, perhaps mended by now"),
    LadderRow(Disconnected, Rung.REOPEN, Rung.REOPEN, "there is no wire to clear"),
    LadderRow(OpenFailed, Rung.REOPEN, Rung.REOPEN, "it may be starting up"),
    LadderRow(Ended, None, Rung.REPEAT, "its process is over: only a new start helps"),
    LadderRow(
        InstrumentError,
        Rung.RESTORE,
        Rung.REOPEN,
        "its settings are not what was sent: a reboot, or somebody at the front panel",
    ),
    LadderRow(
        CommandRefused, Rung.RESTORE, Rung.CLEAR, "after an error, or an overflow of the queue, the settings are unknown"
    ),
    LadderRow(Overload, None, Rung.REPEAT, "a protection that tripped waits for a person"),
    LadderRow(SwitchedOff, None, Rung.REPEAT, "an output that a person switched off stays off until a person says otherwise"),
    LadderRow(Changed, Rung.RESTORE, Rung.REOPEN, "another hand changed a setting, and may still be at it"),
    LadderRow(
        ChangeForbidden, None, Rung.REPEAT, "the bench file says to stop, or the drive may have been outside of its limits"
    ),
    LadderRow(WrongInstrument, None, Rung.REPEAT, "another instrument must not be driven"),
    LadderRow(MeasurementError, Rung.REPEAT, Rung.RESTORE, "the answer was whole and is no data"),
    LadderRow(NotAReading, Rung.REPEAT, Rung.REOPEN, "holes and sentinels pass"),
    LadderRow(Saturated, Rung.REPEAT, Rung.REPEAT, "a spike passes; a range that is too small does not"),
    LadderRow(
        Jumped, Rung.REPEAT, Rung.REPEAT, "a hop back and forth passes; another operating point does not, and is for a person"
    ),
    LadderRow(
        Misaligned, Rung.REPEAT, Rung.CLEAR, "the marker is late, or the record is not ours; the delay is measured again"
    ),
    LadderRow(MissedTrigger, Rung.REPEAT, Rung.REOPEN, "lost once, or a generator that forgot its settings"),
)


def row_of(fault: HilError) -> LadderRow:
    """The row of the nearest kind; what is in no row (Stopped, Interrupted) is nobody's to mend."""
    rows = {row.error: row for row in ROWS}
    return next(
        (rows[kind] for kind in type(fault).__mro__ if kind in rows), LadderRow(HilError, None, Rung.REPEAT, "not a fault")
    )


class EventListener(Protocol):
    """Hears what happens to a device.

    "recovering": a fault is worked on; then "recovery", or "lost" if nothing helped; "retransmission" where frames were
    sent again below the ladder.
    """

    def __call__(self, kind: str, **facts: object) -> None:
        """Hear of an event called `kind`, with what is known about it."""


def ignore_event(kind: str, **facts: object) -> None:
    """Ignore every event."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits of the work on a fault: how often, how long.

    Args:
        patience_s: from the fault on, reopening is tried again; a scope that reboots takes a minute.
        most: so many recoveries in one run end it: a bench that needs more is not one to trust. None: no bound.
    """

    patience_s: Annotated[float, Field(ge=0, lt=86_400)] = 120.0
    most: Annotated[int, Field(ge=0)] | None = None

    def __post_init__(self) -> None:
        check(self, "[recovery]")


def asleep_s() -> float:
    """Return how long the computer has been suspended since it booted, s.

    Where no clock counts that, it is by how much the wall clock runs ahead of the one that stands still meanwhile.
    """
    now_s = time.time() if BOOT_CLOCK is None else time.clock_gettime(BOOT_CLOCK)
    return now_s - time.monotonic()


class Ladder:
    """Brings one device back, as often as it takes, and counts.

    Args:
        device: what has the rungs.
        told: hears of every fault and every recovery.
        beat: called every second of a pause.
        clock, sleep: of the pauses, s.
        asleep: see asleep_s.
    """

    def __init__(
        self,
        device: Recoverable,
        patience: Patience | None = None,
        told: EventListener = ignore_event,
        beat: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[], float] = asleep_s,
    ) -> None:
        self._device, self._patience = device, patience or Patience()
        self._told, self._beat, self._clock, self._sleep = told, beat, clock, sleep
        self._asleep, self._slept_s = asleep, asleep()
        self.recovered = 0

    def awake(self) -> None:
        """Recover first if the computer was suspended; call it before every shot.

        Raises:
            Disconnected: the computer slept since the last call, and what was on the wires is not to be believed.
        """
        slept_s = self._asleep()
        gone_s, self._slept_s = slept_s - self._slept_s, slept_s
        if abs(gone_s) > SLEEP_S:
            raise Disconnected(
                "the computer was suspended, or its clock was set", where="this computer", got=f"{gone_s:.0f} s",
                outputs="presumed as last set", todo="switch suspending off for long runs",
            )  # fmt: skip

    def retransmitted(self, frames: int) -> None:
        """Tell that so many frames were put right by the session itself."""
        self._told("retransmission", frames=frames)

    def climb(self, fault: HilError, shot: Callable[[], A]) -> A:
        """The answer of `shot`, repeated as a whole after the rungs that `fault` needs.

        Raises:
            HilError: the last fault, if no rung helps; its `got` says what was tried.
        """
        begin, tried = self._clock(), list[str]()
        row = self._fault(fault, tried, begin)
        if row.first is None:
            raise fault
        rung: Rung = row.first
        top = row.last
        while True:
            tried.append(rung.name.lower())
            self._beat()
            try:
                found = self._prepare(rung)
                answer = shot()
            except HilError as again:
                fault, row = again, self._fault(again, tried, begin)
                top = max(top, row.last)  # a lost answer may go on as a record that is not ours: one cause
                rung = self._next(fault, row, rung, top, tried, begin)
            else:
                self._recovered(tried, found, self._clock() - begin)
                return answer

    def _prepare(self, rung: Rung) -> list[str]:
        """Do everything that comes before the shot on this rung; return what was found on the way."""
        found = []
        if rung is Rung.REOPEN:
            self._device.reopen()
        if rung is Rung.CLEAR:
            self._device.clear()
        if rung >= Rung.CLEAR:
            found.append(self._device.identify())
        if rung >= Rung.RESTORE:
            self._device.reinstate()
            found.append(self._device.verify())
        return found

    def _next(self, fault: HilError, row: LadderRow, rung: Rung, top: Rung, tried: list[str], begin: float) -> Rung:
        """Return the next rung, or the one that the new fault needs; at the top, the same again after a pause."""
        if row.first is None:
            raise fault
        higher = max(rung + 1, row.first)
        if higher <= top:
            return Rung(higher)
        if row.last is not Rung.REOPEN or self._clock() - begin >= self._patience.patience_s:
            raise self._over(fault, tried, begin)
        self._pause(min(LONGEST_PAUSE_S, PAUSE_S * 2 ** (tried.count("reopen") - 1)))
        return Rung.REOPEN

    def _pause(self, seconds: float) -> None:
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            self._beat()
            self._sleep(min(left, BEAT_S))

    def _fault(self, fault: HilError, tried: list[str], begin: float) -> LadderRow:
        row = row_of(fault)
        facts: dict[str, object] = {
            "error": type(fault).__name__, "what": fault.what, "where": fault.where, "got": fault.got
        }  # fmt: skip
        if isinstance(fault, Changed) and fault.suspect_shots is not None:
            facts["suspect_shots"] = fault.suspect_shots
        if row.first is None:
            self._told("lost", **facts, tried=list(tried), seconds=round(self._clock() - begin, 3))
        else:
            self._told("recovering", **facts, first=row.first.name.lower())
        return row

    def _recovered(self, tried: list[str], found: list[str], took_s: float) -> None:
        self.recovered += 1
        self._told("recovery", tried=tried, found=[line for line in found if line], seconds=round(took_s, 3), n=self.recovered)
        most = self._patience.most
        if most is not None and self.recovered > most:
            raise InstrumentError(
                "too many faults were recovered in this run", where="recovery", got=f"{self.recovered}", allowed=f"{most}",
                outputs="as after the last shot; they are made safe now", todo="see in the journal what they have in common",
            )  # fmt: skip

    def _over(self, fault: HilError, tried: list[str], begin: float) -> HilError:
        counts = ", ".join(f"{rung} ×{tried.count(rung)}" for rung in dict.fromkeys(tried))
        took_s = self._clock() - begin
        self._told("lost", error=type(fault).__name__, what=fault.what, tried=tried, seconds=round(took_s, 3))
        said = f"{counts} in {took_s:.1f} s did not help"
        fault.got = f"{fault.got}; {said}" if fault.got else said
        return fault
