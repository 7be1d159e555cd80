"""Delay of the answer, and the low-pass of the node, before the loop has come round.

One edge after a long rest is seen in shots whose first sample is shifted by fractions of the sampling interval: when it begins
to move is the delay (calibration/waveform/delay.py), how it settles is the pole (calibration/waveform/settling.py). Readings of
a random sequence must be explained best by the drive at their own place, neighbours held against it.

    delay     the answer is another sequence's, or values are shifted, or no edge is seen
"""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.loop.records import Records
from calibration.residuals import correlation_ratio
from calibration.sequence import Found, Procedure, Subject
from calibration.step import Problem, Step
from calibration.waveform.delay import instant, looked_at
from calibration.waveform.settling import pole
from hil.device import Timed

NAME = "delay"
LEVELS, SYMBOLS, SEQUENCES, REACH = 8, 1000, 4, 3
POINTS = 150  # of an edge that the pole is fitted to


def delay(subject: Subject, found: Found) -> Step:
    """Check whose answer it is; measure delay, jitter and bandwidth of a Timed device."""
    records = Records(subject, NAME)
    lags, whose = _whose(records)
    figures, raw = {"explained": float(whose[REACH])}, {"lag": lags, "explained_share": whose}
    best = int(whose.argmax())
    if best != REACH:
        shifted = Problem(
            "delay", "readings do not belong to the values at their place",
            f"the drive {int(lags[best])} values before explains {float(whose[best]):.1%}, their own {float(whose[REACH]):.1%}",
            "see the trigger, the sampling phase and the delay",
        )  # fmt: skip
        return Step(NAME, shifted.what, {}, (False,), (shifted,), figures=figures, raw=raw)
    if not isinstance(subject.device, Timed):
        return Step(NAME, "answers belong to what was asked", figures=figures, raw=raw)
    times, readings, unseen = looked_at(subject.device, records)
    raw |= {"edge_time_s": times, "edge_reading_v": readings}
    if unseen:
        return Step(NAME, unseen.what, {}, (False,), (unseen,), figures=figures, raw=raw)
    few = slice(None, None, max(1, times.shape[1] // POINTS))  # a pole is sought between 1 and some 100 points
    estimates = {**instant(times, readings), **pole(times[:, few], readings[:, few])}
    said = f"delay {estimates['delay_s']}, jitter {estimates['jitter_s']}, " + (
        f"bandwidth {estimates['bandwidth_hz']}" if "bandwidth_hz" in estimates else "no low-pass that could be seen"
    )
    return Step(NAME, said, estimates, figures={**figures, "shots": float(len(times))}, raw=raw)


def _whose(records: Records) -> tuple[Tensor, Tensor]:
    """(lags, share of the readings' variance that the drive so many values before explains), means over sequences."""
    port = records.port
    level = torch.linspace(port.shared_low, port.shared_high, LEVELS, dtype=torch.float64)
    group = torch.randint(LEVELS, (SEQUENCES, SYMBOLS), generator=records.rng)
    answers, lags, inner = records(level[group]), torch.arange(-REACH, REACH + 1), slice(REACH, SYMBOLS - REACH)
    shares = [
        [correlation_ratio(answer[inner], own.roll(int(lag))[inner], LEVELS) for lag in lags]
        for answer, own in zip(answers, group, strict=True)
    ]
    return lags.double(), torch.tensor(shares, dtype=torch.float64).mean(0)


DELAY = Procedure(NAME, delay, needs=("noise",))
