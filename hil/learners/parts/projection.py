"""Fixed random projections of the error at the readout onto every hidden layer: e B_l^T, one B_l (units_l, outputs) each.

The host computes them (Projection), or a device does (hil/learners/parts/device_projection.py).

Source: Lillicrap et al., Nat. Commun. 7, 13276 (2016); Nokland, arXiv:1609.01596 (2016), direct feedback alignment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hil.device import Device
from hil.errors import ContractError
from hil.feedback.feedback import Feedback
from hil.learners.parts.device_projection import DeviceProjection
from hil.network import Network
from hil.synapses import takes


class Projection(nn.Module):
    """The matrices B as buffers, so that a checkpoint holds them.

    Args:
        feedback: how they are drawn.
        shapes: of one example of each hidden layer, for example ((800,), (16, 14, 14)).
        outputs: length of the error.
        rng: draws them, layer by layer.
    """

    def __init__(self, feedback: Feedback, shapes: Sequence[tuple[int, ...]], outputs: int, rng: torch.Generator) -> None:
        super().__init__()
        self.shapes, self.outputs = tuple(shapes), outputs
        rows = [math.prod(shape) for shape in shapes]
        for number, b in enumerate(feedback.matrices(rows, outputs, rng)):
            self.register_buffer(f"B{number}", b)

    @property
    def widths(self) -> tuple[int, ...]:
        """Values of each hidden layer."""
        return tuple(math.prod(shape) for shape in self.shapes)

    def onto(self, error: Tensor) -> tuple[Tensor, ...]:
        """Project the error (batch, outputs) onto every hidden layer: new tensors (batch, *shapes[layer])."""
        return tuple(self.onto_one(layer, error) for layer in range(len(self.shapes)))

    def onto_one(self, layer: int, error: Tensor) -> Tensor:
        """Project the error (batch, outputs) onto a layer: a new tensor (batch, *shapes[layer])."""
        projected = error @ self.get_buffer(f"B{layer}").t()
        return projected if len(self.shapes[layer]) == 1 else projected.view(len(error), *self.shapes[layer])


class Projecting(nn.Module):
    """A learner that projects the error, so that a device can do it."""

    projection: Projection | DeviceProjection

    def project_by(self, device: Device, levels: tuple[float, float] | None, planes: int) -> None:
        """Let `device` project in place of the matrices; the entries of B keep their root mean square.

        Args:
            device: that projects.
            levels: as of DeviceProjection.
            planes: the same.

        Raises:
            ConfigError: the device is of another kind, or its sizes do not fit. OutOfRange: a level.
        """
        host = self.projection
        assert isinstance(host, Projection)  # it was just built
        scales = [float(b.square().mean().sqrt()) for b in host.buffers()]
        self.projection = DeviceProjection(device, host.shapes, host.outputs, scales, levels, planes)


class Shapes(NamedTuple):
    """Shapes of one example, per hidden layer: of the pre-activation, and of the device's answer."""

    pre: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


@torch.no_grad()
def hidden_shapes(net: Network, sample_shape: Sequence[int] = ()) -> Shapes:
    """Shapes of the hidden layers, found without asking a device.

    Args:
        net: the network.
        sample_shape: of one example of x; may be left out if the first synapse begins with an nn.Linear or nn.Unflatten.

    Raises:
        ContractError: `sample_shape` is needed, or does not fit.
    """
    pre, outputs = [], []
    shape = tuple(sample_shape) or takes(net.stack[0].synapse)
    for layer in net.stack[:-1]:
        alone = not shape or (isinstance(layer.synapse, nn.Linear) and not sample_shape)
        pre.append(_width(layer.synapse) if alone else _answer(layer.synapse, shape))
        shape = (*pre[-1][:-1], layer.answers(pre[-1][-1]))
        outputs.append(shape)
    return Shapes(tuple(pre), tuple(outputs))


def _answer(synapse: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    place = next((p.device for p in synapse.parameters()), torch.device("cpu"))
    training = synapse.training
    synapse.eval()  # one example has no statistics, and must not leave any
    try:
        answer: Tensor = synapse(torch.zeros(1, *shape, device=place))
    except RuntimeError as error:
        raise ContractError(
            "a hidden synapse does not take this input", where="network", got=f"an example of shape {shape}",
            allowed=str(error).splitlines()[0], todo="correct sample_shape in [learner], or the widths",
        ) from error  # fmt: skip
    finally:
        synapse.train(training)
    return tuple(answer.shape[1:])


def _width(synapse: nn.Module) -> tuple[int, ...]:
    if isinstance(synapse, nn.Linear):
        return (synapse.out_features,)
    raise ContractError(
        "the size of a hidden layer is not known",
        where="learner",
        got=f"a synapse of type {type(synapse).__name__}",
        allowed="nn.Linear, or any module if the shape of an example is given",
        todo="set sample_shape in [learner], for example [784]",
    )
