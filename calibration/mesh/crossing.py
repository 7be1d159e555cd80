"""Every interferometer of a mesh in its cross state, found line by line from the powers behind the mesh.

With all of them crossed, light of input a keeps to one line, to output N - 1 - a, and every two lines meet once. With those of
the lines before a crossed, a single way leads from input a to output N - 1 - a, and so

    P_a = prod over lines b > a of cos^2( theta_ab / 2 )        couplers even; the phases phi do not count

Every theta is swept alone: P_a is a raised cosine of it, whatever the others do. Lines are taken in turn: thetas of the line at
random until light is seen at its end, then swept one after the other, twice, as crosstalk moves those that were set. At the end
each is swept once more, in the light of both its lines. Radians at full voltage are found meanwhile, typical of all heaters.

Near this state the phases show best: to first order each theta moves one pair of elements of U, which no other theta moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from calibration.mesh.clements import MeshLayout
from calibration.mesh.light import Lit

SHOTS = 16
DRAWN, MOST_DRAWS, SEEN = 64, 16, 20.0  # settings at a time, times, and standard deviations that are enough light
POINTS = 12  # of a sweep
SLOPES = torch.linspace(2.0, 30.0, 281, dtype=torch.float64)  # rad at full voltage
MARGIN = 0.02  # of the largest squared voltage, at both ends


def lines(layout: MeshLayout) -> list[tuple[int, int]]:
    """The two lines (a, b), a < b, that meet in each interferometer, by the inputs where they begin."""
    there, met = list(range(layout.modes)), []
    for column in layout.columns:
        for m in column:
            met.append((there[m], there[m + 1]))
            there[m], there[m + 1] = there[m + 1], there[m]
    return met


def crossed(lit: Lit, rng: torch.Generator) -> tuple[Tensor, float]:
    """Find squared voltages (K,) as shares of the largest at which all cross, and the typical slope, rad at full voltage."""
    layout, met = lit.layout, lines(lit.layout)
    share = torch.full((layout.heaters,), 0.5, dtype=torch.float64)
    sweeps = _Sweeps(lit)
    for a in range(layout.modes - 1):
        thetas = [2 * number for number, pair in enumerate(met) if pair[0] == a]
        share = _seen(lit, share, thetas, a, rng)
        for theta in [*thetas, *thetas]:
            sweeps.set(share, theta, (a,))
    for number, pair in enumerate(met):
        sweeps.set(share, 2 * number, pair)
    return share, sweeps.slope


def _seen(lit: Lit, share: Tensor, thetas: list[int], a: int, rng: torch.Generator) -> Tensor:
    """`share` with that draw of the thetas of line `a` at which most light leaves at its end."""
    best, kept = -math.inf, share
    enough = SEEN * float((lit.noise_w / lit.gain).max()) / math.sqrt(SHOTS)
    for _ in range(MOST_DRAWS):
        drawn = share.repeat(DRAWN, 1)
        drawn[:, thetas] = MARGIN + (1 - 2 * MARGIN) * torch.rand(DRAWN, len(thetas), generator=rng, dtype=share.dtype)
        light = lit.straight(drawn, (a,), SHOTS)
        if float(light.max()) > best:
            best, kept = float(light.max()), drawn[int(light.argmax())]
        if best > enough:
            break
    return kept


class _Sweeps:
    """Raised cosines, all with one slope, which every sweep makes better known.

    Args:
        lit: the mesh.
    """

    def __init__(self, lit: Lit) -> None:
        self._lit = lit
        self._points = torch.linspace(MARGIN, 1 - MARGIN, POINTS, dtype=torch.float64)
        angle = SLOPES[:, None] * self._points
        self._waves = torch.stack([torch.ones_like(angle), angle.cos(), angle.sin()], -1)  # (slopes, points, 3)
        self._fits = torch.linalg.pinv(self._waves)
        self._left = torch.zeros_like(SLOPES)

    @property
    def slope(self) -> float:
        """The one that leaves least of all sweeps unexplained."""
        return float(SLOPES[int(self._left.argmin())])

    def set(self, share: Tensor, theta: int, inputs: Sequence[int]) -> None:
        """Move heater `theta` in `share` to where most light goes straight, at the top nearest to half of its range."""
        tried = share.repeat(POINTS, 1)
        tried[:, theta] = self._points
        light = self._lit.straight(tried, inputs, SHOTS)
        found = self._fits @ light
        self._left += ((self._waves @ found[..., None])[..., 0] - light).square().sum(1)
        slope = self.slope
        _, real, imaginary = found[int(self._left.argmin())].tolist()
        top, turn = math.atan2(imaginary, real) / slope, 2 * math.pi / slope
        top += turn * round((0.5 - top) / turn)
        share[theta] = top if MARGIN <= top <= 1 - MARGIN else float(self._points[int(light.argmax())])
