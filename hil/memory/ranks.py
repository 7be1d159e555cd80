"""Kernel rank and generalisation rank: how many input streams a node tells apart, and how many it should not.

    kernel rank            rank of the states (streams, n) at the end of streams that have nothing in common
    generalisation rank    the same of streams that are alike in their last `alike` steps: what is left of their beginnings

A node that separates has a large one, a node that generalises a small other. Singular values below `share` of the largest do
not count: noise has full rank.

Source: Legenstein and Maass, Neural Networks 20, 323 (2007); in devices, e.g. Dale, Miller, Stepney and Trefzer, Proc. R.
Soc. A 475, 20180723 (2019).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hil.errors import UNTOUCHED, ConfigError
from hil.seeding import generator

SHARE = 0.01


def streams(count: int, steps: int, alike: int, seed: int) -> Tensor:
    """Draw inputs, uniform from -1 to 1: (2, count, steps), first those without anything in common.

    Args:
        count: of streams.
        steps: of each.
        alike: last steps that those of the second kind share; below `steps`.
        seed: of the draws.

    Raises:
        ConfigError.
    """
    if not 0 < alike < steps or count < 1:
        raise ConfigError(
            "these streams make no sense", where="ranks", got=f"{count} streams of {steps} steps, {alike} of them alike",
            allowed="1 stream or more; 1 step or more alike, and fewer than there are", outputs=UNTOUCHED,
            todo="make them longer",
        )  # fmt: skip
    drawn = torch.rand(2, count, steps, generator=generator(seed, 0, "rank streams")) * 2 - 1
    drawn[1, :, -alike:] = drawn[1, 0, -alike:]
    return drawn


def rank(states: Tensor, share: float = SHARE) -> int:
    """Number of singular values of states (streams, n) that are above `share` of the largest."""
    found = torch.linalg.svdvals(states.double())
    return int((found > share * float(found[0])).sum()) if len(found) and float(found[0]) > 0 else 0
