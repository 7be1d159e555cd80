from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError, OutOfRange
from hil.learners.forward_forward import ForwardForward, ForwardForwardSettings
from hil.learners.parts.label_slot import candidates, claiming, neutral, wrong_labels
from hil.network import Layer, Network
from hil.seeding import generator
from hil.synapses import length_normalised
from sim_devices.lif_array import LifArray
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated
from sim_devices.spiking_array import SpikingArray

LABEL = torch.tensor([0, 2, 1, 2, 0])


def x(rows: int = 5) -> Tensor:
    return torch.rand(rows, 8, generator=generator(0, 0, "x"))


def network(noise: float = 0.0) -> Network:
    torch.manual_seed(0)
    device = Simulated(MachZehnder(noise=noise), seed=1)
    encode = Encode.onto(device.spec.inputs, gain=0.5, overflow="clip")
    hidden = [Layer(s, device, encode, Decode(0.18, 0.18)) for s in (nn.Linear(8, 12), nn.Linear(12, 11), nn.Linear(11, 9))]
    return Network([*hidden, Layer(nn.Linear(9, 3))])


def learner(net: Network, **changed: object) -> ForwardForward:
    return ForwardForward.build(net, ForwardForwardSettings(**changed), 3, generator(0, 0, "l"))  # type: ignore[arg-type]


def rng(step: int = 0) -> torch.Generator:
    return generator(0, step, "step")


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**32), st.booleans(), st.sampled_from([0.0, 1.0, 1e4, math.inf]))
def test_negatives_never_carry_the_true_label(classes: int, seed: int, hard: bool, confidence: float) -> None:
    source = torch.Generator().manual_seed(seed)
    label = torch.randint(0, classes, (200,), generator=source)
    scores = torch.randn(200, classes, generator=source)
    scores.scatter_add_(1, label.unsqueeze(1), torch.full((200, 1), confidence))
    wrong = wrong_labels(label, classes, source, scores if hard else None)
    assert not bool((wrong == label).any())
    assert int(wrong.min()) >= 0
    assert int(wrong.max()) < classes


def test_every_wrong_label_is_drawn_and_hard_ones_follow_belief() -> None:
    label = torch.zeros(6000, dtype=torch.int64)
    uniform = torch.bincount(wrong_labels(label, 4, rng()), minlength=4) / 6000
    assert torch.allclose(uniform, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]), atol=0.03)
    belief = torch.tensor([0.7, 0.2, 0.06, 0.04]).log().expand(6000, 4)
    hard = torch.bincount(wrong_labels(label, 4, rng(), belief), minlength=4) / 6000
    assert torch.allclose(hard, torch.tensor([0, 2 / 3, 0.2, 0.4 / 3]), atol=0.03)


def test_one_class_has_no_negative() -> None:
    with pytest.raises(ContractError, match="2 or more"):
        wrong_labels(torch.zeros(3, dtype=torch.int64), 1, rng())


def test_label_slot() -> None:
    claimed = claiming(x(), LABEL, 3, 2.0)
    assert torch.equal(claimed[:, :3], 2 * torch.eye(3)[LABEL])
    assert torch.equal(claimed[:, 3:], x()[:, 3:])
    assert torch.allclose(neutral(x(), 3, 2.0)[:, :3], torch.full((5, 3), 2 / 3))
    every = candidates(x(), 3, 2.0).view(5, 3, 8)
    assert torch.equal(every[:, 1], claiming(x(), torch.ones(5, dtype=torch.int64), 3, 2.0))


@pytest.mark.parametrize("loss", ["pairs", "logistic"])
@pytest.mark.parametrize("peer", [0.0, 0.3])
def test_step_is_the_gradient_of_every_layers_own_loss(loss: str, peer: float) -> None:
    net = network()
    rule = learner(
        net,
        loss=loss,
        sharpness=2.0,
        threshold=0.3,
        negatives="uniform",
        peer=peer,
        straight_through=False,
        goodness="host",
        drive="rectified",
    )
    rule.step(net, x(), LABEL, rng())
    wrong = wrong_labels(LABEL, 3, rng())
    h = length_normalised(torch.cat([claiming(x(), LABEL, 3, 5.0), claiming(x(), wrong, 3, 5.0)]))
    for layer in net.stack[:-1]:
        synapse = layer.synapse
        y = synapse(h).relu()
        good, bad = y.square().mean(1).chunk(2)
        soft = nn.functional.softplus
        both = torch.cat([2 * (0.3 - good), 2 * (bad - 0.3)])
        own = soft(-2 * (good - bad)).mean() if loss == "pairs" else soft(both).mean()
        activity = 0.1 * y[:5].mean(0)
        own = own + peer / 2 * (activity - activity.mean()).square().mean()
        exact = torch.autograd.grad(own, list(synapse.parameters()))
        for param, grad in zip(synapse.parameters(), exact, strict=True):
            assert torch.allclose(param.grad, grad, atol=1e-6)  # type: ignore[arg-type]
        h = length_normalised(layer.measure(y.detach()))


class Sine:
    """A node that answers sin(x), and counts."""

    spec = Spec(Port("sine", -9.0, 9.0, "V"), Port("answer", -1.0, 1.0, "V"), provenance="twin")
    asked = 0

    def forward(self, drive: Tensor) -> Tensor:
        self.asked += 1
        return drive.sin()

    def close(self) -> None:
        """There is nothing to close."""


@pytest.mark.parametrize("drive", ["pre", "rectified"])
def test_measured_goodness_learns_by_the_answer_of_the_node_and_g_in_place_of_its_slope(drive: str) -> None:
    torch.manual_seed(0)
    node = Sine()
    hidden = [Layer(s, node, Encode.onto(node.spec.inputs)) for s in (nn.Linear(8, 12), nn.Linear(12, 11))]
    net = Network([*hidden, Layer(nn.Linear(11, 3))])
    true = {"family": "sine", "phase": math.pi / 2}  # cos, the slope of sin
    rule = learner(net, sharpness=2.0, negatives="uniform", drive=drive, g=true)
    rule.step(net, x(), LABEL, rng())
    assert node.asked == 4  # two layers for the head, and two for goodness, the last one included
    wrong = wrong_labels(LABEL, 3, rng())
    h = length_normalised(torch.cat([claiming(x(), LABEL, 3, 5.0), claiming(x(), wrong, 3, 5.0)]))
    for layer in net.stack[:-1]:
        pre = layer.synapse(h)
        y = (pre.relu() if drive == "rectified" else pre).sin()
        good, bad = y.square().mean(1).chunk(2)
        own = nn.functional.softplus(-2 * (good - bad)).mean()
        exact = torch.autograd.grad(own, list(layer.synapse.parameters()))
        for param, grad in zip(layer.synapse.parameters(), exact, strict=True):
            assert torch.allclose(param.grad, grad, atol=1e-6)  # type: ignore[arg-type]
        h = length_normalised(y.detach())
    assert not torch.equal(rule.predict(net, x()), learner(net, goodness="host").predict(net, x()))


def test_a_dead_node_teaches_measured_goodness_nothing() -> None:
    net = network()
    for layer in net.stack[:-1]:
        layer.decode = Decode(0.0, math.inf)
    learner(net).step(net, x(), LABEL, rng())
    for layer in net.stack[:-1]:
        assert not layer.synapse.weight.grad.any()  # type: ignore[union-attr, operator]


def test_straight_through_moves_silent_units_only_by_peers() -> None:
    net, other = network(), network()
    for one in (net, other):
        with torch.no_grad():
            one.stack[0].synapse.bias[0] = -100.0  # type: ignore[union-attr, index, operator]
    learner(net, peer=1.0, straight_through=True, drive="rectified").step(net, x(), LABEL, rng())
    learner(other, peer=1.0, straight_through=False, drive="rectified").step(other, x(), LABEL, rng())
    moved, still = (one.stack[0].synapse.weight.grad[0] for one in (net, other))  # type: ignore[union-attr, index, operator]
    assert bool(moved.any())
    assert not bool(still.any())


def test_hidden_features_are_the_same_in_a_pair_and_spare_the_label() -> None:
    rule = learner(network(), dropout=0.5)
    pair = torch.ones(2 * 50, 8)
    hidden = rule._hidden(pair, rng(), spared=3)
    good, bad = (hidden != 0).chunk(2)
    assert torch.equal(good, bad)
    assert bool(good[:, :3].all())
    assert 0.35 < float(good[:, 3:].float().mean()) < 0.65
    assert torch.allclose(rule._first(hidden).square().mean(1), torch.ones(100), atol=1e-5)
    assert rule.predict(network(), x()).equal(rule.predict(network(), x()))


def test_head_is_trained_on_inputs_that_claim_nothing() -> None:
    net = network()
    rule = learner(net)
    rule.step(net, x(), LABEL, rng())
    head = net.stack[-1].synapse
    trace = rule.trace(net, x())
    exact = torch.autograd.grad(nn.functional.cross_entropy(head(trace.inputs[-1]), LABEL), list(head.parameters()))
    found = [p.grad for p in head.parameters()]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, exact, strict=True))  # type: ignore[arg-type]


def test_true_label_in_the_slot_is_not_seen_by_prediction() -> None:
    net = network()
    rule = learner(net)
    poked = claiming(x(), LABEL, 3, 9.0)
    for name in rule.readouts.names:
        rule.readouts.chosen.fill_(rule.readouts.names.index(name))
        assert torch.allclose(rule.predict(net, x()), rule.predict(net, poked), atol=1e-5)


def test_validation_chooses_the_readout_and_state_keeps_it() -> None:
    net = network()
    rule = learner(net)
    scores = rule.readouts.names
    found = rule.select(net, x(60), torch.arange(60) % 3)
    best = max(scores, key=lambda name: found[f"accuracy_{name}"])
    assert set(found) == {f"accuracy_{name}" for name in ("goodness", "upper", "layer0", "layer1", "layer2", "head")}
    assert rule.readouts.name == best
    other = learner(net)
    other.load_state_dict(rule.state_dict())
    assert other.readouts.name == best
    fixed = learner(net, readout="layer2")
    fixed.select(net, x(60), torch.arange(60) % 3)
    assert fixed.readouts.name == "layer2"


def test_clouds_are_learned_with_noise() -> None:
    source = generator(3, 0, "clouds")
    label = torch.arange(120) % 3
    points = torch.randn(3, 8, generator=source)[label] + 0.3 * torch.randn(120, 8, generator=source)
    net = network(noise=1.0)
    rule = learner(net, amplitude=3.0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(80):
        metrics = rule.step(net, points, label, rng(step))
        optimizer.step()
    assert metrics["gap_layer0"] > 0.05  # of squares of at most 1
    assert rule.select(net, points, label)["accuracy_goodness"] > 0.9


def test_a_nan_weight_sends_nothing() -> None:
    net = network()
    with torch.no_grad():
        next(net.parameters())[0, 0] = math.nan
    with pytest.raises(OutOfRange, match="NaN"):
        learner(net).step(net, x(), LABEL, rng())


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"loss": "hinge"}, "logistic, pairs"),
        ({"negatives": "true"}, "uniform, hard"),
        ({"drive": "abs"}, "pre, rectified"),
        ({"sharpness": 0.0}, "sharpness"),
        ({"peer": -1.0}, "peer"),
        ({"dropout": 1.0}, "dropout"),
        ({"readout": "layer3"}, "layer2"),
    ],
)
def test_wrong_settings_are_explained(changed: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        learner(network(), **changed)


def test_networks_that_do_not_fit_are_explained() -> None:
    spiking = Network([Layer(nn.Linear(8, 4), SpikingArray(LifArray(4)), Encode(-64, 64)), Layer(nn.Linear(4, 3))])
    with pytest.raises(ContractError, match="ffgaf"):
        learner(spiking)
    with pytest.raises(ContractError, match="hidden layer"):
        learner(Network([Layer(nn.Linear(8, 3))]))
    with pytest.raises(ContractError, match="no room"):
        learner(network()).step(network(), torch.rand(5, 3), LABEL, rng())
