"""Feedback synapses of bounded weights: a dense loop contracts, so that an equilibrium network settles.

    W x  ->  min( 1, limit / |w|_F ) W x        |w|_F the Frobenius norm of the weights: a matrix, or a kernel

|w|_F bounds the gain of a dense synapse from above. A kernel is applied at every place of a map, so the gain of a convolution
may be several times its |w|_F: as in the paper, the kernel is what is bounded, and whether the loop settles shows in the rates.
The bound is part of the synapse and of its gradient: no optimiser can break it.

Source: Xiao et al., SPIDE, arXiv:2302.00232 (2023), restriction of the feedback weight. Our reading: a factor in the synapse,
not a projection after the optimiser's step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hil.errors import ConfigError

WHERE = "[network] feedback"


class Contracted(nn.Module):
    """A linear synapse without bias, scaled down as far as the norm of its weights demands.

    Args:
        linear: (batch, n_in) -> (batch, n_out); it has one parameter, its weights.
        limit: the largest Frobenius norm of the weights.

    Raises:
        ConfigError: a limit that makes no sense.
    """

    def __init__(self, linear: nn.Module, limit: float) -> None:
        super().__init__()
        if not 0 < limit < math.inf:
            raise ConfigError("norm makes no sense", where=WHERE, got=f"{limit}", allowed="above 0")
        self.linear, self.limit = linear, limit

    def norm(self) -> Tensor:
        """|w|_F before the bound; differentiable."""
        (weights,) = self.linear.parameters()
        return weights.square().sum().sqrt()

    def factor(self) -> Tensor:
        """Return the factor on W, at most 1."""
        return (self.limit / self.norm().clamp(min=self.limit)).clamp(max=1.0)

    def matrix(self) -> Tensor | None:
        """The bounded W (n_out, n_in) of a dense synapse."""
        return self.linear.weight * self.factor() if isinstance(self.linear, nn.Linear) else None

    def forward(self, x: Tensor) -> Tensor:
        """Answer (batch, n_in) with (batch, n_out), scaled so that the norm is within its limit."""
        answer: Tensor = self.linear(x)
        return answer * self.factor()


def dense_feedback(n_in: int, n_out: int, limit: float, scale: float) -> Contracted:
    """Connect every neuron of the last hidden layer to every one of the first; weights as nn.Linear's, times `scale`."""
    return Contracted(_scaled(nn.Linear(n_in, n_out, bias=False), scale), limit)


def conv_feedback(shape_in: Sequence[int], shape_out: Sequence[int], kernel: int, limit: float, scale: float) -> Contracted:
    """A transposed convolution from maps (channels, height, width) onto maps as large or a whole number of times larger.

    Raises:
        ConfigError: the maps do not fit one another, or the kernel is smaller than the stride.
    """
    stride = shape_out[1] // shape_in[1]
    padding = (kernel - 1) // 2
    more = [out - ((side - 1) * stride - 2 * padding + kernel) for side, out in zip(shape_in[1:], shape_out[1:], strict=True)]
    if stride < 1 or not all(0 <= missing < max(stride, 1) for missing in more):
        raise ConfigError(
            "the feedback does not lead from the last maps to the first", where=WHERE,
            got=f"{tuple(shape_in)} to {tuple(shape_out)}, kernel {kernel}",
            allowed="sides a whole number of times larger, and an odd kernel no smaller than that",
            outputs="untouched; nothing was opened", todo='use = "dense", or other strides or another kernel',
        )  # fmt: skip
    spread = nn.ConvTranspose2d(
        shape_in[0], shape_out[0], kernel, stride, padding, output_padding=(more[0], more[1]), bias=False
    )
    chain = nn.Sequential(nn.Unflatten(1, tuple(shape_in)), _scaled(spread, scale), nn.Flatten(1))
    return Contracted(chain, limit)


@torch.no_grad()
def _scaled(module: nn.Linear | nn.ConvTranspose2d, scale: float) -> nn.Module:
    module.weight.mul_(scale)
    return module
