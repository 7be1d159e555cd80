"""Settling time after a step, and the pole behind it.

Timed devices, from the edges that the step `delay` looked at, T apart, samples k of shot i from the first that moves on:

    y_ik = y_end + A_i a^k         a = exp( -2 pi B T )          the same y_end and a for all, A_i for each
    settled to 0.1 % after        ln( 1000 ) / ( 2 pi B )

A ratio of successive samples: it does not matter where between two samples the edge came, nor whether the drive is continuous
or held from sample to sample. For a given a the others are linear; a by least squares (variable projection, Golub & Pereyra,
1973). Other devices show values only: a step held for HOLD values says which one is the first within 0.1 % of it, or the noise.

    settling     values are over before the node has settled
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from calibration.sequence import Found, Procedure, Subject
from calibration.shots import Shots
from calibration.step import Estimate, Problem, Step
from calibration.waveform.delay import begun

NAME = "settling"
SETTLED = 1e-3
HOLD, STEPS, LEVELS = 16, 64, 17
SLOWEST, FASTEST = 0.995, 1e-3  # a: of a pole that hardly moves within the record, and of one that leaves nothing to fit


def settling(subject: Subject, found: Found) -> Step:
    """The wait in values; and of a Timed device bandwidth_hz and settle_s."""
    shots = Shots(subject, NAME)
    deviation, wait, swing, sigma = _in_values(shots)
    raw = {"value": torch.arange(HOLD, dtype=torch.float64), "deviation_v": deviation}
    figures = {"wait_values": float(wait), "share_left": float(deviation[0].abs()) / swing if swing else 0.0}
    late = Problem(
        "settling", "values are over before the node has settled", f"after one value {figures['share_left']:.2%} of a step are "
        f"left, {max(SETTLED, 4 * sigma / swing):.2%} allowed", f"lower the symbol rate {wait + 1} times, or settle longer",
    ) if wait else None  # fmt: skip
    edges = found["delay"].raw
    repeated_v = found["noise"].figures["repeated"] if "noise" in found else 0.0
    estimates = pole(edges["edge_time_s"], edges["edge_reading_v"], repeated_v) if "edge_time_s" in edges else {}
    settle = f"settled to 0.1 % after {estimates['settle_s']}, " if estimates else ""
    said = settle + (f"needs {wait + 1} values" if wait else "settled within one value")
    problems = () if late is None else (late,)
    return Step(NAME, said, estimates, (not problems,), problems, figures=figures, raw=raw)


def _in_values(shots: Shots) -> tuple[Tensor, int, float, float]:
    """(deviation of each value after a step from the last ones, how many are unsettled, swing, noise of a mean)."""
    trial = shots(shots.levels(LEVELS).repeat_interleave(HOLD)).view(LEVELS, HOLD)[:, HOLD // 2 :].mean(1)
    drive = shots.levels(LEVELS)[torch.stack([trial.argmin(), trial.argmax()])]
    held = shots(drive.repeat_interleave(HOLD).repeat(STEPS)).view(STEPS, 2, HOLD)[1:]
    mean, sigma = held.mean(0), held.std(0) / math.sqrt(len(held))
    end = mean[:, HOLD // 2 :].mean(1, keepdim=True)
    swing = float((end[1] - end[0]).abs())
    deviation = 0.5 * ((mean - end)[1] - (mean - end)[0])
    noise = float(sigma.mean()) / math.sqrt(2)
    unsettled = deviation.abs() > max(SETTLED * swing, 4 * noise)
    wait = int(unsettled.nonzero().max()) + 1 if bool(unsettled.any()) else 0
    return deviation, wait, swing, noise


def pole(times: Tensor, readings: Tensor, repeated_v: float = 0.0) -> dict[str, Estimate]:
    """Return bandwidth_hz and settle_s from edges (shots, n); nothing where the pole is too fast or too slow to be seen.

    Args:
        times: of the samples, s.
        readings: at these, V.
        repeated_v: error of the converter's steps that all shots share, rms.
    """
    step_s = float(times[0].diff().mean())
    first = [begun(reading) for reading in readings]
    length = min(readings.shape[1] - k for k in first)
    moved = torch.stack([reading[k : k + length] for reading, k in zip(readings, first, strict=True)])

    def left(a: float) -> float:
        return float(_residual(moved, a).square().sum())

    fit = minimize_scalar(left, bounds=(FASTEST, SLOWEST), method="bounded", options={"xatol": 1e-9})
    a = float(fit.x)
    variance = left(a) / (moved.numel() - len(moved) - 2)
    h = 1e-4 * a
    bend = (left(a + h) - 2 * left(a) + left(a - h)) / h**2
    moves_v = float((moved[:, 0] - moved[:, -1]).abs().mean())
    sigma = math.hypot(math.sqrt(2 * variance / bend), repeated_v / max(moves_v, 1e-30)) if bend > 0 else math.inf
    rate = -math.log(a) / step_s
    error = sigma / a / step_s
    if not FASTEST * 2 < a < SLOWEST or not error < 0.2 * rate:
        return {}  # too fast or too slow to be seen in this record
    settle_s = -math.log(SETTLED) / rate
    return {
        "bandwidth_hz": Estimate(rate / (2 * math.pi), error / (2 * math.pi), "Hz"),
        "settle_s": Estimate(settle_s, settle_s * error / rate, "s"),
    }


def _residual(moved: Tensor, a: float) -> Tensor:
    """Return (shots, n) minus the best y_end and A_i for this a: A_i = <y_i - y_end, p> / <p, p>, p_k = a^k."""
    power = a ** torch.arange(moved.shape[1], dtype=torch.float64)
    shape = power / power.square().sum()
    flat = torch.ones_like(power) - power * (shape.sum())  # what of a constant the A_i leave
    rest = moved - (moved @ shape).unsqueeze(1) * power
    end = float((rest @ flat).sum()) / (len(moved) * float(flat.square().sum()))
    return rest - end * flat


SETTLING = Procedure(NAME, settling, needs=("dark", "delay"))
