"""Connections of a synapse: how many weights a spike meets on its way, in both directions.

    fan_out_j = number of outputs that value j of the input reaches          a spike of neuron j costs so many additions
    fan_in_i  = number of inputs that output i is reached from               a spike sent backwards costs so many

Dense: all. A convolution is counted place by place: at an edge a value meets fewer weights. Pooling, normalisation and
rectifiers behind it have no weights and are not counted; fan_in is that of the convolution's answer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.contraction import Contracted
from hil.errors import ContractError


class Connections:
    """The connections of one synapse.

    Args:
        fan_out: (n_in,).
        fan_in: (n,), of the answers of its weights.
    """

    def __init__(self, fan_out: Tensor, fan_in: Tensor) -> None:
        self.fan_out, self.fan_in = fan_out, fan_in

    @property
    def count(self) -> float:
        """Multiplications of one dense pass."""
        return float(self.fan_out.sum())


def connections(synapse: nn.Module, features: int) -> Connections:
    """Count the connections of a synapse of (batch, features).

    Raises:
        ContractError: it has other weights than those of one Linear, Conv2d or ConvTranspose2d.
    """
    chain = synapse.linear if isinstance(synapse, Contracted) else synapse
    kinds = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
    found = [module for module in chain.modules() if isinstance(module, kinds)]
    if len(found) != 1:
        raise ContractError(
            "the connections of this synapse cannot be counted", where="synapse", got=f"{len(found)} layers of weights",
            allowed="one Linear, Conv2d or ConvTranspose2d",
        )  # fmt: skip
    (weights,) = found
    shape = next((tuple(part.unflattened_size) for part in chain.modules() if isinstance(part, nn.Unflatten)), (features,))
    ones = torch.ones(1, *shape)
    ones.requires_grad_(True)
    answer = _with_ones(weights)(ones)
    (out,) = torch.autograd.grad(answer.sum(), ones)
    return Connections(out.flatten().detach(), answer.flatten().detach())


def _with_ones(module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> Callable[[Tensor], Tensor]:
    ones = torch.ones(module.weight.shape)
    if isinstance(module, nn.Linear):
        return lambda x: functional.linear(x, ones)
    if isinstance(module, nn.ConvTranspose2d):
        stride, padding, more = module.stride, module.padding, module.output_padding
        return lambda x: functional.conv_transpose2d(x, ones, None, stride, padding, more)  # type: ignore[arg-type]
    return lambda x: functional.conv2d(x, ones, None, module.stride, module.padding)
