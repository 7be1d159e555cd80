"""The host's model of a spiking neuron: enough to follow its membrane from currents it sent and spikes it measured.

    v[t] = lam ( v[t-1] - V s[t-1] ) + I[t]      I sent, s measured; V = v_th - v_rest
    s[t] = H( v[t] - v_th )                      only `spikes`, for learning on a model, uses this
    H'(u) ~ a sigma(a u) ( 1 - sigma(a u) )      a = 4

A wrong lam or V misplaces v a little; because each reset follows the spike that was measured, the error fades with lam and does
not grow with time.

Source: Xiao et al., OTTT, NeurIPS 2022 (neuron, surrogate); Zhang et al., arXiv:2409.07776 (soft reset).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from hil.errors import ConfigError
from hil.settings import Positive, check

SHARPNESS = 4.0
Leak = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, slots=True)
class NeuronModel:
    """The model of the neurons of an array.

    Args:
        leak: lam, kept per step; 1: no leak.
        v_th, v_rest: threshold, and the level that the reset aims at.
    """

    leak: Leak = 0.5
    v_th: Positive = 1.0
    v_rest: float = 0.0

    def __post_init__(self) -> None:
        check(self, "[learner]")
        if not self.v_rest < self.v_th:
            raise ConfigError("v_rest makes no sense", where="[learner] v_rest", got=f"{self.v_rest}", allowed="below v_th")

    @property
    def quantum(self) -> float:
        """V, what a spike takes from the membrane."""
        return self.v_th - self.v_rest

    def membrane(self, before: Tensor, spikes: Tensor, current: Tensor) -> Tensor:
        """v[t] before its reset, from v[t-1], the measured s[t-1], and I[t]; all (batch, n)."""
        return torch.add(before, spikes, alpha=-self.quantum).mul_(self.leak).add_(current)

    def memory(self, time_steps: int) -> float:
        """sum_k lam^k, k below `time_steps`: the leaky sum of ones."""
        return float(time_steps) if self.leak == 1 else (1 - self.leak**time_steps) / (1 - self.leak)

    def spikes(self, currents: Tensor, sharpness: float = SHARPNESS) -> Tensor:
        """(time, batch, n) -> spikes from rest, differentiable through time, the reset included."""
        v = torch.zeros_like(currents[0])
        s = torch.zeros_like(v)
        answer = []
        for current in currents:
            v = self.leak * (v - self.quantum * s) + current
            s = _fired(v - self.v_th, sharpness)
            answer.append(s)
        return torch.stack(answer)


def bump(above: Tensor, sharpness: float = SHARPNESS) -> Tensor:
    """The surrogate of H' at `above` = v - v_th."""
    sigma = torch.sigmoid(above * sharpness)
    return torch.addcmul(sigma, sigma, sigma, value=-1).mul_(sharpness)


class _Fired(torch.autograd.Function):
    """H(u), with the slope of a sigmoid."""

    @staticmethod
    def forward(ctx: Any, above: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(above)
        ctx.sharpness = sharpness
        return (above >= 0).to(above.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return grad * bump(above, ctx.sharpness), None


def _fired(above: Tensor, sharpness: float) -> Tensor:
    fired: Tensor = _Fired.apply(above, sharpness)  # type: ignore[no-untyped-call]
    return fired
