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
    """The root of all errors that hil knows how to explain.

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
            lines.append(f"Next: {self.todo}" + "." * (not self.todo.endswith((".", "?"))))
        return plain("\n".join(lines))


class Refused(HilError):
    """The user asked for something that cannot be; nothing was sent."""


class ConfigError(Refused):
    """An experiment, bench or command line makes no sense."""


class DataError(Refused):
    """A data set is missing, damaged or of the wrong shape."""


class OutOfRange(Refused):
    """A value is outside its Port's limits; NaN always is."""


class ContractError(Refused):
    """An object does not keep Device, Twin, Learner or Link."""


class BudgetSpent(Refused):
    """The budget is spent: more node evaluations were asked for than were granted."""


class RunError(Refused):
    """A run folder is missing, damaged, full or in use."""


class LinkError(HilError):
    """A fault of the wire."""


class OpenFailed(LinkError):
    """No answer at this address."""


class LinkTimeout(LinkError):
    """No answer, or no progress, came before the deadline."""


class Disconnected(LinkError):
    """The other end went away."""


class Ended(Disconnected):
    """The other end went away for good: its process is over."""


class Desync(LinkError):
    """The bytes are not the reply that was due."""


class BadBlock(Desync):
    """A binary block breaks IEEE 488.2."""


class DirtySession(LinkError):
    """A link was used after a fault, before the instrument was identified again."""


class InstrumentError(HilError):
    """The box answered, and complains."""


class CommandRefused(InstrumentError):
    """The box has errors in its queue."""


class Overload(InstrumentError):
    """A protection tripped: nobody but a person may switch the output on again."""


class SwitchedOff(InstrumentError):
    """An output was switched off by somebody else: only a person may switch it on again."""


class Changed(InstrumentError):
    """A setting was changed by somebody else; the bench is set up again from reset.

    `suspect_shots`: how many shots may have been measured under the other settings, where that is known.
    """

    suspect_shots: int | None = None  # shots that may have been measured under the other settings, where that is known


class ChangeForbidden(Changed):
    """A setting was changed by somebody else beyond the limits of the drive, or the bench file says to stop then."""


class WrongInstrument(InstrumentError):
    """The instrument that answers is of another maker, model or serial number than the bench file says."""


class MeasurementError(HilError):
    """The answer arrived and is not data."""


class Saturated(MeasurementError):
    """The converter sat at a rail."""


class NotAReading(MeasurementError):
    """The reading is a sentinel (9.9E37), a hole or NaN."""


class Misaligned(MeasurementError):
    """The marker is not where it must be."""


class Flat(Misaligned):
    """The reading does not move at all: no light, no cable, a stuck channel."""


class Late(Misaligned):
    """The marker is there, later than it is looked for."""


class MissedTrigger(MeasurementError):
    """Nothing was acquired."""


class Jumped(MeasurementError):
    """The node answers otherwise than a moment ago: a mode hop, light lost."""


class Drifted(MeasurementError):
    """The node answers otherwise than its reference, and nothing that is allowed puts that right."""


class Unrepeatable(MeasurementError):
    """A temporal device lost its state, and its noise is not what it was, or a sequence broke off: repeat the batch."""


class ReplayDiffers(MeasurementError):
    """A replay was asked what was never recorded."""


class TapeEnded(ReplayDiffers):
    """A replay was asked more than was recorded."""


class ForeignError(HilError):
    """Code that is not hil's (a node, a learner, data, torch) raised an exception of its own."""


class NotCalibrated(HilError):
    """The bench was measured, and is not what its twin or its calibration says."""


class Stopped(HilError):
    """A fault ended the run; it is committed and resumable; the cause is chained."""


class Interrupted(HilError):
    """The user asked to stop; the run is resumable."""


class GuardianLost(HilError):
    """The guardian is gone, so the outputs would stay on if this program died; nothing more is sent."""


class UnsafeOutputs(HilError):
    """Outputs could not be verified safe: the loudest error."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to `name`, or ""."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, 0.5)), "")
