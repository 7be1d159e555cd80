"""Heaters on a chip: how much each of them warms its own element and those beside it.

    C_ll = c_l        C_kl = c_l s exp( (1 - r_kl) / reach ) (1 + 0.2 n_kl)        s: crosstalk, r_kl: distance in pitches

Source: Jacques et al., Opt. Express 27, 10456 (2019) (thermal crosstalk). Made: the exponential, and the spread.
"""

from __future__ import annotations

import torch
from torch import Tensor

SPREAD_OWN, SPREAD_CROSS = 0.05, 0.2  # from heater to heater


def crosstalk_matrix(own: Tensor, places: Tensor, crosstalk: float, reach: float, normal: Tensor) -> Tensor:
    """Return C (K, K): row k is what element k feels of all heaters, in the unit of `own`.

    Args:
        own: (K,), c, effect of each heater on its own element.
        places: (K, 2), positions in pitches.
        crosstalk: share of it one pitch away.
        reach: pitches in which the crosstalk falls by e.
        normal: (K, K), normal numbers n.
    """
    leak = crosstalk * torch.exp((1 - torch.cdist(places, places)) / reach) * (1 + SPREAD_CROSS * normal)
    return leak.fill_diagonal_(1.0) * own
