"""Difficulty of the classes, measured while training, and what follows from it.

    C[c, k]  <- m C[c, k] + (1 - m) share of class c in this batch that was read as k        only for classes in the batch
    d_c      = 1/2 ( errors on c + errors towards c ) = 1/2 ( sum_{k != c} C[c, k] + sum_{k != c} C[k, c] )
    w_c      ~ clip( ( (d_c + floor) / mean (d + floor) )^strength, 1/spread, spread ), then divided by its mean

Source: class-aware complexity adaptation, Xu et al., arXiv:2507.23643 (2025). The paper says that inter-class difficulty drives
it; its rule could not be seen, its program holds a fixed table of shares. The rule above is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FLOOR = 2e-3  # a class never seen wrong keeps a say


class Difficulty(nn.Module):
    """The running confusion C (classes, classes), a buffer.

    Args:
        momentum: m, per batch.
        strength: 0 treats all classes alike.
        spread: of the clip; no weight is more than spread^2 times another.
    """

    confusion: Tensor

    def __init__(self, classes: int, momentum: float = 0.98, strength: float = 0.5, spread: float = 2.0) -> None:
        super().__init__()
        self.momentum, self.strength, self.spread = momentum, strength, spread
        self.register_buffer("confusion", torch.full((classes, classes), 1.0 / classes))

    def observe(self, predicted: Tensor, label: Tensor) -> None:
        """Count one batch, both (batch,)."""
        classes = len(self.confusion)
        counts = torch.bincount(label * classes + predicted, minlength=classes**2).view(classes, classes).to(torch.float32)
        seen = counts.sum(1, keepdim=True)
        mixed = self.momentum * self.confusion + (1 - self.momentum) * counts / seen.clamp(min=1)
        self.confusion.copy_(torch.where(seen > 0, mixed, self.confusion))

    @property
    def hardness(self) -> Tensor:
        """Hardness of each class (classes,), 0 for one that is never confused."""
        right = self.confusion.diagonal()
        return 0.5 * ((self.confusion.sum(1) - right) + (self.confusion.sum(0) - right))

    @property
    def weights(self) -> Tensor:
        """Weights of the classes (classes,), positive, with mean 1."""
        relative = self.hardness + FLOOR
        raised = (relative / relative.mean()).pow(self.strength).clamp(1 / self.spread, self.spread)
        return raised / raised.mean()


def apportioned(shares: Sequence[float], total: int) -> list[int]:
    """`total` channels in proportion to `shares`, at least one each, by the largest remainder.

    >>> apportioned([4, 4, 5, 3], 40)
    [10, 10, 13, 7]
    """
    spare = total - len(shares)
    exact = [max(0.0, share / sum(shares) * total - 1) for share in shares]
    scale = spare / sum(exact) if sum(exact) > 0 else 0.0
    exact = [value * scale for value in exact]
    counts = [int(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda c: (counts[c] - exact[c], c))
    for c in order[: spare - sum(counts)]:
        counts[c] += 1
    return [count + 1 for count in counts]
