"""Physical local learning of sequences: exact gradients of each layer, labels by a mask of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hil
from hil.build.prepared import prepared
from hil.config.experiment import experiment_of
from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError
from hil.learners.phyll_memory import Labelled, PhyLLMemory, PhyLLMemorySettings
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.coupled_nodes import CoupledNodes
from sim_devices.delay_loop import DelayLoop
from sim_devices.simulated import Simulated

NODES, STEPS, CLASSES = 6, 5, 3


def network() -> Network:
    torch.manual_seed(0)
    device = Simulated(CoupledNodes(nodes=NODES, coupled=0.7))
    encode = Encode.onto(device.spec.inputs, 0.9, overflow="clip")
    made = [Layer(nn.Linear(a, NODES), device, encode, Decode(0.0, 0.5)) for a in (2, NODES)]
    return Network([*made, Layer(nn.Linear(NODES, 4))])


def learner(net: Network, **settings: object) -> PhyLLMemory:
    return PhyLLMemory.build(net, PhyLLMemorySettings(**settings), CLASSES, generator(0, 0, "learner"))  # type: ignore[arg-type]


def examples(count: int = 8) -> tuple[Tensor, Tensor]:
    return torch.rand(count, STEPS, 2, generator=generator(0, 0, "x")), torch.arange(count) % CLASSES


@pytest.mark.parametrize("phi", ["abs", "relu"])
def test_each_layer_has_the_gradient_of_its_own_loss(phi: str) -> None:
    """From what was measured before it, which does not move with it; the mask stays."""
    net, (x, label) = network(), examples()
    rule = learner(net, phi=phi, theta=3.0)
    said = rule.step(net, x, label, generator(0, 0, "step"))
    wrong = _wrong(label)
    trace = rule._claiming(net, torch.cat([x, x]), functional.one_hot(torch.cat([label, wrong]), CLASSES))
    assert net.stack[0].synapse.weight.grad is None  # type: ignore[union-attr]
    losses = []
    for number in (1, 2):
        synapse = net.stack[number].synapse
        assert isinstance(synapse, nn.Linear)
        weight = synapse.weight.detach().clone().requires_grad_(True)
        z = functional.linear(trace.inputs[number], weight, synapse.bias.detach())
        y = z.abs() if phi == "abs" else z.relu()
        cosine = functional.cosine_similarity(y, rule.get_buffer(f"direction{number}").expand_as(y), dim=2).mean(0)
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


def test_the_label_goes_through_a_mask_of_its_own_and_the_weights_keep_their_names() -> None:
    plain, net = network(), network()
    rule = learner(net, amplitude=2.0)
    assert net.state_dict().keys() == plain.state_dict().keys()
    mask = net.stack[0].synapse
    assert isinstance(mask, Labelled)
    u = torch.rand(4, 2)
    assert torch.equal(mask(u), plain.stack[0].synapse(u))
    x, label = examples(4)
    trace = rule._claiming(net, x, functional.one_hot(label, CLASSES))
    due = plain.stack[0].synapse(x).transpose(0, 1) + 2.0 * rule.label[label]
    assert torch.allclose(trace.pre[0], due, atol=1e-6)
    assert rule.predict(net, x).shape == (4, CLASSES)
    assert rule.trace(net, x).pre[0].shape == (STEPS, 4, NODES)
    again = learner(network())
    again.load_state_dict(rule.state_dict())
    assert torch.equal(again.label, rule.label)


def test_it_learns_what_only_the_past_tells() -> None:
    """The class is which of two pulses came first: a mean over time does not tell, and the last step neither."""
    count = 120
    label = torch.arange(count) % 2
    x = torch.zeros(count, 8, 2)
    x[torch.arange(count), 2, label] = 1.0
    x[torch.arange(count), 4, 1 - label] = 1.0
    x += 0.05 * torch.rand(x.shape, generator=generator(0, 0, "noise"))
    torch.manual_seed(1)
    device = Simulated(DelayLoop(nodes=40, gain=0.5, phase_rad=0.6))
    layers = [Layer(nn.Linear(2, 40), device, Encode.onto(device.spec.inputs, 1.5, overflow="clip"), Decode(0.5, 0.5))]
    net = Network([*layers, Layer(nn.Linear(40, 40))])
    rule = PhyLLMemory.build(net, PhyLLMemorySettings(theta=8.0), 2, generator(0, 0, "learner"))
    moves = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 0.03)
    for number in range(60):
        rule.step(net, x[:80], label[:80], generator(0, number, "step"))
        moves.step()
    assert float((rule.predict(net, x[80:]).argmax(1) == label[80:]).float().mean()) > 0.9


def test_what_does_not_fit_is_refused() -> None:
    net = network()
    net.stack[1].synapse = nn.Sequential(nn.Linear(NODES, NODES))
    with pytest.raises(ContractError, match="trains linear synapses between nodes"):
        learner(net)
    for data, what in (
        ("use = 'narma5'\nwindow = 1\nsteps = 20\nnumber = 10\nsequence = true", "judges a sequence as a whole"),
        ("use = 'digits'\nsequence = true\n[task]\nwashout = 2", "judges a sequence as a whole"),
        ("use = 'digits'", "takes sequences; got digits, examples without time"),
    ):
        table = f"[data]\n{data}\n[network]\nuse = 'masks'\nwidths = [{1 if 'narma' in data else 8}, 6, 10]\n"
        table += "[device]\nuse = 'delay_loop'\nnodes = 6\n[learner]\nuse = 'phyll_memory'\n"
        with pytest.raises(ConfigError, match=what) as told:
            prepared(experiment_of(hil.toml.loads(table), Path("here.toml")))
        assert told.value.outputs == "untouched; nothing was opened"
