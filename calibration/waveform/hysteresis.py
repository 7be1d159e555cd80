"""Hysteresis: the difference between curves that were measured going up and coming down.

    d(x)  = y_up(x) - y_down(x)                       means over repeats, at two rates: FAST and SLOW values at each level
    loop  = integral |d| dx                           its area, beside that of noise alone, mean |d| of noise x range
    width: a node whose drive acts late by H/2 either way (play) has  y(x - H/2) - y(x + H/2) = -H y'(x), so

        H = - sum y' d / sum y'^2,     sigma_H = sigma_d / sqrt( sum y'^2 )           while H is small against the curve

A pole makes loops too, but they close when levels are held longer; what a slow sweep leaves is hysteresis, and what only a fast
one shows is memory. Drift within one shot is nothing, and both ways of every pair are in the same shot.

    hysteresis     the loop of the slow sweep is there, and large enough to matter beside the noise of a reading
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.sequence import Found, Procedure, Subject
from calibration.shots import Shots
from calibration.step import Estimate, Problem, Step

NAME = "hysteresis"
LEVELS, REPEATS = 65, 16
FAST, SLOW = 1, 4  # values at a level
SURE = 6.0  # sigmas
MATTERS = 0.2  # of the noise of a reading: rms of half the loop


def hysteresis(subject: Subject, found: Found) -> Step:
    """Estimate hysteresis_v, the width of the loop in the unit of the drive."""
    shots = Shots(subject, NAME)
    level = shots.levels(LEVELS)
    (fast, _), (slow, noise) = (_swept(shots, level, values) for values in (FAST, SLOW))
    noise = max(noise, found["dark"].figures["step"] / math.sqrt(12))
    width, opened = _width(slow, level, noise), 0.5 * float((slow[0] - slow[1]).square().mean().sqrt())
    loops = {f"loop_{name}": _area(pair, level) for name, pair in (("fast", fast), ("slow", slow))}
    alone = noise * math.sqrt(2 / REPEATS) * math.sqrt(2 / math.pi) * float(level[-1] - level[0])
    unit, bad = shots.port.unit, abs(width.value) > SURE * width.sigma and opened > MATTERS * noise
    problem = Problem(
        "hysteresis", "the node answers otherwise going up than coming down",
        f"a loop {width} wide, half of it {opened / max(noise, 1e-300):.1f} of the noise of a reading",
        "drive it one way only, return to a limit before each value, or find what creeps: charge, heat, a relay",
    )  # fmt: skip
    area = shots.out.unit + ("²" if shots.out.unit == unit else f"·{unit}")
    said = (
        f"hysteresis: a loop {width} wide" if bad
        else f"no hysteresis: loop {width} wide, area {loops['loop_slow']:.2g} {area} (noise alone {alone:.2g} {area})"
    )  # fmt: skip
    return Step(
        NAME, said, {f"hysteresis_{unit.lower()}": width}, (not bad,), (problem,) if bad else (),
        figures={**loops, "loop_of_noise": alone, "half_loop_rms": opened},
        raw={
            f"drive_{unit.lower()}": level, "rising_v": slow[0], "falling_v": slow[1], "rising_fast_v": fast[0],
            "falling_fast_v": fast[1],
        },
    )  # fmt: skip


def _swept(shots: Shots, level: Tensor, values: int) -> tuple[Tensor, float]:
    """((2, levels): mean reading going up, coming down, of the last value at each level; noise between repeats)."""
    both = torch.cat([level, level.flip(0)]).repeat_interleave(values)
    first = level.flip(0).repeat_interleave(values)  # down at first: the first way up begins as the others do
    read = shots(torch.cat([first, both.repeat(REPEATS)]))[len(first) :].view(REPEATS, 2, len(level), values)[..., -1]
    mean, noise = read.mean(0), float(read.var(0).mean().sqrt())
    return torch.stack([mean[0], mean[1].flip(0)]), noise


def _width(pair: Tensor, level: Tensor, noise: float) -> Estimate:
    slope = torch.gradient(pair.mean(0), spacing=(level,))[0]
    inner = slice(1, -1)  # at its ends both ways are one
    slope, apart = slope[inner], (pair[0] - pair[1])[inner]
    power = float(slope.square().sum())
    sigma = max(noise * math.sqrt(2 / REPEATS), float(apart.abs().max()) * 1e-6)
    return Estimate(-float((slope * apart).sum()) / power, sigma / math.sqrt(power), "V") if power else Estimate(0.0, 0.0, "V")


def _area(pair: Tensor, level: Tensor) -> float:
    return float(torch.trapezoid((pair[0] - pair[1]).abs(), level))


HYSTERESIS = Procedure(NAME, hysteresis, needs=("dark", "delay"))
