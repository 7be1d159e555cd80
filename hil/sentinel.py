"""The Sentinel contract between training or use and calibration: what a loop asks of whoever watches over the node.

    begin()                     reference answers, before the first step; nothing if there are some
    after(step, …) -> Look      once a step; None: it was not its turn
                                Look.back: the caller should return to a good checkpoint, and then says so by back()
                                Look.fault: nothing helped; the caller ends with it

Whatever can be put right at the node itself (bias, scale, a new reference) is put right before `after` returns. Only what lies
with the caller, going back and ending, is asked of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from hil.errors import Drifted

State = Literal["quiet", "warn", "act"]


@dataclass(frozen=True, slots=True)
class Look:
    """A look at the node.

    Args:
        step: after which it was taken.
        state: of the node as it is left.
        did: what was done, in order: "servo", "rescale", "recalibrate", "roll_back", "log", "stop".
        walk: by how much the curve was found to lie to the right of the reference, in the drive's unit, ± walk_sigma.
        steered: by how much the drive is moved to make up for that, in the same unit, once the look is over.
        back: the caller should return to a checkpoint of step `quiet_step` or before, or say that it cannot.
        fault: why the caller must end.
    """

    step: int
    state: State
    did: tuple[str, ...] = ()
    walk: float = 0.0
    walk_sigma: float = 0.0
    steered: float = 0.0
    back: bool = False
    fault: Drifted | None = None


class Sentinel(Protocol):
    """Looks at the node from time to time, and keeps it where its reference was."""

    @property
    def quiet_step(self) -> int:
        """The last step at which the node was as it should be; 0 before the first look."""

    def begin(self) -> None:
        """Measure the reference, unless there is one.

        Raises:
            MeasurementError: the node does not answer, or not as its settings say.
        """

    def after(self, step: int, shots: int, values: int) -> Look | None:
        """Called after step `step`, which took so many shots and values of the device; a look if it is time for one.

        Raises:
            LinkError, InstrumentError, MeasurementError: of the device.
        """

    def back(self, step: int | None) -> Look:
        """The caller has returned to `step`; None: there was nowhere to return to. Goes on with what else can be done."""

    def state(self) -> Mapping[str, object]:
        """Return all that it must remember, as JSON values."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`, steering included."""

    def summary(self) -> Mapping[str, object]:
        """Return what it saw and did, for results."""
