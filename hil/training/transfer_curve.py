"""The transfer curve of a static node, measured: the first thing to look at, and what sets an output's zero and scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hil.device import Device
from hil.encoding import Decode
from hil.errors import MeasurementError
from hil.seeding import generator


@dataclass(frozen=True)
class Transfer:
    """drive (points,) in the unit of the input port; mean, spread (points,) of the reading in the unit of the output port.

    `spread` is the standard deviation over repeats (and over channels, where the device has several).
    """

    drive: Tensor
    mean: Tensor
    spread: Tensor

    def honesty(self, twin: Tensor, unit: str) -> dict[str, Any]:
        """How a twin that says `twin` (points,) foretold the curve: see `judged`."""
        return judged(self.mean, self.spread, twin, unit)

    def decode(self) -> Decode:
        """Zero in the middle of the measured range, scale half of it: outputs fill -1 to 1.

        Raises:
            MeasurementError: the reading hardly moves, so it carries no signal.
        """
        low, high = float(self.mean.min()), float(self.mean.max())
        noise = float(self.spread.mean())
        if not high - low > 4 * noise or high == low:
            raise MeasurementError(
                "the node does not answer to its drive",
                where="transfer curve",
                got=f"readings from {low:.4g} to {high:.4g} with noise {noise:.2g}",
                allowed="a swing of more than four times the noise",
                outputs="as after the sweep: the last drive is held",
                todo="check that the output is on, the cable, the laser, the scope's channel and range; a node that answers to "
                "differences between its channels alone needs zero and scale in [decode]",
            )
        return Decode(zero=(high + low) / 2, scale=(high - low) / 2)


def judged(mean: Tensor, spread: Tensor, twin: Tensor, unit: str) -> dict[str, Any]:
    """How a twin that says `twin` foretold readings of this mean and spread over repeats, all of one shape; r = mean - twin:

        bias = mean r    spread = sqrt( mean (r - bias)^2 )    nrmse = sqrt( mean r^2 ) / (max mean - min mean)

    correlation: of mean and twin. noise: standard deviation of one reading. All in `unit`, but correlation and nrmse.
    """
    mean, twin = mean.double().flatten(), twin.double().flatten()
    off = mean - twin
    bias, swing = float(off.mean()), float(mean.max() - mean.min())
    a, b = mean - mean.mean(), twin - twin.mean()
    size = float(a.norm() * b.norm())
    return {
        "bias": bias,
        "spread": float((off - bias).square().mean().sqrt()),
        "correlation": float((a * b).sum()) / size if size else 0.0,
        "noise": float(spread.double().square().mean().sqrt()),
        "nrmse": float(off.square().mean().sqrt()) / swing if swing else math.inf,
        "points": len(mean),
        "unit": unit,
    }


def probed(
    device: Device, model: Callable[[Tensor], Tensor], points: int = 51, repeats: int = 8, place: torch.device | str = "cpu"
) -> dict[str, Any]:
    """`judged` on the same drives every time, drawn over the ports of a static device of many channels. One shot.

    Raises: as the device.
    """
    port = device.spec.inputs
    drawn = torch.rand(points, port.size or 1, generator=generator(0, 0, "probes"))
    drive = torch.lerp(torch.tensor(port.low), torch.tensor(port.high), drawn).clamp(port.low, port.high).to(place)
    answers = device.forward(drive.repeat(repeats, 1)).to(place)
    answers = answers.view(repeats, points, -1)
    return judged(answers.mean(0), answers.std(0), model(drive), device.spec.outputs.unit)


def foretold(honesty: Mapping[str, Any]) -> str:
    """`Transfer.honesty` as a line for people."""
    unit = "" if honesty["unit"] == "1" else f" {honesty['unit']}"
    bias, spread, noise = (f"{honesty[name]:{sign}.2g}{unit}" for name, sign in (("bias", "+"), ("spread", ""), ("noise", "")))
    return (
        f"foretells the curve to {100 * honesty['nrmse']:.2g} % of its swing, correlation {honesty['correlation']:.5f}   "
        f"bias {bias}, spread {spread}, noise of a reading {noise}"
    )


def measure(device: Device, points: int = 201, repeats: int = 8, place: torch.device | str = "cpu") -> Transfer:
    """Sweep a static device over its whole input port, `repeats` times up. place: where the host computes."""
    port = device.spec.inputs
    drive = torch.linspace(port.low, port.high, points).clamp(port.low, port.high).to(place)
    if port.size is None:
        answers = device.forward(drive.repeat(repeats, 1)).to(place)  # (repeats, points): one node, shared in time
    else:
        answers = device.forward(drive.repeat(repeats).unsqueeze(1).expand(-1, port.size).contiguous()).to(place)
        answers = answers.view(repeats, points, -1).movedim(1, 2).reshape(-1, points)
    spread = answers.std(0) if len(answers) > 1 else torch.zeros_like(drive)
    return Transfer(drive, answers.mean(0), spread)
