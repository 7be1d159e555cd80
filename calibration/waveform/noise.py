"""Noise of a reading, and what it depends on.

    s_l^2    = pooled variance within shots at level l, less what the converter's steps add to it, shots.of_steps
    s(y)^2   = a + b y + c y^2                                            thermal, shot and laser intensity noise

    signal   a sine as large as the node's swing A (peak to peak):  A / (2 sqrt 2)
    SNR      = 20 log10( signal / s ),  s rms over the levels              noise alone
    SINAD    = 20 log10( signal / d ),  d rms of everything in a reading that its level does not explain: noise, the converter's
               steps, jitter, memory of earlier values
    ENOB     = ( SINAD - 1.76 ) / 6.02                                     IEEE Std 1241

A nonlinear node makes harmonics of any sine, but here they are what it is used for; so its static curve counts as signal, which
is why levels, not a sine fit, tell what is left.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from torch import Tensor

from calibration.residuals import by_group
from calibration.sequence import Found, Procedure, Subject
from calibration.shots import Shots, of_steps
from calibration.step import Estimate, Step

NAME = "noise"
LEVELS, REPEATS, RECORDS = 64, 64, 4


def noise(subject: Subject, found: Found) -> Step:
    """Measure noise against level; SNR, SINAD, ENOB."""
    shots = Shots(subject, NAME)
    drive = shots.scattered(LEVELS).sort().values
    order = torch.arange(LEVELS).repeat(REPEATS)
    means, variances = [], []
    for _ in range(RECORDS):
        group = shots.shuffled(order)
        mean, variance, _ = by_group(shots(drive[group]), group, LEVELS)
        means.append(mean)
        variances.append(variance)
    mean, total = torch.stack(means).mean(0), torch.stack(variances).mean(0)
    grain, unit, freedom = found["dark"].figures["step"], shots.out.unit, RECORDS * (REPEATS - 1)
    steps = of_steps(float(total.mean()), grain)
    own = total - steps
    swing = float(mean.max() - mean.min())
    level, rest = (math.sqrt(max(float(v.mean()), 0.0)) for v in (own, total))
    snr, sinad = (20 * math.log10(swing / (2 * math.sqrt(2)) / s) if s > 0 else math.inf for s in (level, rest))
    shape, chi2 = _shape(mean, own, total, freedom)
    relative = 1 / math.sqrt(2 * freedom * LEVELS)
    estimates = {"noise": Estimate(level, rest * relative * (rest / level if level else 0.0), unit)}
    if math.isfinite(snr) and math.isfinite(sinad):
        db = 8.686 * relative
        estimates |= {"snr_db": Estimate(snr, db, "dB"), "sinad_db": Estimate(sinad, db, "dB")}
        estimates["enob"] = Estimate((sinad - 1.76) / 6.02, db / 6.02)
    said = f"noise {estimates['noise']}" + (
        f", SNR {snr:.1f} dB, SINAD {sinad:.1f} dB, ENOB {(sinad - 1.76) / 6.02:.2f}" if "enob" in estimates else ": none seen"
    )
    figures = {f"variance_{k}": float(value) for k, value in enumerate(shape)}
    return Step(
        NAME, said, estimates, figures={
            **figures, "step": grain, "freedom": freedom, "chi2": chi2, "swing": swing,
            "repeated": math.sqrt(max(0.0, grain**2 / 12 - steps)),  # error of the steps that all repeats share, rms
        },
        raw={"level_v": drive, "reading_v": mean, "variance": own, "fitted_variance": _powers(mean) @ torch.from_numpy(shape)},
    )  # fmt: skip


def noise_of(step: Step, reading: Tensor) -> Tensor:
    """Return the standard deviation of a single reading around `reading`, same shape, as the step `noise` found it.

    The steps of the converter are included.
    """
    shape = torch.tensor([step.figures[f"variance_{k}"] for k in range(3)], dtype=torch.float64)
    low, high = step.raw["reading_v"].min(), step.raw["reading_v"].max()
    own = (_powers(reading.double().clamp(low, high)) @ shape).clamp(min=0.0)
    least = 1e-6 * step.figures["swing"]  # a node without noise: what float32 can tell
    return torch.sqrt(own + step.figures["step"] ** 2 / 12 + least**2)


def _powers(reading: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(reading), reading, reading.square()], dim=-1)


def _shape(mean: Tensor, own: Tensor, total: Tensor, freedom: int) -> tuple[NDArray[np.float64], float]:
    """a, b, c >= 0, weighted by the error of a variance; and the reduced chi squared of it."""
    error = total.clamp(min=1e-30) * math.sqrt(2 / freedom)
    for _ in range(2):  # errors of the fitted variance, not of the found one, which would pull the fit down
        weight = (1 / error).unsqueeze(1)
        scale = _powers(mean).abs().amax(0)
        fit = lsq_linear((_powers(mean) / scale * weight).numpy(), (own.unsqueeze(1) * weight).squeeze(1).numpy(), (0, np.inf))
        fitted = _powers(mean) / scale @ torch.from_numpy(fit.x)
        error = (fitted + (total - own)).clamp(min=1e-30) * math.sqrt(2 / freedom)
    chi2 = float(((own - fitted) / error).square().sum()) / max(1, len(mean) - 3)
    shape: NDArray[np.float64] = fit.x / scale.numpy()
    return shape, chi2


NOISE = Procedure(NAME, noise, needs=("dark",))
