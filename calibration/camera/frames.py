"""Frames of a camera behind a spatial light modulator: patterns in, light per pixel out, dark level and sensitivity taken off.

    light = ( counts - dark - rate exposure ) / ( sensitivity exposure )        in counts of a full exposure

How the channels of such a Device are counted: K gray levels of a square modulator, row by row; M counts of a square camera, row
by row; four numbers from 0 to 1 that set the optics: mirror (1: an image of the modulator instead of the medium), exposure as a
share of the longest, power of the laser, power of an even lamp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from calibration.sequence import Found
from calibration.step import Problem, Step
from hil.device import Device, Spec, program
from hil.errors import Saturated

DARK, FLAT = "dark frame", "flat field"
OPTICS = 4
NEAR_TOP = 0.95  # of the highest count: beyond it a pixel may be saturated


def is_camera(spec: Spec) -> bool:
    """True if a node has the channels of modulator and camera."""
    sizes = (spec.inputs.size, spec.outputs.size)
    square = all(n is not None and n == math.isqrt(n) ** 2 for n in sizes)
    return square and not spec.temporal and spec.params is not None and spec.params.size == OPTICS


def no_camera(name: str, spec: Spec) -> Step:
    """The failed step of a procedure for modulator and camera on another node."""
    found = (
        f"{spec.inputs.size} drives, {spec.outputs.size} readings, {0 if spec.params is None else spec.params.size} settings"
    )
    problem = Problem(
        "kind", "this node is not a modulator in front of a camera", f"{found}; that has two square numbers and {OPTICS}",
        "give [optics] and square numbers of macropixels in its bench file, or calibrate it as what it is: another shape",
    )  # fmt: skip
    return Step(name, f"no camera: {found}", success=(False,), problems=(problem,))


@dataclass(frozen=True)
class View:
    """The device, frame by frame, in its own counts."""

    device: Device

    @property
    def macropixels(self) -> int:
        """Number of gray levels that drive the modulator."""
        return self.device.spec.inputs.size or 0

    @property
    def pixels(self) -> int:
        """Number of counts of a frame."""
        return self.device.spec.outputs.size or 0

    @property
    def highest(self) -> float:
        """Gray level."""
        return self.device.spec.inputs.shared_high

    def frames(
        self, gray: Tensor, *, exposure: float, mirror: bool = False, laser: float = 1.0, lamp: float = 0.0, shots: int = 1
    ) -> Tensor:
        """Gray levels (P, K) -> counts (shots, P, M)."""
        program(self.device, torch.tensor([float(mirror), exposure, laser, lamp]))
        drive = gray.float().clamp(0, self.highest).repeat(shots, 1)
        return self.device.forward(drive).double().view(shots, len(gray), -1)

    def blank(self, count: int) -> Tensor:
        """Gray levels that nobody will see (count, K)."""
        return torch.zeros(count, self.macropixels)


@dataclass(frozen=True)
class Camera:
    """A camera whose pixels are known. dark, rate (per full exposure), sensitivity (mean 1): (M,)."""

    view: View
    dark: Tensor
    rate: Tensor
    sensitivity: Tensor

    @classmethod
    def of(cls, device: Device, found: Found) -> Camera:
        """Make the camera that the steps "dark frame" and "flat field" found."""
        raw = found[DARK].raw
        return cls(View(device), raw["dark"], raw["rate"], found[FLAT].raw["sensitivity"])

    def light(self, gray: Tensor, *, exposure: float, mirror: bool = False, shots: int = 1) -> Tensor:
        """Gray levels (P, K) -> light (P, M)."""
        counts = self.view.frames(gray, exposure=exposure, mirror=mirror, shots=shots).mean(0)
        return (counts - self.dark - self.rate * exposure) / (self.sensitivity * exposure)

    def exposure(self, gray: Tensor, *, mirror: bool = False, longest: float = 0.5) -> float:
        """The longest at which none of these patterns brings a pixel near saturation."""
        found, top = longest, self.view.device.spec.outputs.shared_high
        for _ in range(12):
            try:
                brightest = float(self.view.frames(gray, exposure=found, mirror=mirror).max())
            except Saturated:  # the device refuses such frames
                brightest = top
            if brightest < 0.8 * top:
                return found
            found *= 0.5 if brightest >= NEAR_TOP * top else 0.75 * top / brightest
        return found

    def as_it_stood(self) -> None:
        """The optics as they are when nothing is programmed."""
        program(self.view.device, torch.tensor([0.0, 0.5, 1.0, 0.0]))
