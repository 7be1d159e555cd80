"""Phase of each gray level, from the interference of two halves of the modulator, through whatever is behind it.

The left half stays at gray level 0, the right half goes through all levels g, both alike lit:

    light_m(g) = | L_m + R_m e^(i phi(g)) |^2 = c_m + a_m cos phi(g) + b_m sin phi(g)

The same phi in every pixel, so that the curve light(g) lies in a plane: the two strongest directions of its pixels, in which it
runs on an ellipse. The map of the ellipse to a circle gives phi but for its zero (gray level 0) and its direction, which no
intensity shows and which is taken as rising. Then c, a, b of the pixels and phi of the levels are refined in turn.

Source: two-beam interference for modulators, Bergeron et al., Appl. Opt. 34, 5133 (1995); ellipse by algebraic least squares.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from calibration.camera.frames import Camera
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step

LUT = "phase table"
LEVELS, SHOTS, ROUNDS = 64, 4, 20
MOST_MISFIT = 0.05  # of what the interference changes


def phase_lut(subject: Subject, found: Found) -> Step:
    """Measure the phase of each gray level by interference.

    Estimates "stroke", rad at the highest gray level; figure "gamma", of stroke (g / highest)^gamma: it describes the
    table, and is not used. Raw: gray, phase, phase_sigma.
    """
    camera = Camera.of(subject.device, found)
    view, side = camera.view, math.isqrt(camera.view.macropixels)
    gray = torch.linspace(0, view.highest, LEVELS).round()
    right = (torch.arange(view.macropixels) % side >= side // 2).float()
    patterns = gray[:, None] * right
    exposure = camera.exposure(patterns)
    shots = torch.stack([camera.light(patterns, exposure=exposure) for _ in range(SHOTS)])
    camera.as_it_stood()
    light = shots.mean(0)
    start = _on_circle(light)
    if start is None:
        return _no_interference(light)
    phase, sigma, misfit = _refined(light, _weights(shots), start)
    return _told(gray.double(), phase, sigma, misfit, light, view.highest)


def levels_for(found: Found, phase: Tensor) -> Tensor:
    """Gray levels that make `phase`, rad, any shape, whole turns apart."""
    raw = found[LUT].raw
    wanted = torch.remainder(phase.double(), 2 * math.pi)
    return torch.from_numpy(np.interp(wanted.numpy(), raw["phase"].numpy(), raw["gray"].numpy()))


def _on_circle(light: Tensor) -> Tensor | None:
    """Phases (G,) from light (G, M), roughly; None where the curve is no ellipse."""
    left, values, _ = torch.linalg.svd(light - light.mean(0), full_matrices=False)
    x, y = (left[:, :2] * values[:2]).T / values[0]
    conic = torch.stack([x * x, x * y, y * y, x, y], 1)
    a, b, c, d, e = torch.linalg.lstsq(conic, torch.ones(len(x), 1, dtype=x.dtype)).solution[:, 0].tolist()
    form = torch.tensor([[a, b / 2], [b / 2, c]], dtype=x.dtype)
    size, axes = torch.linalg.eigh(form)
    if not float(size[0]) > 1e-6 * float(size[1].abs()):
        return None
    centre = torch.linalg.solve(form, torch.tensor([-d / 2, -e / 2], dtype=x.dtype))
    round_ = ((torch.stack([x, y], 1) - centre) @ axes) * size.sqrt()
    phase = torch.from_numpy(np.unwrap(torch.atan2(round_[:, 1], round_[:, 0]).numpy()))
    return (phase - phase[0]) * (1.0 if phase[-1] >= phase[0] else -1.0)


def _weights(shots: Tensor) -> Tensor:
    """1 / variance of the mean (G, M): photon noise, a straight line in the light through all pixels and levels."""
    mean, variance = shots.mean(0), shots.var(0)
    line = torch.stack([torch.ones(mean.numel(), dtype=mean.dtype), mean.flatten()], 1)
    rest, slope = torch.linalg.lstsq(line, variance.flatten()[:, None]).solution[:, 0].tolist()
    floor = 0.05 * float(variance.mean())
    answer: Tensor = len(shots) / (rest + slope * mean).clamp(min=floor)
    return answer


def _refined(light: Tensor, weight: Tensor, phase: Tensor) -> tuple[Tensor, Tensor, float]:
    """Phases and their standard deviations (G,), and what is left over as a share of what interference changes."""
    root = weight.sqrt().T[..., None]  # (M, G, 1)
    for _ in range(ROUNDS):
        wave = torch.stack([torch.ones_like(phase), phase.cos(), phase.sin()], 1)
        parts = torch.linalg.lstsq(root * wave, root * light.T[..., None]).solution[..., 0].T  # (3, M)
        slope = -phase.sin()[:, None] * parts[1] + phase.cos()[:, None] * parts[2]
        left = light - wave @ parts
        phase = phase + (weight * slope * left).sum(1) / (weight * slope.square()).sum(1)
        phase = phase - phase[0]
    chi2 = float((weight * left.square()).sum()) / (left.numel() - 3 * light.shape[1] - len(phase))
    sigma = (chi2 / (weight * slope.square()).sum(1)).sqrt()
    swing = (light - light.mean(0)).square().mean()
    return phase, torch.hypot(sigma, sigma[:1]), float((left.square().mean() / swing).sqrt())


def _told(gray: Tensor, phase: Tensor, sigma: Tensor, misfit: float, light: Tensor, highest: float) -> Step:
    stroke = float(phase[-1])
    inside = (phase > 0.1 * stroke) & (gray < highest)
    gamma = torch.linalg.lstsq(
        (gray[inside] / highest).log()[:, None], (phase[inside] / stroke).log()[:, None]
    ).solution  # fmt: skip
    falls = float(phase.diff().min()) < -4 * float(sigma.max())
    problems = []
    if stroke < 2 * math.pi * (1 - 1 / 256):
        problems.append(Problem(
            "range", "the modulator does not reach a whole turn", f"{stroke:.2f} rad at gray level {highest:.0f}, "
            f"needed {2 * math.pi:.2f}", "load another look-up table into it, or use a shorter wavelength",
        ))  # fmt: skip
    if falls:
        problems.append(Problem(
            "kind", "phase does not rise with the gray level", f"falls by {-float(phase.diff().min()):.2f} rad in a step",
            "see whether the modulator is in phase mode: polariser, look-up table",
        ))  # fmt: skip
    if misfit > MOST_MISFIT:
        problems.append(Problem(
            "kind", "the light is not that of two beams that interfere", f"{misfit:.1%} left over, allowed {MOST_MISFIT:.0%}",
            "hold the medium still, shade the table, let the modulator settle before the exposure",
        ))  # fmt: skip
    said = f"stroke {stroke / (2 * math.pi):.3f} turns, gamma {float(gamma):.2f}; {misfit:.2%} of the interference left over"
    return Step(
        LUT, said, {"stroke": Estimate(stroke, float(sigma[-1]), "rad")}, (not problems,), tuple(problems),
        residual_rms=misfit, figures={"misfit": misfit, "gamma": float(gamma)},
        raw={"gray": gray, "phase": phase, "phase_sigma": sigma, "light": light},
    )  # fmt: skip


def _no_interference(light: Tensor) -> Step:
    problem = Problem(
        "kind", "the halves of the modulator do not interfere", "light against gray level runs on no ellipse",
        "see whether both halves are lit and reach the camera, and whether the modulator is in phase mode",
    )  # fmt: skip
    return Step(LUT, problem.what, success=(False,), problems=(problem,), raw={"light": light})
