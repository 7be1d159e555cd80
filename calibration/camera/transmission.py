"""The transmission matrix of a medium, from intensities alone: what field every macropixel makes in every pixel.

    light_pm = | sum_k X_pk T_mk |^2          X_pk = e^(i phi_pk), random phases, P = 8 K patterns

Every pixel is a phase retrieval of its own, all with the same X:

    start     leading eigenvector of  X^H diag(light_m, cut at 4 times its mean) X        (power iteration)
    repeat    T_m <- X^+ ( sqrt(light_m) e^(i arg X T_m) )                                (Gerchberg-Saxton)

and pixels that come to rest far above the others start again. With so many patterns as here this finds every pixel; Bayesian
solvers as prVAMP need fewer, and a prior. The phase of every row stays unknown, as does the sign of all phases (taken as rising
with the gray level): neither changes an intensity, a singular value or a focus.

Judged on patterns that were not used: correlation of predicted and measured light. Focus: phases -arg T_mk put all macropixels
in phase at pixel m; its light over the mean one, on the device, against 1 + (pi / 4)(K - 1) for even illumination.

Sources: Drémeau et al., Opt. Express 23, 11898 (2015); Netrapalli, Jain & Sanghavi, IEEE Trans. Signal Process. 63, 4814
(2015); Popoff et al., Phys. Rev. Lett. 104, 100601 (2010); Vellekoop & Mosk, Opt. Lett. 32, 2309 (2007).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.camera.frames import Camera
from calibration.camera.phase_lut import levels_for
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from hil.seeding import generator

TRANSMISSION = "transmission"
PATTERNS, UNSEEN, FOCI = 8, 128, 8  # patterns per macropixel; patterns to judge; pixels to focus on
POWER_ROUNDS, ROUNDS, STARTS = 40, 60, 4
LEAST_CORRELATION = 0.95


def transmission(subject: Subject, found: Found) -> Step:
    """Estimates "correlation", "enhancement"; a verdict per pixel. Raw: real, imaginary (M, K), singular, correlations."""
    camera, rng = Camera.of(subject.device, found), generator(subject.seed, 0, "transmission")
    k = camera.view.macropixels
    phase = 2 * math.pi * torch.rand(PATTERNS * k + UNSEEN, k, generator=rng, dtype=torch.float64)
    gray = levels_for(found, phase).round()
    exposure = camera.exposure(gray[:64])
    light = camera.light(gray, exposure=exposure)
    known, unseen = torch.split(light.clamp(min=0), [PATTERNS * k, UNSEEN])
    field = torch.polar(torch.ones_like(phase), phase)
    matrix, left = retrieved(field[: PATTERNS * k], known, rng)
    correlation = _correlation((field[PATTERNS * k :] @ matrix.T).abs().square(), unseen)
    enhancement, promised = _focus(camera, found, matrix, correlation, light.mean(0))
    camera.as_it_stood()
    return _told(matrix, correlation, enhancement, promised, left, exposure)


def retrieved(field: Tensor, light: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Fields (P, K) and light (P, M) -> T (M, K), and of every pixel the share of its amplitude that is not explained, rms."""
    x = field.to(torch.complex64)
    amplitude = light.clamp(min=0).sqrt().float()
    inverse = torch.linalg.pinv(x)
    found = _descended(x, inverse, amplitude, _spectral(x, light.float(), rng))
    left = _left(x, found, amplitude)
    for _ in range(STARTS):
        worse = left > 3 * left.median()
        if not bool(worse.any()):
            break
        some = amplitude[:, worse]
        start = torch.complex(*(torch.randn(x.shape[1], some.shape[1], generator=rng) for _ in range(2)))
        again = _descended(x, inverse, some, start)
        now = _left(x, again, some)
        better = now < left[worse]
        found[:, worse] = torch.where(better, again, found[:, worse])
        left[worse] = torch.where(better, now, left[worse])
    return found.T.to(torch.complex128), left


def _spectral(x: Tensor, light: Tensor, rng: torch.Generator) -> Tensor:
    """(K, M)."""
    mean = light.mean(0)
    weight = light.minimum(4 * mean) / mean.clamp(min=1e-12)
    found = torch.complex(*(torch.randn(x.shape[1], light.shape[1], generator=rng) for _ in range(2)))
    for _ in range(POWER_ROUNDS):
        found = x.mH @ (weight * (x @ found)) / len(x) - 0.5 * found  # less what every direction has
        found = found / found.norm(dim=0)
    answer: Tensor = found * (mean * light.shape[0]).sqrt() / (x @ found).norm(dim=0)
    return answer


def _descended(x: Tensor, inverse: Tensor, amplitude: Tensor, start: Tensor) -> Tensor:
    found = start
    for _ in range(ROUNDS):
        seen = x @ found
        found = inverse @ (amplitude * seen / seen.abs().clamp(min=1e-12))
    return found


def _left(x: Tensor, found: Tensor, amplitude: Tensor) -> Tensor:
    rest: Tensor = ((x @ found).abs() - amplitude).norm(dim=0) / amplitude.norm(dim=0).clamp(min=1e-12)
    return rest


def _correlation(predicted: Tensor, measured: Tensor) -> Tensor:
    """Correlate every pixel over the patterns, (M,); 0 where nothing was measured."""
    a, b = predicted - predicted.mean(0), measured - measured.mean(0)
    answer: Tensor = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp(min=1e-12)
    return answer


def _focus(camera: Camera, found: Found, matrix: Tensor, correlation: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Measured and promised enhancement at the pixels that are known best."""
    targets = correlation.topk(min(FOCI, len(correlation))).indices
    gray = levels_for(found, -matrix[targets].angle())
    exposure = camera.exposure(gray)
    light = camera.light(gray, exposure=exposure, shots=4)
    promised = matrix[targets].abs().sum(1).square() / matrix[targets].abs().square().sum(1)
    return light[range(len(targets)), targets] / mean[targets], promised


def _told(
    matrix: Tensor, correlation: Tensor, enhancement: Tensor, promised: Tensor, left: Tensor, exposure: float
) -> Step:  # fmt: skip
    m, k = matrix.shape
    singular = torch.linalg.svdvals(matrix) / matrix.abs().square().mean().sqrt() / math.sqrt(max(m, k))
    edges = 1 + math.sqrt(min(m, k) / max(m, k)), 1 - math.sqrt(min(m, k) / max(m, k))
    bad = correlation < LEAST_CORRELATION
    problems = []
    if bool(bad.any()):
        problems.append(Problem(
            "prediction", f"{int(bad.sum())} of {m} pixels are not predicted", f"correlation {float(correlation.min()):.3f}, "
            f"at least {LEAST_CORRELATION}", "hold the medium still; more light; look at those pixels in the flat field",
        ))  # fmt: skip
    ideal = 1 + math.pi / 4 * (k - 1)
    count = len(enhancement)
    said = (
        f"{m} x {k} transmission matrix: unseen patterns predicted with correlation {float(correlation.median()):.4f}, worst "
        f"{float(correlation.min()):.4f}; focus {float(enhancement.mean()):.1f} times the mean, of {ideal:.1f}"
    )
    estimates = {
        "correlation": Estimate(float(correlation.mean()), float(correlation.std()) / m**0.5),
        "enhancement": Estimate(float(enhancement.mean()), float(enhancement.std()) / count**0.5 if count > 1 else 0.0),
    }
    figures = {
        "correlation_median": float(correlation.median()), "correlation_worst": float(correlation.min()),
        "enhancement_promised": float(promised.mean()), "enhancement_ideal": ideal, "exposure": exposure,
        "singular_largest": float(singular[0]), "singular_smallest": float(singular[-1]),
        "random_largest": edges[0], "random_smallest": edges[1],
    }  # fmt: skip
    raw = {
        "real": matrix.real.contiguous(), "imaginary": matrix.imag.contiguous(), "singular": singular,
        "correlations": correlation, "left": left.double(), "enhancements": enhancement,
    }  # fmt: skip
    return Step(
        TRANSMISSION, said, estimates, tuple(not bool(b) for b in bad), tuple(problems), residual_rms=float(left.median()),
        figures=figures, raw=raw,
    )  # fmt: skip
