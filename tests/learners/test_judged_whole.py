"""What forward-forward and physical local learning of sequences have in common: the label, its mask, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hil
from hil.build.prepared import prepared
from hil.config.experiment import experiment_of
from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError
from hil.learners.forward_forward_memory import ForwardForwardMemory, ForwardForwardMemorySettings
from hil.learners.parts.judged_whole import Labelled
from hil.learners.phyll_memory import PhyLLMemory, PhyLLMemorySettings
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.delay_loop import DelayLoop
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

Rule = PhyLLMemory | ForwardForwardMemory
SLOPE = {"family": "sine", "frequency": 0.9, "phase": 2.0}
HOW = {
    "phyll_memory": (PhyLLMemory, PhyLLMemorySettings(theta=8.0)),
    "ff_memory": (ForwardForwardMemory, ForwardForwardMemorySettings(sharpness=40.0, amplitude=2.0, g=SLOPE)),
}
both = pytest.mark.parametrize("use", HOW)


def network(width: int = 40, depth: int = 1) -> Network:
    torch.manual_seed(1)
    device = Simulated(DelayLoop(nodes=40, gain=0.5, phase_rad=0.6))
    encode = Encode.onto(device.spec.inputs, 1.5, overflow="clip")
    hidden = [Layer(nn.Linear(a, 40), device, encode, Decode(0.5, 0.5)) for a in (2, *[40] * (depth - 1))]
    return Network([*hidden, Layer(nn.Linear(40, width))])


def learner(use: str, net: Network, classes: int = 2) -> Rule:
    rule, settings = HOW[use]
    return rule.build(net, settings, classes, generator(0, 0, "learner"))  # type: ignore[attr-defined, no-any-return]


def pulses(count: int = 120) -> tuple[Tensor, Tensor]:
    """The class is which of two pulses came first: a mean over time does not tell, and the last step neither."""
    label = torch.arange(count) % 2
    x = torch.zeros(count, 8, 2)
    x[torch.arange(count), 2, label] = 1.0
    x[torch.arange(count), 4, 1 - label] = 1.0
    return x + 0.05 * torch.rand(x.shape, generator=generator(0, 0, "noise")), label


@pytest.mark.parametrize(("use", "width", "depth"), [("phyll_memory", 40, 1), ("ff_memory", 2, 2)])
def test_it_learns_what_only_the_past_tells(use: str, width: int, depth: int) -> None:
    net, (x, label) = network(width, depth), pulses()
    rule = learner(use, net)
    moves = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 0.03)
    for number in range(60):
        rule.step(net, x[:80], label[:80], generator(0, number, "step"))
        moves.step()
    assert float((rule.predict(net, x[80:]).argmax(1) == label[80:]).float().mean()) > 0.9


@both
def test_the_label_has_weights_of_its_own(use: str) -> None:
    """What claims nothing is masked as before; a network that takes labels already is left as it is."""
    plain, net = network(2), network(2)
    rule = learner(use, net)
    mask = net.stack[0].synapse
    assert isinstance(mask, Labelled)
    assert mask.weight.requires_grad == mask.label.requires_grad == (use == "ff_memory")
    u, said = torch.rand(4, 2), torch.eye(2).repeat(2, 1)
    assert torch.equal(mask(u), plain.stack[0].synapse(u))
    assert torch.allclose(mask(torch.cat([said, u], 1)), mask(u) + said @ mask.label)
    learner(use, net)
    assert net.stack[0].synapse.label is mask.label
    with pytest.raises(ContractError, match="made for other classes"):
        learner(use, net, 3)
    assert rule.predict(net, pulses(6)[0]).shape == (6, 2)


@both
def test_what_does_not_fit_is_refused(use: str) -> None:
    for break_it, what in (
        (lambda net: setattr(net.stack[1], "synapse", nn.Sequential(nn.Linear(40, 2))), "trains linear synapses"),
        (lambda net: setattr(net.stack[1], "device", None), "hidden layer has no node"),
    ):
        net = network(2, 2)
        break_it(net)
        with pytest.raises(ContractError, match=what):
            learner(use, net)
    modulator = Simulated(MachZehnder())
    static = [Layer(nn.Linear(2, 4), modulator, Encode.onto(modulator.spec.inputs)), Layer(nn.Linear(4, 2))]
    with pytest.raises(ContractError, match="drives nodes with memory"):
        learner(use, Network(static))


@both
@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("use = 'narma5'\nwindow = 1\nsteps = 20\nnumber = 10\nsequence = true", "judges a sequence as a whole"),
        ("use = 'digits'\nsequence = true\n[task]\nwashout = 8", "leaves nothing to score"),
        ("use = 'digits'\nsequence = true\n[task]\nloss = 'mse'", "lowers losses of its own"),
        ("use = 'digits'", "takes sequences; got digits, examples without time"),
        ("use = 'digits'\nsequence = true\n[network]\nuse = 'dense'\nlevels = 4", "trains linear synapses"),
    ],
)
def test_an_experiment_that_does_not_fit_is_refused_before_anything_is_opened(use: str, data: str, what: str) -> None:
    table = f"[data]\n{data}\n" + ("" if "[network]" in data else "[network]\nuse = 'masks'\n")
    table += f"widths = [{1 if 'narma' in data else 8}, 6, 10]\n"
    table += f"[device]\nuse = 'delay_loop'\nnodes = 6\n[learner]\nuse = '{use}'\n"
    with pytest.raises((ConfigError, ContractError), match=what) as told:
        prepared(experiment_of(hil.toml.loads(table), Path("here.toml")))
    assert told.value.outputs == "untouched; nothing was opened"


@both
def test_numbers_are_refused(use: str) -> None:
    x, y = torch.rand(20, 4, 2), torch.rand(20, 1)
    part = hil.Split(x, y)
    data = hil.Dataset("sums", part, part, part, (), (4, 2), "made here", "0")
    node = {"use": "delay_loop", "nodes": 6}
    table = {"network": {"use": "masks", "widths": [2, 6, 1]}, "device": node, "learner": {"use": use}}
    with pytest.raises(ConfigError, match=f"the learner {use} needs classes, and the targets of sums are numbers"):
        prepared(experiment_of(table, Path("here.toml")), data)
