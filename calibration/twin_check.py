"""Error of a twin against its node on a fixed set of probes.

r_k = mean over repeats of y_k - f(x_k)         f the twin's noiseless response
x_k  evenly over the input port; of a node of many channels: drawn over it, the same ones every time; of a node with memory
     a sequence from rest of such rows
bias = mean r,  spread = sqrt( mean (r - bias)^2 ),  correlation of mean y with f
noise = rms over k of the standard deviation of y_k over the repeats, of one reading
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hil.device import Device, reset
from hil.seeding import generator

POINTS, REPEATS = 101, 8
STEPS = 20  # of the sequence for a node with memory


@dataclass(frozen=True, slots=True)
class TwinCheck:
    """bias, spread, noise and swing in the unit of the output port; correlation -1 to 1.

    Args:
        points: of the probe set.
        swing: peak to peak of the mean readings.
    """

    bias: float
    spread: float
    correlation: float
    points: int
    noise: float
    swing: float = 0.0

    @property
    def error(self) -> float:
        """Root mean square of what the twin is off by, in the unit of the output port."""
        return math.hypot(self.bias, self.spread)


class HasIdeal(Protocol):
    """The part of a twin that the check needs."""

    def ideal(self, x: Tensor) -> Tensor:
        """Return the reading without noise or memory for a drive `x`, same shape."""


def compare_twin(device: Device, twin: HasIdeal, points: int = POINTS, repeats: int = REPEATS) -> TwinCheck:
    """Check a twin with one shot of `points` x `repeats` values.

    Raises:
        LinkError, InstrumentError, MeasurementError: of the device.
    """
    port = device.spec.inputs
    width = port.size or 1
    if device.spec.memory:
        reset(device)
        sequence = port.within(torch.rand(STEPS, 1, width, generator=generator(0, 0, "probes")))
        with torch.no_grad():
            expected = twin.ideal(sequence).to("cpu", torch.float64).squeeze(1)
        found = device.forward(sequence.repeat(1, repeats, 1)).to("cpu", torch.float64).transpose(0, 1)
        return _judged(found, expected)
    if width == 1:
        probes = torch.linspace(port.shared_low, port.shared_high, points).unsqueeze(1)
    else:
        drawn = torch.rand(points, width, generator=generator(0, 0, "probes"))
        probes = port.within(drawn)
    drive = probes.clamp(*port.bounds(probes)).repeat(repeats, 1)
    answers = device.forward(drive).to("cpu", torch.float64).view(repeats, points, -1)
    with torch.no_grad():
        predicted = twin.ideal(drive[:points]).to("cpu", torch.float64)
    return _judged(answers, predicted)


def _judged(answers: Tensor, predicted: Tensor) -> TwinCheck:
    """Hold readings (repeats, points, channels) against what a twin says (points, channels)."""
    repeats, points = answers.shape[:2]
    mean = answers.mean(0)
    off = mean - predicted
    noise = float(answers.std(0).square().mean().sqrt()) if repeats > 1 else 0.0
    bias, swing = float(off.mean()), float((mean.amax(0) - mean.amin(0)).max())
    return TwinCheck(bias, float((off - bias).square().mean().sqrt()), _correlation(mean, predicted), points, noise, swing)


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size else 0.0
