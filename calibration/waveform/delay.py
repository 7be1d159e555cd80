"""Delay of the answer, and a check that it is the answer to what was asked.

    whose     eta^2(k), the share of the readings' variance that the drive k values earlier explains, for a random sequence of
              LEVELS levels, whatever the node's curve is: it must be largest at k = 0, and larger than for the sequence of the
              shot before
    when      one edge, seen in shots whose first sample is shifted by fractions of the sampling interval T: a shot says that
              the reading began to move in ( l_i, u_i ], its last sample before and the first after. All together:
              max l_i < delay <= min u_i, uniform in there, so sigma = ( min u - max l ) / sqrt 12
    jitter    where no instant is in all of them: midpoints scatter with  jitter^2 + T^2 / 12

"Began to move" is a tenth of the way (the 10 % reference level of IEEE Std 181): of a pole at B that is 0.017 / B after its
start, which is not taken off. Only a device behind instruments has a delay that can be seen (`hil.device.Timed`); of others,
whose the answer is, is all.

    delay     the answer is another shot's, or values are shifted, or no edge is seen
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from calibration.residuals import correlation_ratio
from calibration.sequence import Found, Procedure, Subject
from calibration.shots import Shots
from calibration.step import Estimate, Problem, Step
from hil.device import Timed

NAME = "delay"
LEVELS, COUNT, REACH = 8, 512, 8
EXPLAINED = 0.5  # of the variance, at least
COARSE, FINE = 8, 16  # shots that look at the edge over a whole interval, then over what is left
RESOLVED = 0.1  # of the sampling interval: no digitizer knows better when it samples
BEGUN, CLEAR = 0.1, 6.0  # of the way, and in standard deviations


class Drawing(Protocol):
    """Something that draws: Shots, or Records of sequences."""

    def uniform(self, count: int) -> Tensor:
        """Draw `count` numbers in [0, 1), float64."""


def delay(subject: Subject, found: Found) -> Step:
    """Check whose answer it is; measure the delay of a Timed device and its jitter, s."""
    shots = Shots(subject, NAME)
    lags, whose, before = _whose(shots)
    problems, figures = _mismatch(lags, whose, before), {"explained": float(whose[REACH]), "explained_by_shot_before": before}
    raw = {"lag": lags, "explained_share": whose}
    if problems or not isinstance(subject.device, Timed):
        said = "answers belong to what was asked" if not problems else problems[0].what
        return Step(NAME, said, {}, (not problems,), problems, figures=figures, raw=raw)
    times, readings, unseen = looked_at(subject.device, shots)
    raw |= {"edge_time_s": times, "edge_reading_v": readings}
    if unseen:
        return Step(NAME, unseen.what, {}, (False,), (unseen,), figures=figures, raw=raw)
    estimates = instant(times, readings)
    said = f"delay {estimates['delay_s']}, jitter {estimates['jitter_s']}"
    return Step(NAME, said, estimates, figures={**figures, "shots": float(len(times))}, raw=raw)


def _whose(shots: Shots) -> tuple[Tensor, Tensor, float]:
    """(lags, eta^2 at each, eta^2 of the shot before), means over shots."""
    level = shots.levels(LEVELS)
    drawn = [torch.randint(LEVELS, (COUNT,), generator=shots.rng) for _ in range(4)]
    read = [shots(level[each]) for each in drawn]
    lags = torch.arange(-REACH, REACH + 1)
    inner = slice(REACH, COUNT - REACH)
    own = torch.tensor([
        [correlation_ratio(reading[inner], group.roll(int(lag))[inner], LEVELS) for lag in lags]
        for reading, group in zip(read[1:], drawn[1:], strict=True)
    ], dtype=torch.float64).mean(0)  # fmt: skip
    before = sum(correlation_ratio(reading, group, LEVELS) for reading, group in zip(read[1:], drawn[:-1], strict=True))
    return lags.double(), own, before / (len(read) - 1)


def _mismatch(lags: Tensor, whose: Tensor, before: float) -> tuple[Problem, ...]:
    best = int(whose.argmax())
    if before > EXPLAINED and before > float(whose[best]):
        return (Problem(
            "delay", "answers are those of the shot before: late by a record",
            f"that shot explains {before:.1%} of them, their own {float(whose[REACH]):.1%}",
            "see that every trigger arms the digitizer anew, and that no record is read twice",
        ),)  # fmt: skip
    if int(lags[best]) != 0 or float(whose[best]) < EXPLAINED:
        return (Problem(
            "delay", "readings do not belong to the values at their place",
            f"the drive {int(lags[best])} values before explains {float(whose[best]):.1%}, their own {float(whose[REACH]):.1%}",
            "see the trigger, the sampling phase and the delay",
        ),)  # fmt: skip
    return ()


def looked_at(device: Timed, shots: Drawing) -> tuple[Tensor, Tensor, Problem | None]:
    """(time (shots, n) in s, reading (shots, n)), and what is wrong if no edge is seen."""
    times, readings = (value.unsqueeze(0) for value in device.edge())
    readings = readings.double()
    step_s = float(times[0].diff().mean())
    unseen = _unseen(readings[0])
    for shift in (torch.arange(1, COARSE) / COARSE * step_s).tolist() if unseen is None else ():
        times, readings = _added(device, shift, times, readings)
    for _ in range(FINE if unseen is None else 0):
        low, high = interval(times, readings)
        if high - low < RESOLVED * step_s:
            break  # enough, or no interval at all: jitter
        nearest = float(times[0][int((times[0] - low).abs().argmin())])
        wanted = low + (high - low) * (0.25 + 0.5 * float(shots.uniform(1)))
        times, readings = _added(device, (wanted - nearest) % step_s, times, readings)
    return times, readings, unseen


def _added(device: Timed, shift_s: float, times: Tensor, readings: Tensor) -> tuple[Tensor, Tensor]:
    time_s, reading = device.edge(shift_s)
    return torch.cat([times, time_s.unsqueeze(0)]), torch.cat([readings, reading.double().unsqueeze(0)])


def _unseen(reading: Tensor) -> Problem | None:
    before, contrast, noise = _ends(reading)
    if abs(contrast) > CLEAR * noise and bool((abs(reading - before) > 0.5 * abs(contrast)).any()):
        return None
    return Problem(
        "delay", "the edge does not come back where it is expected", f"a step of {contrast:.3g}, noise {noise:.2g}",
        "see that the two marker levels give different readings: marker_low_v, marker_high_v in [waveform]",
    )  # fmt: skip


def _ends(reading: Tensor) -> tuple[float, float, float]:
    """Level before the edge, what it changes by, noise of a sample. Medians, as a record may begin in the last one's end."""
    parts = reading[: 2 * len(reading) // 5], reading[-len(reading) // 5 :]
    before, after = (float(part.median()) for part in parts)
    noise = max(1.4826 * float((part - level).abs().median()) for part, level in zip(parts, (before, after), strict=True))
    return before, after - before, noise


def begun(reading: Tensor) -> int:
    """Index of the first sample (n,) after the last that was not on its way yet."""
    level, contrast, noise = _ends(reading)
    least = max(BEGUN * abs(contrast), CLEAR * noise)
    waiting = ((reading - level) * math.copysign(1.0, contrast) <= least).nonzero()
    return min(int(waiting.max()) + 1 if len(waiting) else 1, len(reading) - 1)


def interval(times: Tensor, readings: Tensor) -> tuple[float, float]:
    """Return the times, s, between which all shots say that the reading began to move; empty if they disagree."""
    first = [begun(reading) for reading in readings]
    low = max(float(time[k - 1]) for time, k in zip(times, first, strict=True))
    high = min(float(time[k]) for time, k in zip(times, first, strict=True))
    return low, high


def instant(times: Tensor, readings: Tensor) -> dict[str, Estimate]:
    """Return delay_s and jitter_s of edges (shots, n)."""
    low, high = interval(times, readings)
    if low < high:
        width = (high - low) / math.sqrt(12)
        return {"delay_s": Estimate(0.5 * (low + high), width, "s"), "jitter_s": Estimate(0.0, width, "s")}
    step_s = float(times[0].diff().mean())
    middle = torch.stack([0.5 * (t[k - 1] + t[k]) for t, k in ((t, begun(r)) for t, r in zip(times, readings, strict=True))])
    variance, n = float(middle.var()), len(middle)
    jitter = math.sqrt(max(0.0, variance - step_s**2 / 12))
    error = variance / math.sqrt(2 * (n - 1)) / max(jitter, 0.1 * math.sqrt(variance))
    return {"delay_s": Estimate(float(middle.mean()), math.sqrt(variance / n), "s"), "jitter_s": Estimate(jitter, error, "s")}


DELAY = Procedure(NAME, delay, needs=("dark",))
