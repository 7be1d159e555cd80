"""Physical local learning of sequences: exact gradients of each layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.encoding import Decode, Encode
from hil.learners.parts.judged_whole import slotted
from hil.learners.parts.label_slot import claiming
from hil.learners.parts.played import played
from hil.learners.phyll_memory import PhyLLMemory, PhyLLMemorySettings
from hil.network import Layer, Network
from hil.seeding import generator
from hil.task import as_task
from sim_devices.coupled_nodes import CoupledNodes
from sim_devices.simulated import Simulated

NODES, STEPS, CLASSES, WASHOUT = 6, 5, 3, 2


def network() -> Network:
    torch.manual_seed(0)
    device = Simulated(CoupledNodes(nodes=NODES, coupled=0.7))
    encode = Encode.onto(device.spec.inputs, 0.9, overflow="clip")
    made = [Layer(nn.Linear(a, NODES), device, encode, Decode(0.0, 0.5)) for a in (2, NODES)]
    return Network([*made, Layer(nn.Linear(NODES, 4))])


def learner(net: Network, **settings: object) -> PhyLLMemory:
    task = replace(as_task(CLASSES), washout=WASHOUT)
    return PhyLLMemory.build(net, PhyLLMemorySettings(**settings), task, generator(0, 0, "learner"))  # type: ignore[arg-type]


def examples(count: int = 8) -> tuple[Tensor, Tensor]:
    return torch.rand(count, STEPS, 2, generator=generator(0, 0, "x")), torch.arange(count) % CLASSES


@pytest.mark.parametrize("phi", ["abs", "relu"])
def test_each_layer_has_the_gradient_of_its_own_loss(phi: str) -> None:
    """From what was measured before it, which does not move with it; the mask stays."""
    net, (x, label) = network(), examples()
    rule = learner(net, phi=phi, theta=3.0)
    said = rule.step(net, x, label, generator(0, 0, "step"))
    wrong = _wrong(label)
    assert all(param.grad is None for param in net.stack[0].synapse.parameters())
    pair = [claiming(slotted(x, CLASSES), said, CLASSES, 1.0) for said in (label, wrong)]
    trace = played(net, torch.cat(pair), rule.settings)
    losses = []
    for number in (1, 2):
        synapse = net.stack[number].synapse
        assert isinstance(synapse, nn.Linear)
        weight = synapse.weight.detach().clone().requires_grad_(True)
        z = functional.linear(trace.inputs[number], weight, synapse.bias.detach())
        y = z.abs() if phi == "abs" else z.relu()
        cosine = functional.cosine_similarity(y, rule.get_buffer(f"direction{number}").expand_as(y), dim=2)[WASHOUT:].mean(0)
        loss = functional.softplus(-3.0 * (cosine[:8] - cosine[8:])).mean()
        (due,) = torch.autograd.grad(loss, weight)
        assert synapse.weight.grad is not None
        assert torch.allclose(synapse.weight.grad, due, rtol=1e-4, atol=1e-6)
        assert said[f"gap_layer{number}"] == pytest.approx((cosine[:8] - cosine[8:]).mean().item(), abs=1e-6)
        losses.append(loss.item())
    assert said["loss"] == pytest.approx(sum(losses) / 2)


def _wrong(label: Tensor) -> Tensor:
    shift = torch.randint(1, CLASSES, label.shape, generator=generator(0, 0, "step"))
    return (label + shift) % CLASSES
