"""Position of the modulator on the camera: an affine map from macropixels to pixels, from spots shown one by one.

    p = b + A c         c in -1 .. 1 across the modulator (to the right, downwards); p in pixels (column, row)

With the mirror in, phase shows as intensity, cos^2(phi / 2): one macropixel at phase 0 on a ground of pi is a bright spot. Its
centroid over the pixels above a fifth of its peak is its place; A and b by least squares over all spots that are seen; a spot
over 4 standard deviations away from the map is not used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.camera.frames import Camera
from calibration.camera.phase_lut import levels_for
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step

REGISTRATION = "registration"
SHOTS = 8
LEAST_PEAK = 8.0  # standard deviations of the ground
FLOOR = 0.2
MOST_RESIDUAL = 0.5  # pixels


def registration(subject: Subject, found: Found) -> Step:
    """Estimates "a11" .. "b2" in pixels; a verdict per macropixel: is it seen where it should? Raw: places, affine (2, 3)."""
    camera = Camera.of(subject.device, found)
    k, m = camera.view.macropixels, camera.view.pixels
    ground, bright = levels_for(found, torch.tensor([math.pi, 0.0])).tolist()
    patterns = torch.full((k + 1, k), ground)
    patterns[range(k), range(k)] = bright
    exposure = camera.exposure(patterns, mirror=True, longest=1.0)
    light = camera.light(patterns, exposure=exposure, mirror=True, shots=SHOTS)
    noise = camera.light(patterns[-1:].expand(SHOTS, -1), exposure=exposure, mirror=True).std(0).mean() / SHOTS**0.5
    camera.as_it_stood()
    spots = light[:k] - light[k]
    places, seen = _centroids(spots, float(noise), math.isqrt(m))
    at = _grid(math.isqrt(k))
    if int(seen.sum()) < 6:
        return _blind(spots, int(seen.sum()), k)
    affine, covariance, apart, used = _mapped(at, places, seen)
    rms = float(apart[used].square().sum(1).mean().sqrt())
    expected = at @ affine[:, :2].T + affine[:, 2]
    inside = ((expected > -0.5) & (expected < math.isqrt(m) - 0.5)).all(1)
    problems = [
        Problem(
            "region", f"macropixel {n} is not seen where it should be", _where(n, seen, apart, inside),
            "see whether it is lit and works; centre the modulator on the camera",
        )
        for n in torch.nonzero(~(used & inside)).flatten().tolist()
    ]  # fmt: skip
    if rms > MOST_RESIDUAL:
        problems.append(Problem(
            "kind", "the image of the modulator is not affine", f"{rms:.2f} pixels left over, allowed {MOST_RESIDUAL}",
            "focus the camera on the modulator; see whether the lens distorts",
        ))  # fmt: skip
    turn = math.degrees(math.atan2(float(-affine[0, 1]), float(affine[1, 1])))  # of the axis that points down
    mirrored = "mirrored, " if float(torch.linalg.det(affine[:, :2])) < 0 else ""
    wide, high = (2 * affine[:, :2].norm(dim=0)).tolist()
    said = (
        f"the camera sees the modulator {wide:.2f} x {high:.2f} pixels wide, {mirrored}turned by {turn:.1f} degrees; "
        f"{int(used.sum())} of {k} spots within {rms:.3f} pixels"
    )
    names = ("a11", "a12", "b1", "a21", "a22", "b2")
    sigmas = covariance.sqrt().flatten()
    estimates = {
        name: Estimate(float(value), float(sigma), "pixel")
        for name, value, sigma in zip(names, affine.flatten(), sigmas, strict=True)
    }
    good = rms <= MOST_RESIDUAL
    return Step(
        REGISTRATION, said, estimates, tuple(good and bool(one) for one in used & inside), tuple(problems), residual_rms=rms,
        residual_unit="pixel", raw={"places": places, "affine": affine, "spots": spots},
    )  # fmt: skip


def _grid(side: int) -> Tensor:
    axis = torch.linspace(-1, 1, side, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def _centroids(spots: Tensor, noise: float, side: int) -> tuple[Tensor, Tensor]:
    """Places (K, 2) and which spots are seen (K,)."""
    peak = spots.amax(1, keepdim=True)
    weight = (spots - FLOOR * peak).clamp(min=0)
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64),) * 2, indexing="ij")
    total = weight.sum(1).clamp(min=1e-12)
    places = torch.stack([weight @ column.flatten() / total, weight @ row.flatten() / total], 1)
    return places, peak[:, 0] > LEAST_PEAK * noise


def _mapped(at: Tensor, places: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(A, b) (2, 3), variances (2, 3), distances (K, 2), and which spots were used (K,)."""
    drive = torch.cat([at, torch.ones(len(at), 1, dtype=at.dtype)], 1)
    used = seen
    for _ in range(3):
        affine = torch.linalg.lstsq(drive[used], places[used]).solution.T
        apart = places - drive @ affine.T
        freedom = max(int(used.sum()) - 3, 1)
        variance = apart[used].square().sum(0) / freedom
        used = seen & (apart.square().sum(1) < 16 * float(variance.sum()) + 1e-12)
    spread = torch.linalg.inv(drive[used].T @ drive[used]).diagonal()
    return affine, variance[:, None] * spread, apart, used


def _where(n: int, seen: Tensor, apart: Tensor, inside: Tensor) -> str:
    if not bool(seen[n]):
        return "no spot"
    return f"{float(apart[n].norm()):.2f} pixels away" if bool(inside[n]) else "outside of the camera"


def _blind(spots: Tensor, count: int, k: int) -> Step:
    problem = Problem(
        "region", "the camera does not see the modulator", f"{count} of {k} spots", "put the mirror in; focus; see the analyser"
    )
    return Step(REGISTRATION, problem.what, success=(False,), problems=(problem,), raw={"spots": spots})
