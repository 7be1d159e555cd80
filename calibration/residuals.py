"""Tests whether residuals are noise, or have structure.

lag one     z = sqrt(n) sum r_k r_k+1 / sum r_k^2                        about N(0, 1) if white (Box & Jenkins, ch. 2)
runs        z = (R - mu) / s,  mu = 1 + 2 n+ n- / n                     R stretches of one sign (Wald & Wolfowitz, 1940),
            s^2 = (mu - 1)(mu - 2) / (n - 1)                            negative if there are too few
correlation ratio    eta^2 = variance of the means of groups / variance of all
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hil.seeding import generator

LEAST = 0.05  # of a step: noise below that is taken as that, since no prediction is exact
TAIL = 1e-12  # of a rank: seven standard deviations


def undigitised(off: Tensor, sigma: Tensor, grain: float) -> Tensor:
    """Return residuals over their noise, without the pattern that the steps of a converter draw along a curve.

    A reading stands for all that is within half a step of it, so u is drawn evenly from what the noise alone gives that
    interval, and the residual is what a normal number of that rank is (randomised quantile residuals, Dunn & Smyth, J. Comput.
    Graph. Stat. 5, 236, 1996). With noise of many steps it is off / sigma.

    Args:
        off: (n,) reading less prediction.
        sigma: (n,) noise, that of the steps included.
        grain: step of the converter; 0: none is seen.
    """
    if not grain:
        return off / sigma
    own = (sigma.square() - grain**2 / 12).clamp(min=(LEAST * grain) ** 2).sqrt()
    low, high = (torch.special.ndtr((off + side * grain) / own) for side in (-0.5, 0.5))
    rank = low + (high - low) * torch.rand(len(off), generator=generator(0, 0, "undigitised"), dtype=off.dtype)
    found: Tensor = torch.special.ndtri(rank.clamp(TAIL, 1 - TAIL))
    return found


def lag_one(residual: Tensor) -> float:
    """Return z of the correlation of neighbours in `residual` (n,)."""
    power = float(residual.square().sum())
    return math.sqrt(len(residual)) * float((residual[1:] * residual[:-1]).sum()) / power if power else 0.0


def runs(residual: Tensor) -> float:
    """Return z of the number of stretches of one sign in `residual` (n,)."""
    above = residual > residual.median()
    up, n = int(above.sum()), len(above)
    mean = 1 + 2 * up * (n - up) / n
    variance = (mean - 1) * (mean - 2) / (n - 1)
    found = 1 + int((above[1:] != above[:-1]).sum())
    return (found - mean) / math.sqrt(variance) if variance > 0 else 0.0


def correlation_ratio(reading: Tensor, group: Tensor, groups: int) -> float:
    """Return the share of the variance of `reading` (n,) that its group (n,), 0 to groups - 1, explains: 0 to 1."""
    count = torch.bincount(group, minlength=groups).clamp(min=1)
    means = torch.bincount(group, reading, minlength=groups) / count
    total = float((reading - reading.mean()).square().sum())
    return float((count * (means - reading.mean()).square()).sum()) / total if total else 0.0


def by_group(reading: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, variance, count) of each group, (groups,)."""
    count = torch.bincount(group, minlength=groups).to(reading)
    mean = torch.bincount(group, reading, minlength=groups) / count.clamp(min=1)
    squares = torch.bincount(group, (reading - mean[group]).square(), minlength=groups)
    return mean, squares / (count - 1).clamp(min=1), count
