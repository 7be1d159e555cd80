"""The input of a spiking network: an example that stays as it is, or a sequence of frames.

    x (batch, features)             x[t] = x
    x (batch, frames, features)     x[t] = frame floor( t F / T )           T a multiple of F: a frame lasts T / F steps

    mean      sum_t lam^(T-t) x[t] / sum_t lam^(T-t)       for rules that multiply with rates
    trace     xhat[t] = lam xhat[t-1] + x[t]               for rules that multiply with traces

The mean of an example that stays is the example. So is its trace here, as in the program of OTTT's authors: a constant factor
for each step less.

Source: Xiao et al., OTTT, NeurIPS 2022 (trace); Xiao et al., IDE, NeurIPS 2021 (mean of inputs that change).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hil.errors import UNTOUCHED, ConfigError


class Shown:
    """What the first synapse is sent in each of T steps.

    Args:
        x: (batch, features) or (batch, frames, features).
        steps: T.

    Raises:
        ConfigError: T is no multiple of the number of frames.
    """

    def __init__(self, x: Tensor, steps: int) -> None:
        self.changes = x.ndim == 3
        self._x, self._steps, self._frames = x, steps, x.shape[1] if self.changes else 1
        if steps % self._frames:
            raise ConfigError(
                "the steps of time are no multiple of the frames of an example", where="[learner]", got=f"{steps} steps, "
                f"{self._frames} frames", allowed=f"{self._frames} steps, or a multiple", outputs=UNTOUCHED,
                todo=f"write time_steps = {self._frames}; of spide forward_steps",
            )  # fmt: skip

    def at(self, step: int) -> Tensor:
        """x[t], (batch, features); the first step is 0."""
        return self._x[:, self._frame(step)] if self.changes else self._x

    def begins(self, step: int) -> bool:
        """True if x[t] may be another than x[t-1]."""
        return step == 0 or self._frame(step) != self._frame(step - 1)

    def currents(self, synapse: nn.Module, start: int, count: int) -> Tensor:
        """Send `count` steps from `start` on through the synapse, a frame that lasts once: (count, batch, n)."""
        which = [self._frame(step) for step in range(start, start + count)]
        first, last = which[0], which[-1]
        if first == last:
            answer: Tensor = synapse(self.at(start))
            return answer.expand(count, *answer.shape)
        found = over_time(synapse, self._x[:, first : last + 1].transpose(0, 1))
        return found[torch.tensor(which, device=found.device) - first]

    def mean(self, leak: float = 1.0) -> Tensor:
        """Return the mean, (batch, features), a step weighing `leak` less for each step back."""
        if not self.changes:
            return self._x
        weights = leak ** torch.arange(self._steps - 1, -1, -1, dtype=self._x.dtype, device=self._x.device)
        shares = (weights / weights.sum()).view(self._frames, -1).sum(1)
        return torch.einsum("f,bfn->bn", shares, self._x)

    def traces(self, leak: float) -> Iterator[Tensor]:
        """Yield xhat[t], (batch, features), for each step in turn; of an example that stays, the example."""
        trace = torch.zeros(())
        for step in range(self._steps):
            trace = leak * trace + self.at(step) if self.changes else self._x
            yield trace

    def _frame(self, step: int) -> int:
        return step * self._frames // self._steps


def over_time(synapse: nn.Module, sent: Tensor) -> Tensor:
    """Apply the synapse to every step of (steps, batch, n), in one call."""
    answer: Tensor = synapse(sent.flatten(0, 1))
    return answer.view(*sent.shape[:2], -1)
