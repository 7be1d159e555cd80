"""Flat field: the response of every pixel to the same light: sensitivity, linearity, saturation, counts per electron.

    counts_m - dark_m(exposure) = slope_m exposure              even lamp, exposures that leave every pixel unsaturated
    sensitivity_m = slope_m / mean slope
    var counts_m  = gain (mean counts_m - dark_m) + read noise^2          photon transfer: electrons obey Poisson's law

Source: Janesick, Photon Transfer (2007); EMVA standard 1288.
"""

from __future__ import annotations

import torch

from calibration.camera.frames import DARK, FLAT, NEAR_TOP, View
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from hil.errors import Saturated

EXPOSURES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FRAMES = 32
LEAST_SENSITIVITY = 0.2
MOST_BEND = 0.01


def flat_field(subject: Subject, found: Found) -> Step:
    """Measure how the pixels answer light.

    Estimates "gain" (counts per electron), "unevenness" (standard deviation of the sensitivity), "saturation" (share of the
    longest exposure at which the lamp saturates the first pixel). Raw: sensitivity (M,), means, variances.
    """
    view, before = View(subject.device), found[DARK].raw
    top, taken = subject.device.spec.outputs.shared_high, []
    for share in EXPOSURES:
        try:
            taken.append(view.frames(view.blank(FRAMES), exposure=share, laser=0.0, lamp=1.0)[0])
        except Saturated:  # the device refuses such frames, and longer ones are no darker
            break
    frames = torch.stack(taken) if taken else torch.empty(0, FRAMES, view.pixels, dtype=torch.float64)
    exposure = torch.tensor(EXPOSURES[: len(taken)], dtype=torch.float64)
    raw_means, variances = frames.mean(1), frames.var(1)
    within = (frames.flatten(1).amax(1) < NEAR_TOP * top).nonzero().flatten() if taken else torch.empty(0)
    if len(within) < 3:
        return _too_bright(raw_means, top)
    means = (raw_means - before["dark"] - before["rate"] * exposure[:, None])[within]
    times = exposure[within]
    slope = (times[:, None] * means).sum(0) / times.square().sum()
    dead = slope < LEAST_SENSITIVITY * slope.median()
    bend = float(((means - times[:, None] * slope)[:, ~dead] / (slope[~dead] * times[-1])).mean(1).abs().max())
    x, y = means[:, ~dead].flatten(), (variances[within] - before["noise"] ** 2)[:, ~dead].flatten()
    gain = float((x * y).sum() / (x * x).sum())
    sensitivity = slope / slope[~dead].mean()
    problems = [
        Problem(
            "stuck", f"pixel {n} sees no light", f"sensitivity {float(sensitivity[n]):.2f}, at least {LEAST_SENSITIVITY}",
            "mask it; look for dust on the camera",
        )
        for n in torch.nonzero(dead).flatten().tolist()
    ]  # fmt: skip
    if bend > MOST_BEND:
        problems.append(Problem(
            "nonlinear", "the camera does not count in proportion to light", f"off by {bend:.1%}, allowed {MOST_BEND:.0%}",
            "switch gamma, automatic gain and black-level clamping off",
        ))  # fmt: skip
    uneven = sensitivity[~dead].std()
    clipped = EXPOSURES[min(len(within), len(EXPOSURES) - 1)]
    said = (
        f"sensitivity even within {float(uneven):.1%}, linear within {bend:.2%}, {1 / gain:.1f} electrons per count, "
        f"pixels without light: {int(dead.sum()) or 'none'}"
    )
    sigma = gain * (2 / (FRAMES * len(x))) ** 0.5
    estimates = {
        "gain": Estimate(gain, sigma), "unevenness": Estimate(float(uneven), float(uneven) / (2 * len(slope)) ** 0.5),
        "saturation": Estimate(clipped, 0.5 * (EXPOSURES[1] - EXPOSURES[0])),
    }  # fmt: skip
    good = bend <= MOST_BEND
    return Step(
        FLAT, said, estimates, tuple(good and not bool(d) for d in dead), tuple(problems), residual_rms=bend,
        figures={"bend": bend}, raw={
            "sensitivity": sensitivity, "exposure": exposure, "means": raw_means, "variances": variances,
            "unsaturated": within.double(),
        },
    )  # fmt: skip


def _too_bright(means: torch.Tensor, top: float) -> Step:
    problem = Problem(
        "clipped", "the lamp saturates the camera at almost every exposure",
        f"{len(means)} exposures could be measured, up to {float(means.max()) if len(means) else top:.0f} of {top:.0f} counts",
        "dim the lamp, or stop the lens down",
    )  # fmt: skip
    return Step(FLAT, problem.what, success=(False,), problems=(problem,), raw={"means": means})
