"""Small spiking networks on simulated chips, and what the tests ask of every spiking learner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hil.data.dataset import Dataset, batches
from hil.device import ArraySpec, Chip
from hil.encoding import Encode
from hil.learner import Learner, Online
from hil.network import Layer, Network
from hil.seeding import generator
from hil.training.loop import evaluate
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip

LABEL = torch.arange(12) % 3


def network(
    neuron: Neuron | None = None, widths: Sequence[int] = (6, 14, 11, 3), *, gain: float = 2.0, drive: float = 1.0,
    seed: int = 0, chip: Chip | None = None,
) -> Network:  # fmt: skip
    """gain: of the weights. drive: of the encoding. Weights are multiples of 1/64: sums of spikes and leak 1/2 are exact."""
    torch.manual_seed(seed)
    source = chip or TwinChip(neuron or Neuron(), seed)
    layers = []
    for number in range(len(widths) - 1):
        synapse = nn.Linear(widths[number], widths[number + 1])
        if number == len(widths) - 2:
            layers.append(Layer(synapse))
            continue
        with torch.no_grad():
            synapse.weight.mul_(64 * gain).round_().div_(64)
            synapse.bias.mul_(64).round_().div_(64)
        array = source.array(ArraySpec(widths[number + 1]))
        layers.append(Layer(synapse, array, Encode.onto(array.spec.inputs, gain=drive)))
    return Network(layers)


def examples(features: int = 6, rows: int = 12) -> Tensor:
    """Multiples of 1/8."""
    return torch.randint(-8, 9, (rows, features), generator=generator(0, 0, "x")) / 8.0


def rng(step: int = 0) -> torch.Generator:
    return generator(0, step, "step")


def gradients(net: Network) -> list[Tensor]:
    return [param.grad.clone() for param in net.parameters() if param.grad is not None]


def stepped(net: Network, learner: Learner) -> list[Tensor]:
    """The gradients of one step."""
    learner.step(net, examples(net.stack[0].synapse.in_features), LABEL, rng())
    return gradients(net)


def close(a: Sequence[Tensor], b: Sequence[Tensor], tolerance: float = 1e-5) -> bool:
    """As many, and alike within `tolerance` of the largest value."""
    return len(a) == len(b) and all(
        (x - y).abs().max() <= tolerance * x.abs().max().clamp(min=1e-6) for x, y in zip(a, b, strict=True)
    )


def trained(net: Network, learner: Learner, data: Dataset, *, epochs: int, lr: float, batch: int = 32) -> float:
    """Accuracy on the test split after training as the loop does it."""
    optimizer = torch.optim.Adam(net.parameters(), lr)
    for epoch in range(epochs):
        for number, (x, label, _) in enumerate(batches(data.train, batch, 0, epoch)):
            chance = generator(0, 1000 * epoch + number, "learner")
            if isinstance(learner, Online):
                for _metrics in learner.updates(net, x, label, chance):
                    optimizer.step()
            else:
                learner.step(net, x, label, chance)
                optimizer.step()
    return evaluate(net, learner, data.test)[0]["accuracy"]
