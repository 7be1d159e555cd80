from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hil.device import ArraySpec
from hil.encoding import Encode
from hil.errors import ConfigError, OutOfRange
from hil.learners.ffgaf import FFGAF, FFGAFSettings
from hil.learners.parts.class_groups import ClassGroups
from hil.learners.parts.difficulty import Difficulty, apportioned
from hil.network import Layer, Network
from hil.seeding import generator
from hil.synapses import QuantisedReLU, conv, dense, flat_widths
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip

LABEL = torch.tensor([0, 2, 1, 2, 0, 1])
ROUNDING = Neuron(leak=1.0, v_th=0.5, v_rest=-0.5)


def x(rows: int = 6) -> Tensor:
    return torch.rand(rows, 36, generator=generator(0, 0, "x"))


def network(convolutional: bool = True, neuron: Neuron = ROUNDING) -> Network:
    torch.manual_seed(0)
    made = (
        conv([1, 6, 6], [6, 9, 7], norm="batch", levels=4)
        if convolutional
        else dense([36, 12, 13, 9], norm="batch", levels=4, readout=False)
    )
    chip = TwinChip(neuron, seed=2)
    layers = []
    for synapse, width in zip(made[:-1], flat_widths(made, 36)[1:], strict=False):
        array = chip.array(ArraySpec(width))
        layers.append(Layer(synapse, array, Encode.onto(array.spec.inputs)))
    return Network([*layers, Layer(made[-1])])


def learner(net: Network, **changed: object) -> FFGAF:
    return FFGAF.build(net, FFGAFSettings(**{"time_steps": 4, **changed}), 3, generator(0, 0, "l"))  # type: ignore[arg-type]


def rng(step: int = 0) -> torch.Generator:
    return generator(0, step, "step")


def test_goodness_is_the_mean_square_of_the_channels_of_a_class() -> None:
    group = ClassGroups(5, [1, 1, 1], temperature=6.0, scale=2.0)
    pre = torch.randn(2, 5 * 4, generator=rng())
    maps = pre.view(2, 5, 4)
    wanted = torch.stack([maps[:, s].square().mean((1, 2)) for s in (slice(0, 2), slice(2, 4), slice(4, 5))], 1)
    assert group.counts.tolist() == [2, 2, 1]
    assert torch.allclose(group.goodness(pre), wanted * 6 / 4, atol=1e-6)
    point, slope = pre.requires_grad_(True), torch.randn(2, 3, generator=rng(1))
    (exact,) = torch.autograd.grad(group.goodness(point), point, slope)
    assert torch.allclose(group.pulled(pre.detach(), slope), exact, atol=1e-6)


def test_every_layer_may_have_a_temperature_of_its_own() -> None:
    one = learner(network(), temperature=(1.0, 2.0, 3.0))
    assert [group.factor * 16 for group in one.groups] == [1.0, 2.0, 3.0]  # 4 levels


def test_channels_move_one_by_one_until_shares_hold() -> None:
    group = ClassGroups(12, [1, 1, 1])
    moves = 0
    while group.towards([3, 2, 1]):
        moves += 1
    assert group.counts.tolist() == apportioned([3, 2, 1], 12) == [6, 4, 2]
    assert moves == 2


def test_shares_of_the_published_table() -> None:
    table = [4, 4, 5, 5, 5, 4, 3, 4, 3, 3]
    assert apportioned(table, 40) == table
    assert sum(apportioned(table, 123)) == 123
    assert min(apportioned([100, 1, 1], 3)) == 1


def test_difficulty_follows_what_is_confused() -> None:
    hard = Difficulty(3, momentum=0.5, strength=1.0, spread=4.0)
    for _ in range(20):
        hard.observe(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]))  # a 2 in two is taken for a 1
    assert torch.allclose(hard.confusion, torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]]), atol=1e-4)
    assert torch.allclose(hard.hardness, torch.tensor([0, 0.25, 0.25]), atol=1e-4)
    weights = hard.weights
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights[2]) > 3 * float(weights[0])
    before = hard.confusion[0].clone()
    hard.observe(torch.tensor([1]), torch.tensor([1]))
    assert torch.equal(hard.confusion[0], before)  # a class that is absent keeps its record
    assert torch.allclose(Difficulty(3, strength=0.0).weights, torch.ones(3))


@pytest.mark.parametrize(("convolutional", "goodness"), [(True, "levels"), (False, "levels"), (True, "threshold")])
def test_step_is_the_gradient_of_every_layers_own_cross_entropy(convolutional: bool, goodness: str) -> None:
    net, twin = network(convolutional), network(convolutional)
    rule = learner(net, adaptation="none", temperature=8.0, goodness=goodness)
    metrics = rule.step(net, x(), LABEL, rng())
    h, losses = x(), []
    for number, (layer, same) in enumerate(zip(net.stack, twin.stack, strict=True)):
        pre = same.synapse(h)
        height = next(part for part in same.synapse.modules() if isinstance(part, QuantisedReLU)).threshold
        scores = rule.groups[number].goodness(pre) * (height.square() if goodness == "threshold" else 1.0)
        loss = nn.functional.cross_entropy(scores, LABEL)
        exact = torch.autograd.grad(loss, list(same.synapse.parameters()))
        for param, grad in zip(layer.synapse.parameters(), exact, strict=True):
            assert torch.allclose(param.grad, grad, atol=1e-5)  # type: ignore[arg-type]
        losses.append(loss.item())
        h = pre.detach()  # a neuron that rounds answers with as many spikes as quanta
    assert metrics["loss"] == pytest.approx(sum(losses) / 3, rel=1e-4)
    assert 0 < metrics["rate_layer0"] < 1
    assert {"accuracy_layer0", "accuracy_layer1", "accuracy_layer2", "hardest"} <= set(metrics)


def test_next_layer_sees_measured_spikes_not_what_was_sent() -> None:
    stray = Neuron(leak=1.0, v_th=1.5)  # one quantum does not make it fire
    net = network(neuron=stray)
    rule = learner(net)
    trace = rule.trace(net, x())
    assert torch.equal(trace.inputs[1], trace.outputs[0])
    assert not torch.equal(trace.outputs[0], trace.pre[0])
    array, layer = net.devices[0], net.stack[0]
    array.reset()
    current = torch.cat([trace.pre[0].unsqueeze(0), torch.zeros(3, *trace.pre[0].shape)])
    assert torch.equal(layer.measure(current).sum(0), trace.outputs[0])


def test_statistics_and_dropout_rest_in_prediction() -> None:
    net = network()
    rule = learner(net, dropout=0.5)
    rule.step(net, x(), LABEL, rng())
    state = {name: value.clone() for name, value in net.state_dict().items()}
    together = rule.predict(net, x())
    assert torch.allclose(together[:1], rule.predict(net, x()[:1]), atol=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_statistics_are_counted_once_a_step() -> None:
    net = network()
    learner(net).step(net, x(), LABEL, rng())
    seen = [value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")]
    assert [int(value) for value in seen] == [1, 1, 1]


def test_dropout_comes_from_the_generator() -> None:
    grads = []
    for step in (0, 0, 1):
        net = network()
        learner(net, dropout=0.5).step(net, x(), LABEL, rng(step))
        grads.append([p.grad.clone() for p in net.stack[1].parameters()])  # type: ignore[union-attr]
    same = [all(torch.equal(a, b) for a, b in zip(grads[0], other, strict=True)) for other in grads[1:]]
    assert same == [True, False]


@pytest.mark.parametrize(("adaptation", "moved"), [("none", False), ("weights", False), ("shares", True), ("both", True)])
def test_adaptation_is_dynamic(adaptation: str, moved: bool) -> None:
    net = network()
    rule = learner(net, adaptation=adaptation, share_every=1, strength=1.0, momentum=0.5)
    rule.difficulty.confusion.copy_(torch.tensor([[1.0, 0, 0], [0, 0.2, 0.8], [0, 0.8, 0.2]]))
    before = [group.counts.tolist() for group in rule.groups]
    equal = rule.step(net, x(), LABEL, rng())["loss"]
    assert ([group.counts.tolist() for group in rule.groups] != before) is moved
    plain, other = network(), learner(network(), adaptation="none")
    assert (other.step(plain, x(), LABEL, rng())["loss"] == pytest.approx(equal, rel=1e-5)) is (
        adaptation in ("none", "shares")
    )


def test_state_brings_back_choice_shares_and_difficulty() -> None:
    net = network()
    rule = learner(net, adaptation="both", share_every=1, strength=1.0)
    for step in range(3):
        rule.step(net, x(), LABEL, rng(step))
    rule.select(net, x(), LABEL)
    other = learner(network(), adaptation="both")
    other.load_state_dict(rule.state_dict())
    assert other.readouts.name == rule.readouts.name
    assert all(torch.equal(a.owner, b.owner) for a, b in zip(rule.groups, other.groups, strict=True))
    assert torch.equal(other.difficulty.confusion, rule.difficulty.confusion)
    assert int(other.steps) == 3


def test_clouds_are_learned_through_noisy_strays() -> None:
    source = generator(3, 0, "clouds")
    label = torch.arange(120) % 3
    points = (torch.randn(3, 36, generator=source)[label] + 0.5 * torch.randn(120, 36, generator=source)).sigmoid()
    net = network(False, Neuron(leak=1.0, v_th=0.5, v_rest=-0.5, threshold_mismatch=0.1, noise=0.05))
    rule = learner(net, temperature=16.0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(40):
        rule.step(net, points, label, rng(step))
        optimizer.step()
    found = rule.select(net, points, label)
    assert found["accuracy_layer2"] > 0.9
    assert float((rule.predict(net, points).argmax(1) == label).float().mean()) == max(found.values())


def test_a_nan_weight_sends_nothing() -> None:
    net = network()
    with torch.no_grad():
        next(net.parameters()).fill_(math.nan)
    with pytest.raises(OutOfRange, match="NaN"):
        learner(net).step(net, x(), LABEL, rng())


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"time_steps": 0}, "time_steps"),
        ({"dropout": 1.0}, "dropout"),
        ({"adaptation": "static"}, "none, weights, shares, both"),
        ({"shares": (1.0, 0.0, 1.0)}, "positive numbers"),
        ({"shares": (1.0, 2.0)}, "one share a class"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": (1.0, 2.0)}, "one a layer"),
        ({"readout": "head"}, "layer2"),
    ],
)
def test_wrong_settings_are_explained(changed: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        learner(network(), **changed)


def test_too_few_channels_are_explained() -> None:
    net = Network([Layer(nn.Linear(36, 2))])
    with pytest.raises(ConfigError, match="too few channels"):
        learner(net)
