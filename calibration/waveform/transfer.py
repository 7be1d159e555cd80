"""The static curve, and what of the twin can be read from it.

Drives all over the port, no two alike, in random order: slow changes average out instead of bending the curve, every one of the
generator's steps is met at another place, and the noise dithers the converter below one of its steps (as it must: below half a
step of noise the mean is not the level; Vanderkooy & Lipshitz, J. Audio Eng. Soc. 32, 106, 1984). What a converter's step adds
to a reading's variance, q^2 / 12, is in its sigma. The curve is fitted by the twin itself: grey_box.py.

    kind, load, bound, sheet      as grey_box.problems says
"""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.grey_box import Fit, Sweeps, fitted, problems, turning
from calibration.residuals import by_group
from calibration.sequence import Found, Procedure, Subject
from calibration.shots import Shots
from calibration.step import Problem, Step
from calibration.waveform.noise import noise_of
from hil.device import Port

NAME = "transfer"
COUNT, RECORDS, BINS = 1024, 4, 64


def transfer(subject: Subject, found: Found) -> Step:
    """Measure the curve in bins; estimate the nominal twin's seen parameters, if there is one."""
    shots = Shots(subject, NAME)
    taken = sweeps(shots, found, COUNT, RECORDS)
    level, mean, sigma = binned(taken, taken.reading, shots.port)
    raw = {"drive_v": level, "reading_v": mean, "sigma_v": sigma}
    if subject.nominal is None:
        said = f"{float(mean.min()):.4g} to {float(mean.max()):.4g} {shots.out.unit}; no twin to fit"
        return Step(NAME, said, raw=raw)
    fit = fitted(subject.nominal, taken, shots.port)
    found_bad = explained(problems(fit, subject.nominal, shots.port), subject)
    off = taken.reading - fit.predicted(taken)
    rms = float(off.square().mean().sqrt())
    with torch.no_grad():
        raw |= {
            "fitted_v": fit.twin.ideal(level), "residual_v": binned(taken, off, shots.port)[1],
            "spread_v": scatter(taken, off, shots.port),
        }  # fmt: skip
    return Step(
        NAME, f"{named(fit)}; chi² {fit.chi2:.2f}", fit.estimates, (not found_bad,), found_bad, residual_rms=rms,
        residual_unit=shots.out.unit, figures={"chi2": fit.chi2}, raw=raw,
    )  # fmt: skip


def explained(found: tuple[Problem, ...], subject: Subject) -> tuple[Problem, ...]:
    """Leave out that the physics is not enough where a network may stand on it; the step `twin` judges both together."""
    return tuple(problem for problem in found if not (subject.network and problem.kind == "kind"))


def sweeps(shots: Shots, found: Found, count: int, records: int) -> Sweeps:
    """Take `records` shots of `count` values; the last one is at t = 0."""
    drive, reading, at = [], [], []
    for _ in range(records):
        x = shots.scattered(count)
        began = shots.now_s
        reading.append(shots(x))
        drive.append(x)
        at.append(began)
    time_s = torch.tensor(at, dtype=torch.float64) - shots.now_s
    y = torch.stack(reading)
    return Sweeps(torch.stack(drive), y, noise_of(found["noise"], y), time_s)


def binned(taken: Sweeps, values: Tensor, port: Port, bins: int = BINS) -> tuple[Tensor, Tensor, Tensor]:
    """(mean drive, mean of `values` (shots, n), sigma of a mean reading) in equal parts of the port, (bins,)."""
    drive, group = taken.drive.flatten(), _parts(taken, port, bins)
    level, _, count = by_group(drive, group, bins)
    mean, _, _ = by_group(values.flatten(), group, bins)
    square, _, _ = by_group(taken.sigma.flatten().square(), group, bins)
    return level, mean, torch.sqrt(square / count)


def scatter(taken: Sweeps, off: Tensor, port: Port, bins: int = BINS) -> Tensor:
    """Return the standard deviation of `off` (shots, n), readings less the model, in equal parts of the port, (bins,)."""
    return by_group(off.flatten(), _parts(taken, port, bins), bins)[1].sqrt()


def _parts(taken: Sweeps, port: Port, bins: int) -> Tensor:
    share = (taken.drive.flatten() - port.shared_low) / (port.shared_high - port.shared_low)
    return (share * bins).long().clamp(0, bins - 1)


def named(fit: Fit) -> str:
    """The parameters that the sheet knew worst, compared with what is known now."""
    gain = {n: fit.twin.unknowns()[n].spread / max(e.sigma, 1e-300) for n, e in fit.estimates.items() if n != "drift_rad_per_s"}
    best = sorted(gain, key=lambda name: -gain[name])[:3]
    first = turning(fit.twin)
    listed = [n for n in fit.estimates if n in best or n == first]
    return ", ".join(f"{n.rsplit('_', 1)[0]} {fit.estimates[n]}" for n in listed)


TRANSFER = Procedure(NAME, transfer, needs=("noise", "delay", "settling", "hysteresis", "memory"))
