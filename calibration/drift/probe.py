"""Reference shots through the device, as the learner drives it: what a drift sentinel compares, and measures its curves by.

A probe has m drives for each channel, up and then down again. Channels that answer by themselves are driven together ("apart");
where readings answer to every drive, they go through their drives in orders of their own ("mixed"); see curves.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from calibration.drift.curves import Curves, Kind, apart, drives, mixed, places, together
from calibration.drift.estimate import Floats, Reference
from calibration.drift.steering import Steered
from hil.device import Device, Limit, Spec
from hil.port import each

POINTS = 32  # drives, each of them twice in a shot
REFERENCE_SHOTS = 16


def several(spec: Spec) -> bool:
    """True of a node that has a curve for each of several channels."""
    return spec.inputs.size is not None and (spec.inputs.size, spec.outputs.size) != (1, 1)


class Counted(Protocol):
    """Hears of every shot."""

    def __call__(self, values: int, seconds: float) -> None:
        """Hear of a shot of so many values, and how long it took, s."""


class Probe:
    """A probe of a static node.

    Args:
        device: the outermost device.
        steered: the one inside of it whose drive is moved.
        place: where the host computes.
        clock: seconds.
        counted: hears of every shot.
    """

    def __init__(
        self, device: Device, steered: Steered, place: torch.device | str, clock: Callable[[], float], counted: Counted
    ) -> None:
        port = device.spec.inputs
        self._device, self._steered, self._place, self._clock, self._counted = device, steered, place, clock, counted
        self.several = several(device.spec)
        self.drive = drives(port, POINTS)  # (channels, POINTS)
        rows = together(self.drive)
        self._rows = {"apart": rows, "shared": rows}
        self._rows |= {"mixed": np.take_along_axis(rows, places(*self.drive.shape), 1)} if self.several else {}

    @property
    def size(self) -> int:
        """Values of a shot."""
        return int(self._rows["apart"].size)

    def shot(self, kind: Kind) -> Floats:
        """(L, 2m) one shot of the probe for such a node; one row where all neurons share it."""
        rows = torch.from_numpy(self._rows[kind]).to(torch.float32)
        sent = (rows if self._device.spec.inputs.size is None else rows.T.contiguous()).to(self._place)
        begin = self._clock()
        answer: Tensor = self._device.forward(sent)
        self._counted(sent.numel(), self._clock() - begin)
        seen: Floats = answer.detach().to("cpu", torch.float64).numpy()
        return seen.T if self.several else seen.reshape(1, -1)

    def shots(self, kind: Kind, count: int = REFERENCE_SHOTS) -> Floats:
        """(count, L, 2m) shots, one after the other."""
        return np.stack([self.shot(kind) for _ in range(count)])

    def curves(self, known: Kind | None) -> Curves:
        """Measure the reference curves, and let the drive come back by their periods.

        Args:
            known: the kind of node, if it was found out before; else it is found out whether its channels are apart.

        Raises:
            MeasurementError: the node does not answer to its drive.
        """
        spec, said = self._device.spec, self._steered.period
        shots = {kind: self.shots(kind) for kind in self._tried(known)}
        periods = (None,) * len(self.drive) if said is None else each(said, len(self.drive))
        found = None
        if "shared" in shots:
            units = (spec.inputs.unit, spec.outputs.unit)
            found = Curves("shared", (0,), (Reference.of(self.drive[0], shots["shared"][:, 0], periods[0], units),))
        elif "apart" in shots:
            found = apart(spec, self.drive, shots["apart"], shots.get("mixed"), periods)
        if found is None:
            found = mixed(spec, shots["mixed"])
        self.retune(found)
        return found

    def _tried(self, kind: Kind | None) -> tuple[Kind, ...]:
        """The probes that are sent for a reference."""
        if not self.several:
            return ("shared",)
        if kind is not None:
            return (kind,)
        spec = self._device.spec
        return ("apart", "mixed") if spec.inputs.size == spec.outputs.size else ("mixed",)

    def retune(self, curves: Curves) -> None:
        """Let the drive come back by the periods of this specimen."""
        said = self._steered.period
        if said is not None and curves.kind != "mixed":
            self._steered.retune(self.whole(curves.periods(each(said, len(self.drive)))))

    def whole(self, values: Sequence[float]) -> Limit:
        """Return one number for a node that has one channel, else one for each channel."""
        return tuple(values) if self.several else values[0]
