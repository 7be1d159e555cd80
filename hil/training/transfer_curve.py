"""The transfer curve of a static node, measured: the first thing to look at, and what sets an output's zero and scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hil.device import Device
from hil.devices.stepped import approached
from hil.encoding import Decode
from hil.errors import MeasurementError
from hil.seeding import generator

NOT_VALID = 0.25  # of peak to peak: from here on the twin predicts hardly more of a curve than its mean would


@dataclass(frozen=True)
class Transfer:
    """drive (points,) in the unit of the input port; mean, spread (points,) of the reading in the unit of the output port.

    Where each channel has limits of its own, all are swept at once, each over its own range; `drive` is then their mean.

    `spread` is the standard deviation over repeats; of a device with several readings the mean curve, and each spread squared,
    is averaged over them.
    """

    drive: Tensor
    mean: Tensor
    spread: Tensor

    def compare_twin(self, twin: Tensor, unit: str) -> dict[str, Any]:
        """Check how well a twin that says `twin` (points,) predicts the curve: see `twin_errors`."""
        return twin_errors(self.mean, self.spread, twin, unit)

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


def twin_errors(mean: Tensor, spread: Tensor, twin: Tensor, unit: str) -> dict[str, Any]:
    """Judge how a twin that says `twin` predicts readings of this mean and spread over repeats, all of one shape.

    With r = mean - twin:

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
    drive = port.within(torch.rand(points, port.size or 1, generator=generator(0, 0, "probes"))).to(place)
    answers = _asked(device, drive.repeat(repeats, 1)).to(place).view(repeats, points, -1)
    return twin_errors(answers.mean(0), answers.std(0), model(drive), device.spec.outputs.unit)


def twin_line(check: Mapping[str, Any]) -> str:
    """Write the result of `Transfer.compare_twin` for people; NOT VALID from an error of NOT_VALID on, or without a number."""
    off = math.hypot(check["bias"], check["spread"])
    share = f"{100 * check['nrmse']:.2g} % of peak to peak"
    if not math.isfinite(check["nrmse"]):
        share = "the curve does not move" if math.isinf(check["nrmse"]) else "the twin gives no number"
    valid = check["nrmse"] < NOT_VALID and math.isfinite(off)
    return (
        f"model against measured curve: rms error {_said(off, check['unit'])} ({share}); "
        f"noise of a reading {_said(check['noise'], check['unit'])}"
        + ("" if valid else "; NOT VALID: this twin does not describe this node")
    )


def _said(value: float, unit: str) -> str:
    """1.8e-3 V -> "1.8 mV"."""
    if unit == "1" or not math.isfinite(value):
        return f"{value:.2g}" + ("" if unit == "1" else f" {unit}")
    power = min(0, max(-12, 3 * math.floor(math.log10(abs(value)) / 3))) if value else 0
    prefix = {0: "", -3: "m", -6: "µ", -9: "n", -12: "p"}[power]
    return f"{float(f'{value / 10**power:.2g}'):g} {prefix}{unit}"


def measure(device: Device, points: int = 201, repeats: int = 8, place: torch.device | str = "cpu") -> Transfer:
    """Sweep a static device over its whole input port, `repeats` times up; every channel over its own range.

    Args:
        device: a static one.
        points: of a sweep.
        repeats: sweeps.
        place: where the host computes.
    """
    port = device.spec.inputs
    if port.size is None:
        drive = torch.linspace(port.shared_low, port.shared_high, points).clamp(port.shared_low, port.shared_high).to(place)
        answers = device.forward(drive.repeat(repeats, 1)).to(place)  # (repeats, points): one node, shared in time
    else:
        low, high = (limit.to(place) for limit in port.bounds(torch.empty(0)))
        steps = [torch.linspace(float(a), float(b), points) for a, b in zip(low.expand(port.size), high.expand(port.size))]
        rows = torch.stack(steps, 1).to(place).clamp(low, high)
        drive = rows.mean(1) if port.per_channel else rows[:, 0].contiguous()
        each = _asked(device, rows.repeat(repeats, 1)).to(place).view(repeats, points, -1)
        noise = each.std(0).square().mean(-1).sqrt() if repeats > 1 else torch.zeros_like(drive)
        return Transfer(drive, each.mean((0, 2)), noise)  # of readings that have curves of their own, what is common to them
    spread = answers.std(0) if len(answers) > 1 else torch.zeros_like(drive)
    return Transfer(drive, answers.mean(0), spread)


def _asked(device: Device, rows: Tensor) -> Tensor:
    """Return the answers to `rows`; where the port limits steps, rows between them lead there, whose answers are left out."""
    path, places = approached(device, rows)
    answers = device.forward(path.contiguous())
    return answers if len(path) == len(rows) else answers[places.to(answers.device)]
