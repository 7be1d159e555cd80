"""Moves of the weights by gradients: those of some batches together, and no further than a norm.

    g    = sum_k n_k g_k / sum_k n_k           over `accumulate` batches of n_k examples each; fewer at the end of an epoch
    g   *= min(1, clip_norm / |g|)             |g| the Euclidean norm of the gradients of all weights together

The batches come to what one batch of all their examples gives, if the loss is a mean over examples. A checkpoint in between
holds what was gathered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer


class Moves:
    """Moves the weights of an optimiser by the gradients that a learner leaves in `.grad`.

    Args:
        optimizer: over the weights.
        accumulate: batches a move.
        clip_norm: largest norm of a gradient; None: any.
    """

    def __init__(self, optimizer: Optimizer, accumulate: int = 1, clip_norm: float | None = None) -> None:
        self.optimizer = optimizer
        self._accumulate, self._clip_norm = accumulate, clip_norm
        self.gathered: dict[int, Tensor] = {}
        self.batches = self.examples = 0

    @property
    def _params(self) -> list[Tensor]:
        return [param for group in self.optimizer.param_groups for param in group["params"]]

    @torch.no_grad()
    def add(self, examples: int, last: bool) -> None:
        """Take in the gradients of a batch, and move the weights when it is time.

        Args:
            examples: in the batch.
            last: no other batch follows in this epoch.
        """
        if (self._accumulate > 1 or self.batches) and not self._gather(examples, last):
            return
        if self._clip_norm is not None:
            clip_grad_norm_(self._params, self._clip_norm)
        self.optimizer.step()

    def _gather(self, examples: int, last: bool) -> bool:
        """Add the gradients of a batch to the others; True: it is time, and `.grad` is the mean of all."""
        for number, param in enumerate(self._params):
            if param.grad is not None:
                share = param.grad * examples
                self.gathered[number] = self.gathered[number] + share if number in self.gathered else share
        self.batches, self.examples = self.batches + 1, self.examples + examples
        if self.batches < self._accumulate and not last:
            return False
        for number, param in enumerate(self._params):
            param.grad = self.gathered[number] / self.examples if number in self.gathered else None
        self.gathered, self.batches, self.examples = {}, 0, 0
        return True

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what was gathered, tensors by the number of their parameter, and how much of it, JSON values."""
        return {str(number): one for number, one in self.gathered.items()}, {"batches": self.batches, "examples": self.examples}

    def check(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Refuse a state that is damaged, or of other parameters. Raises: ValueError, KeyError, TypeError."""
        params = dict(zip(map(str, range(len(self._params))), self._params, strict=True))
        for name, tensor in tensors.items():
            if name not in params or (tensor.shape, tensor.dtype) != (params[name].shape, params[name].dtype):
                raise ValueError(f"a gathered gradient {name} of shape {tuple(tensor.shape)}")
        counts = [facts["batches"], facts["examples"]]
        if any(type(count) is not int or count < 0 for count in counts) or (counts[0] > 0) != (counts[1] > 0):
            raise ValueError(f"{counts[1]!r} examples of {counts[0]!r} batches gathered")
        if tensors and not counts[0]:
            raise ValueError("gathered gradients of no batch")

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take a state back, as it was checked."""
        params = self._params
        self.gathered = {int(name): one.to(params[int(name)].device) for name, one in tensors.items()}
        self.batches, self.examples = facts["batches"], facts["examples"]
