"""Dark frame: the counts of every pixel without light, their growth with exposure, and their noise.

    counts_m = dark_m + rate_m exposure         a straight line through the means of frames, laser and lamp off

A pixel whose level or rate is far from the others' is "hot": over 12 robust standard deviations (1.48 median deviations) and
over 1 % of the camera's range. Source: EMVA standard 1288.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.camera.frames import DARK, View, is_camera, no_camera
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step

EXPOSURES = (0.1, 0.4, 0.7, 1.0)
FRAMES = 32
FAR, LEAST_SHARE = 12.0, 0.01


def dark_frame(subject: Subject, found: Found) -> Step:
    """Estimates "dark level", "dark rate", "read noise" in counts, over all pixels. Raw: dark, rate (M,), frames' means."""
    del found
    if not is_camera(subject.device.spec):
        return no_camera(DARK, subject.device.spec)
    view = View(subject.device)
    frames = torch.stack([view.frames(view.blank(FRAMES), exposure=e, laser=0.0)[0] for e in EXPOSURES])
    exposure = torch.tensor(EXPOSURES, dtype=torch.float64)
    means = frames.mean(1)
    away = exposure - exposure.mean()
    rate = (away[:, None] * means).sum(0) / away.square().sum()
    dark = means.mean(0) - rate * exposure.mean()
    noise = frames.std(1).mean(0)
    range_ = subject.device.spec.outputs.shared_high
    hot = _far(dark, range_) | _far(rate, range_)
    problems = tuple(
        Problem(
            "hot", f"pixel {n} is hot", f"{float(dark[n] + rate[n]):.0f} counts in the dark at full exposure, others "
            f"{float((dark + rate).median()):.0f}", "mask it, or cool the camera",
        )
        for n in torch.nonzero(hot).flatten().tolist()
    )  # fmt: skip
    level, read = float(dark.median()), float(noise.median())
    said = f"dark level {level:.1f} counts, read noise {read:.2f} counts, hot pixels: {int(hot.sum()) or 'none'}"
    estimates = {
        "dark level": _over(dark[~hot]), "dark rate": _over(rate[~hot]), "read noise": _over(noise[~hot]),
    }  # fmt: skip
    return Step(
        DARK, said, estimates, tuple(not bool(h) for h in hot), problems,
        residual_rms=float((means - dark - exposure[:, None] * rate).square().mean().sqrt()), residual_unit="counts",
        raw={"dark": dark, "rate": rate, "noise": noise, "exposure": exposure, "means": means},
    )  # fmt: skip


def _far(values: Tensor, range_: float) -> Tensor:
    away = (values - values.median()).abs()
    return away > max(FAR * 1.48 * float(away.median()), LEAST_SHARE * range_)


def _over(values: Tensor) -> Estimate:
    """Mean over pixels, and its standard deviation."""
    return Estimate(float(values.mean()), float(values.std()) / len(values) ** 0.5, "counts")
