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
