"""Rest, and the scale of what is read: does it move, is it cut off, how fine is it, and how long is it worth averaging?

    rest     mean and noise of the reading at the drive's resting level
    Allan    s(m)^2 = mean ( a_k+1 - a_k )^2 / 2, a_k means of m successive readings; averaging helps until s(m) has its least
             value, which slow noise sets (Allan, Proc. IEEE 54, 221, 1966)
    levels   LEVELS steady drives over the port, going up and coming down, each averaged so long

What cannot be told here: this bench has no wire from generator to scope around the node, so the linearity of either box is not
measured but taken from its maker; and without a shutter a reading that is never dark cannot tell a converter's zero, or a dark
current, from light that leaks through the node at its darkest. Extinction therefore rests on what the data sheet says of both.

    clipped   readings at a limit of what can be read, or piled up at an end   stuck   the reading does not follow the drive
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.fault import problem_of
from calibration.sequence import Found, Procedure, Subject
from calibration.shots import Shots, quantum
from calibration.step import Estimate, Problem, Step
from hil.errors import Saturated

NAME = "dark"
AT_REST, RECORDS = 4096, 4
LEVELS, MOST, LEAST = 11, 256, 16  # readings averaged at a level
AT_RAILS = 1e-3  # share of readings that may be at a limit
PILED = 3  # times as many readings at the last value as at the one before: in a tail of noise they are fewer
RESPONSE = 8.0  # standard deviations of a mean by which levels must differ at least


def dark(subject: Subject, found: Found) -> Step:
    """Mean, noise and step of the reading; verdicts "clipped" and "stuck"."""
    shots = Shots(subject, NAME)
    try:
        still = torch.stack([shots(torch.full((AT_REST,), shots.rest, dtype=torch.float64)) for _ in range(RECORDS)])
        steps, deviation = allan(still.flatten())
        averages = min(MOST, max(LEAST, int(steps[int(deviation.argmin())])))
        up = shots.levels(LEVELS)
        drive = torch.cat([up, up.flip(0)])
        swept = shots(drive.repeat_interleave(averages)).view(-1, averages)
    except Saturated as error:
        return Step(NAME, f"the reading is cut off: {error.what}", success=(False,), problems=(problem_of(error),))
    unit, grain = shots.out.unit, quantum(still.flatten())
    noise = float(still.var(1).mean().sqrt())
    level, sigma = swept.mean(1), max(noise, grain / math.sqrt(12)) / math.sqrt(averages)
    rails = _cut_off(torch.cat([still.flatten(), swept.flatten()]), shots, grain, noise)
    swing, apart = float(level.max() - level.min()), float((level[:LEVELS] - level[LEVELS:].flip(0)).abs().max())
    problems = tuple(_problems(swing, sigma, rails, shots))
    estimates = {
        "rest": Estimate(float(still.mean()), noise / math.sqrt(still.numel()), unit),
        "noise": Estimate(noise, noise / math.sqrt(2 * still.numel()), unit),
    }
    bits = f", step {Estimate(grain, 0.0, unit)}" if grain else ""
    said = f"rest {estimates['rest']}, noise {estimates['noise']}{bits}; swing {Estimate(float(f'{swing:.4g}'), 0.0, unit)}"
    tail = _suffix(unit)
    return Step(
        NAME, said, estimates, (not problems,), problems,
        figures={"averages": averages, "step": grain, "swing": swing, "up_down": apart, "at_rails": rails},
        raw={
            f"drive_{shots.port.unit.lower()}": drive, f"level{tail}": level, "averaged": steps, f"allan{tail}": deviation,
            f"rest{tail}": still.flatten(),
        },
    )  # fmt: skip


def allan(reading: Tensor) -> tuple[Tensor, Tensor]:
    """(m, Allan deviation of means of m readings), m = 1, 2, 4, ... as long as eight means are left."""
    steps, found = [], []
    m = 1
    while len(reading) // m >= 8:
        means = reading[: len(reading) // m * m].view(-1, m).mean(1)
        steps.append(m)
        found.append(float(means.diff().square().mean().mul(0.5).sqrt()))
        m *= 2
    return torch.tensor(steps, dtype=torch.float64), torch.tensor(found, dtype=torch.float64)


def _cut_off(reading: Tensor, shots: Shots, grain: float, noise: float) -> float:
    """Share of readings at a limit: of the port, or of something before it, where noise would go on and readings pile up."""
    port = shots.out
    near = max(grain, 1e-6 * (port.shared_high - port.shared_low))
    rails = float(((reading <= port.shared_low + near) | (reading >= port.shared_high - near)).double().mean())
    if not noise > 0.5 * grain:
        return rails  # without noise every level piles up
    values, counts = torch.unique(reading, return_counts=True)
    ends = [(int(counts[k]), int(counts[n])) for k, n in ((0, 1), (-1, -2))] if len(values) > 1 else []
    return rails + sum(end for end, next_to_it in ends if end > PILED * max(next_to_it, 1)) / len(reading)


def _problems(swing: float, sigma: float, rails: float, shots: Shots) -> list[Problem]:
    unit, port = shots.out.unit, shots.out
    found = []
    if not swing > RESPONSE * sigma:
        found.append(Problem(
            "stuck", "the reading does not follow the drive",
            f"it moves by {swing:.3g} {unit}, noise of a mean {sigma:.2g} {unit}",
            "look at the laser, the cable to the node, the photodiode's supply, and which channel is read",
        ))  # fmt: skip
    if rails > AT_RAILS:
        found.append(Problem(
            "clipped", "readings sit at the limits of what can be read", f"{rails:.1%} of them, {AT_RAILS:.1%} allowed",
            f"widen the range around {port.shared_low:g} to {port.shared_high:g} {unit}, or move its offset",
        ))  # fmt: skip
    return found


def _suffix(unit: str) -> str:
    """Return the suffix of a sweep's name."""
    return "" if unit == "1" else f"_{unit.lower()}"


DARK = Procedure(NAME, dark)
