"""The whole error tree. Read it as a table of contents of what can go wrong.

    HilError
    ├── Refused                      you asked for something that cannot be; nothing was sent
    │   ├── ConfigError              an experiment, bench or command line that makes no sense
    │   ├── DataError                a data set that is missing, damaged or of the wrong shape
    │   ├── OutOfRange               a value outside its Port's limits; NaN always is
    │   ├── ContractError            an object that does not keep Device, Twin, Learner or Link
    │   ├── BudgetSpent              more node evaluations than were granted
    │   └── RunError                 a run folder that is missing, damaged, full or in use
    ├── LinkError                    the wire
    │   ├── OpenFailed               nobody answers at this address
    │   ├── LinkTimeout              no answer, or no progress, before the deadline
    │   ├── Disconnected             the other end went away
    │   │   └── Ended                    for good: its process is over
    │   ├── Desync                   bytes that are not the reply that was due
    │   │   └── BadBlock             a binary block that breaks IEEE 488.2
    │   └── DirtySession             used after a fault, before it was re-identified
    ├── InstrumentError              the box answered, and complains
    │   ├── CommandRefused           its error queue holds errors
    │   ├── Overload                 its protection tripped: nobody but a person may switch it on again
    │   ├── SwitchedOff              somebody else switched an output off: nobody but a person may switch it on again
    │   ├── Changed                  somebody else changed a setting; it is set up again from reset
    │   │   └── ChangeForbidden      the same, beyond the limits of the drive, or where the bench file says to stop
    │   └── WrongInstrument          another maker, model or serial number than the bench file says
    ├── MeasurementError             the answer arrived and is not data
    │   ├── Saturated                the converter sat at a rail
    │   ├── NotAReading              sentinel (9.9E37), hole, NaN
    │   ├── Misaligned               the marker is not where it must be
    │   │   ├── Flat                 nothing moves at all: no light, no cable, a stuck channel
    │   │   └── Late                 it is there, later than it is looked for
    │   ├── MissedTrigger            nothing was acquired
    │   ├── Jumped                   the node answers otherwise than a moment ago: a mode hop, light lost
    │   ├── Drifted                  it answers otherwise than its reference, and nothing that is allowed puts that right
    │   ├── Unrepeatable             a temporal device lost its state, and its noise is not what it was: repeat the batch
    │   └── ReplayDiffers            a replay was asked what was never recorded
    │       └── TapeEnded            or more than was recorded
    ├── ForeignError                 code that is not hil's (a node, a learner, data, torch) raised an exception of its own
    ├── NotCalibrated                the bench was measured, and is not what its twin or its calibration says
    ├── Stopped                      a fault ended the run; it is committed and resumable; the cause is chained
    ├── Interrupted                  the user asked to stop; the run is resumable
    ├── GuardianLost                 nobody would make the outputs safe if this program died; nothing more is sent
    └── UnsafeOutputs                outputs could not be verified safe: the loudest one

What stands in a message may come from outside, so whatever a terminal would obey is shown as an escape (hil/plain.py).
A message answers five questions, each a keyword of the constructor: *where*, what was *got*, what is *allowed*, in which
state the *outputs* are, and what to do (*todo*). Foreign exceptions become one of these where they come in: those of the wire
in the Link files, those of the user's code and of its libraries in `hil/foreign.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hil.plain import plain

UNTOUCHED = "untouched; nothing was opened"  # the state of the outputs, where nothing was begun yet


class HilError(Exception):
    """Something hil knows how to explain.

    Args:
        what: one sentence, no full stop.
        where: file, key, instrument, port or channel.
        got: what was found.
        allowed: what would have been accepted.
        outputs: the state of the hardware outputs, when it is known here.
        todo: the next step for the user.
        at: lines of the user's own code, the innermost last.
    """

    def __init__(
        self, what: str, *, where: str = "", got: str = "", allowed: str = "", outputs: str = "", todo: str = "",
        at: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.what, self.where, self.got = what, where, got
        self.allowed, self.outputs, self.todo, self.at = allowed, outputs, todo, at
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        facts = [f"got {self.got}" if self.got else "", f"allowed: {self.allowed}" if self.allowed else ""]
        lines = [head + "".join(f"; {fact}" for fact in facts if fact) + "."]
        lines += [f"At: {line}" for line in self.at]
        if self.outputs:
            lines.append(f"Outputs: {self.outputs}.")
        if self.todo:
            lines.append(f"Next: {self.todo}.")
        return plain("\n".join(lines))


class Refused(HilError):
    """Nothing was sent."""


class ConfigError(Refused):
    pass


class DataError(Refused):
    pass


class OutOfRange(Refused):
    pass


class ContractError(Refused):
    pass


class BudgetSpent(Refused):
    pass


class RunError(Refused):
    pass


class LinkError(HilError):
    pass


class OpenFailed(LinkError):
    pass


class LinkTimeout(LinkError):
    pass


class Disconnected(LinkError):
    pass


class Ended(Disconnected):
    pass


class Desync(LinkError):
    pass


class BadBlock(Desync):
    pass


class DirtySession(LinkError):
    pass


class InstrumentError(HilError):
    pass


class CommandRefused(InstrumentError):
    pass


class Overload(InstrumentError):
    pass


class SwitchedOff(InstrumentError):
    pass


class Changed(InstrumentError):
    suspect_shots: int | None = None  # shots that may have been measured under the other settings, where that is known


class ChangeForbidden(Changed):
    pass


class WrongInstrument(InstrumentError):
    pass


class MeasurementError(HilError):
    pass


class Saturated(MeasurementError):
    pass


class NotAReading(MeasurementError):
    pass


class Misaligned(MeasurementError):
    pass


class Flat(Misaligned):
    pass


class Late(Misaligned):
    pass


class MissedTrigger(MeasurementError):
    pass


class Jumped(MeasurementError):
    pass


class Drifted(MeasurementError):
    pass


class Unrepeatable(MeasurementError):
    pass


class ReplayDiffers(MeasurementError):
    pass


class TapeEnded(ReplayDiffers):
    pass


class ForeignError(HilError):
    pass


class NotCalibrated(HilError):
    pass


class Stopped(HilError):
    pass


class Interrupted(HilError):
    pass


class GuardianLost(HilError):
    pass


class UnsafeOutputs(HilError):
    pass


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to `name`, or ""."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, 0.5)), "")
