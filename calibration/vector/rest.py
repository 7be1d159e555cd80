"""Readings of all outputs while all inputs rest: level, noise, drift within the step.

    level_l = mean of n readings,  noise_l their standard deviation,  drift_l = mean of the second half less that of the first

An output that is at a limit of its range, other than a lower one of 0, is "clipped"; one that drifts by over 4 standard
deviations of that difference, and over 0.1 % of its range, is "drift".
"""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from hil.device import Device
from hil.port import each

REST = "rest"
SHOTS = 64
NEAR = 1e-3  # of the range of an output: so near to its limit it may be clipped
FAR = 4.0  # standard deviations


def rest(subject: Subject, found: Found) -> Step:
    """Estimates "level 1", "noise 1", ... in the unit of the outputs. Raw: readings (shots, outputs)."""
    del found
    port = subject.device.spec.outputs
    readings = subject.device.forward(resting(subject.device).repeat(SHOTS, 1)).double()
    level, noise = readings.mean(0), readings.std(0)
    first, second = readings[: SHOTS // 2], readings[SHOTS // 2 :]
    drift, span = second.mean(0) - first.mean(0), span_of(subject.device)
    clipped = clips(subject.device, readings)
    drifts = drift.abs() > torch.maximum(FAR * noise * (4 / SHOTS) ** 0.5, NEAR * span)
    problems = [
        Problem(
            "clipped", f"output {n + 1} is at a limit of its range at rest", f"{float(level[n]):.3g} {port.unit}",
            "give its meter another range, or look for an offset in front of it",
        )
        for n in torch.nonzero(clipped).flatten().tolist()
    ] + [
        Problem(
            "drift", f"output {n + 1} drifts at rest", f"by {float(drift[n]):.2g} {port.unit} within {SHOTS} readings, noise "
            f"{float(noise[n]):.2g} {port.unit}", "let the bench warm up, then calibrate again",
        )
        for n in torch.nonzero(drifts).flatten().tolist()
    ]  # fmt: skip
    estimates = {
        f"level {n + 1}": Estimate(float(level[n]), float(noise[n]) / SHOTS**0.5, port.unit) for n in range(len(level))
    }
    estimates |= {
        f"noise {n + 1}": Estimate(float(noise[n]), float(noise[n]) / (2 * SHOTS) ** 0.5, port.unit) for n in range(len(level))
    }
    said = f"{len(level)} outputs at rest, noise {float(noise.max()):.2g} {port.unit} at most"
    return Step(
        REST, said, estimates, tuple(not bool(bad) for bad in clipped | drifts), tuple(problems), raw={"readings": readings}
    )  # fmt: skip


def resting(device: Device) -> Tensor:
    """The drive at rest, (1, K) float32."""
    port = device.spec.inputs
    return port.resting().float().expand(port.size or 1)[None]


def span_of(device: Device) -> Tensor:
    """Range of every output, (L,)."""
    port = device.spec.outputs
    low, high = (torch.tensor(each(limit, port.size), dtype=torch.float64) for limit in (port.low, port.high))
    return high - low


def clips(device: Device, readings: Tensor) -> Tensor:
    """Return where an output (L,) is at a limit in one of the readings (n, L), as bool.

    A lower limit of 0 is none: a converter that begins there reads a detector in the dark as 0, and nothing is below.
    """
    port = device.spec.outputs
    low, high = (torch.tensor(each(limit, port.size), dtype=torch.float64) for limit in (port.low, port.high))
    near = NEAR * (high - low)
    return (((readings <= low + near) & (low != 0)) | (readings >= high - near)).any(0)
