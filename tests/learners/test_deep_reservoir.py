"""One node with memory for all layers: the masks between them learn by aDFA, the loop inside the node gets no credit."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from hil.build.prepared import prepared
from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.data.dataset import Dataset, Split, load
from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError
from hil.learners.deep_reservoir import DeepReservoir, DeepReservoirSettings
from hil.network import Layer, Network
from hil.seeding import generator
from hil.task import Task, task_of
from hil.training import diagnostics
from hil.training.gradient_check import look
from hil.training.loop import evaluate, train
from hil.training.refit import refit
from hil.training.session import load_best
from sim_devices.delay_loop import DelayLoop
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

NODES, GAIN, ENCODED, ZERO, SCALE = 5, 0.6, 0.9, 0.3, 0.4
LABEL = torch.tensor([0, 2, 1, 2])
CLASSES = task_of(LABEL, ("a", "b", "c"))
NUMBERS = torch.tensor([[0.1, -0.4, 0.3], [0.2, 0.0, 0.1], [-0.3, 0.5, 0.9], [0.0, 0.1, -0.2]])
G = {"g": {"family": "fourier", "sin": [0.7, -0.2], "cos": [0.4, 0.3], "half_period": 2.0}, "scale": 0.3}
Array = NDArray[np.float64]


def network(outputs: int = 3) -> Network:
    torch.manual_seed(0)
    device = Simulated(DelayLoop(nodes=NODES, gain=GAIN, node_s=1.0, delay_s=7.0))
    encode = Encode.onto(device.spec.inputs, ENCODED, overflow="clip")
    made = [Layer(nn.Linear(a, b), device, encode, Decode(ZERO, SCALE)) for a, b in pairwise([3, NODES, NODES, NODES])]
    return Network([*made, Layer(nn.Linear(NODES, outputs))])


def rule(net: Network, task: Task = CLASSES, **settings: Any) -> DeepReservoir:
    return DeepReservoir.build(net, DeepReservoirSettings(feedback=G, **settings), task, generator(0, 0, "learner"))


def shown(time: int, x: Array, hold: int) -> Array:
    """(batch, features) or (batch, time, features) -> (batch, time x hold, features)."""
    return np.repeat(x.reshape(len(x), time, -1), hold, 1)


def looped(drive: Array) -> Array:
    """Readings of one example, (time, nodes): sample after sample, a delay of 7 node times, from a loop that was at rest."""
    level = 0.0
    for _ in range(500):
        level = 0.5 * level + 0.5 * math.sin(0.5 * math.pi * GAIN * level + 0.2 * math.pi) ** 2
    past = [level] * 7
    for volts in drive.reshape(-1):
        past.append(math.sin(0.5 * math.pi * (volts / 3.5 + GAIN * past[-7]) + 0.2 * math.pi) ** 2)
    return np.reshape(past[7:], drive.shape)


@pytest.mark.parametrize(("time", "hold"), [(0, 1), (0, 3), (4, 1), (3, 2)])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_update_is_that_of_a_plain_loop(time: int, hold: int, loss: str) -> None:
    """Example by example, step by step, layer by layer; the node written out too."""
    net = network()
    numbers = loss == "mse"
    learner = rule(net, task_of(NUMBERS, ()) if numbers else CLASSES, hold=hold)
    x = torch.randn(4, *([time] if time else []), 3, generator=generator(0, 0, "x"))
    metrics = learner.step(net, x, NUMBERS if numbers else LABEL, generator(0, 0, "step"))
    weights = [layer.synapse.weight.detach().double().numpy() for layer in net.stack]  # type: ignore[operator]
    biases = [layer.synapse.bias.detach().double().numpy() for layer in net.stack]  # type: ignore[operator]
    grads = [np.zeros_like(weight) for weight in weights]
    bias_grads = [np.zeros_like(bias) for bias in biases]
    total = 0.0
    for example, wanted, label in zip(shown(time or 1, x.double().numpy(), hold), NUMBERS.double().numpy(), LABEL, strict=True):
        u, seen = example, []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            pre = np.array([weight @ step + bias for step in u])
            seen.append((u, pre))
            u = (looped(np.clip(ENCODED * pre, -7, 7)) - ZERO) / SCALE
        scores = weights[-1] @ u[-1] + biases[-1]
        shares = np.exp(scores) / np.exp(scores).sum()
        error = (scores - wanted if numbers else shares - np.eye(3)[label]) / 4
        total += (0.5 * float(np.square(scores - wanted).sum()) if numbers else -float(np.log(shares[label]))) / 4
        grads[-1] += np.outer(error, u[-1])
        bias_grads[-1] += error
        for number, (sent, pres) in enumerate(seen):
            b = learner.projection.get_buffer(f"B{number}").double().numpy()
            for step, pre in zip(sent, pres, strict=True):
                angle = np.pi * pre / 2
                g = 0.7 * np.sin(angle) - 0.2 * np.sin(2 * angle) + 0.4 * np.cos(angle) + 0.3 * np.cos(2 * angle)
                delta = (b @ error) * g
                grads[number] += np.outer(delta, step)
                bias_grads[number] += delta
    assert metrics["loss"] == pytest.approx(total, rel=1e-5)
    for layer, weight, bias in zip(net.stack, grads, bias_grads, strict=True):
        assert isinstance(layer.synapse, nn.Linear)
        for param, grad in ((layer.synapse.weight, weight), (layer.synapse.bias, bias)):
            assert param.grad is not None
            assert np.allclose(param.grad.numpy(), grad, rtol=1e-4, atol=1e-6)


def test_a_mask_may_be_any_synapse() -> None:
    """Filters here, whose flat maps are the virtual nodes: the exact product of the synapse with the same direction."""
    net, x = network(), torch.randn(4, 2, 3, generator=generator(0, 0, "x"))
    filters, plain = nn.Conv1d(1, NODES, 3), network()
    net.stack[0].synapse = nn.Sequential(nn.Unflatten(1, (1, 3)), filters, nn.Flatten(1))
    mask = next(plain.stack[0].synapse.parameters())
    with torch.no_grad():
        filters.weight.copy_(mask.view(NODES, 1, 3))
        filters.bias.zero_()  # type: ignore[union-attr]
        plain.stack[0].synapse.bias.zero_()  # type: ignore[operator]
    for one in (net, plain):
        rule(one, hold=2).step(one, x, LABEL, generator(0, 0, "step"))
    for found, wanted in zip(net.parameters(), plain.parameters(), strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        assert torch.allclose(found.grad.reshape(wanted.grad.shape), wanted.grad, atol=1e-6)


def test_one_shot_a_layer_and_the_last_step_is_read() -> None:
    net, x = network(), torch.randn(4, 6, 3, generator=generator(0, 0, "x"))
    learner, device = rule(net), net.devices[0]
    learner.step(net, x, LABEL, generator(0, 0, "step"))
    assert isinstance(device, Simulated)
    assert device.snapshot()["calls"] == 3
    scores = learner.predict(net, x)
    trace = learner.trace(net, x)
    assert [tuple(part.shape) for part in trace.outputs] == [(6, 4, NODES)] * 3 + [(4, 3)]
    assert torch.equal(scores, net.stack[-1].synapse(trace.outputs[-2][-1]))
    other = network()
    rested = rule(other, between="rest", rest_steps=60)
    assert torch.allclose(rested.predict(other, x), scores, atol=1e-3)


def test_the_reports_gradient_goes_through_the_loop() -> None:
    """That of finite differences along a direction of all weights; aDFA's own readout has the same."""
    net = network().double()
    model = DelayLoop(nodes=NODES, gain=GAIN, node_s=1.0, delay_s=7.0).double().ideal
    learner, x = rule(net, hold=3), torch.randn(4, 3, generator=generator(0, 0, "x")).double()
    learner.true_gradient(net, x, LABEL, model)
    found = [param.grad.clone() for param in net.parameters() if param.grad is not None]
    along = [torch.randn(p.shape, generator=generator(0, 0, "along"), dtype=p.dtype) for p in net.parameters()]

    @torch.no_grad()
    def moved(size: float) -> float:
        for param, way in zip(net.parameters(), along, strict=True):
            param.add_(way, alpha=size)
        scores = learner.passed(net, x, lambda layer, pre: layer.through(model, pre)).outputs[-1]
        return float(nn.functional.cross_entropy(scores, LABEL))

    small = 1e-4
    up, down = moved(small), moved(-2 * small)
    assert sum(float((g * way).sum()) for g, way in zip(found, along, strict=True)) == pytest.approx(
        (up - down) / (2 * small), rel=1e-3
    )


HERE = Path(__file__).resolve().parents[2] / "experiments" / "digits_deep_reservoir.toml"


def score(*sets: str, frozen: bool = False) -> tuple[float, Any]:
    """Train, or leave the masks as they are and fit the readout; judge the test split, once."""
    with built(read_experiment(HERE, sets)) as made:
        training = made.training
        for layer in training.net.stack[:-1]:
            layer.requires_grad_(not frozen)
        for _ in train(training):
            pass
        if frozen:
            assert refit(training)["kept"]
        load_best(training)
        return evaluate(training.net, training.learner, training.data.test, task=training.task)[0]["accuracy"], training


def test_trained_masks_beat_random_ones() -> None:
    """With noise and 10 bits; then what the report says, and the readout in closed form."""
    small = ("network.widths=[64, 30, 30, 10]", "device.nodes=30", "data.train_examples=800", "train.epochs=8")
    found, training = score(*small, 'learner.readout="ridge"')
    random, _ = score(*small, "train.epochs=1", frozen=True)
    assert found > 0.85
    assert found > random + 0.05
    seen = look(training, None, 64)
    assert seen.why == ""
    first, second, readout = seen.angles
    assert first is not None
    assert second is not None
    assert first < 80
    assert second < 80
    assert readout == pytest.approx(0, abs=10)  # noise alone
    some = training.data.validation.x[:20]
    hidden = list(zip(training.net.stack[:-1], training.learner.trace(training.net, some).pre, strict=False))
    table = diagnostics._feedback(training, some, hidden, None)["feedback"]
    assert all(0.3 < layer["correlation"] < 1 and layer["slope"] is None and len(layer["g"]) > 9 for layer in table)
    assert len(table) == 2
    before = training.best.score
    assert refit(training)["trained"] == before


def test_wrong_combinations_are_refused_before_anything_is_opened() -> None:
    untouched = "untouched; nothing was opened"
    for sets, what in (
        (["device={use = 'mach_zehnder'}"], "this node has no memory, and this learner drives nodes with memory"),
        (["device={chip = 'lif'}"], "this node has no memory, and this learner drives nodes with memory"),
        *(
            ([f'learner={{use = "{use}"}}'], "this node has a state in time, and this learner has no time axis")
            for use in ("adfa", "ff", "phyll", "mono_forward")
        ),
        (["learner.hold=0"], "hold"),
        (["learner.rest_steps=3"], "rest_steps goes with rest"),
        (['learner.feedback={ g = "cosine" }'], "g is a table"),
        (["network.widths=[64, 60, 60, 11]"], "the network does not fit"),
    ):
        with pytest.raises(ConfigError, match=what) as told:
            prepared(read_experiment(HERE, sets))
        assert told.value.outputs == untouched
    with (
        pytest.raises(ConfigError, match="hidden layers must be as wide as the device"),
        built(read_experiment(HERE, ["network.widths=[64, 60, 50, 10]"])),
    ):
        pass
    with pytest.raises(ConfigError, match="does not take these sequences") as told:
        prepared(read_experiment(HERE, ["network.widths=[8, 60, 60, 10]"]), rows(a_step=True))
    assert told.value.allowed == "one target a sequence"


def rows(a_step: bool) -> Dataset:
    """Digits row by row, the digit as the target, once or in each step."""

    def timed(split: Split) -> Split:
        return Split(split.x.reshape(-1, 8, 8)[:200], (split.y.unsqueeze(1).repeat(1, 8) if a_step else split.y)[:200])

    data = load("digits")
    return dataclasses.replace(
        data, shape=(8, 8), train=timed(data.train), validation=timed(data.validation), test=timed(data.test)
    )


def test_sequences_with_one_target_are_taken_and_the_last_step_answers() -> None:
    ready = prepared(read_experiment(HERE, ["network.widths=[8, 60, 60, 10]"]), rows(a_step=False))
    assert ready.data.train.x.shape == (200, 8, 8)
    assert ready.chain.widths == (8, 60, 60, 10)


def test_a_network_that_is_no_deep_reservoir_is_refused() -> None:
    net = network()
    with pytest.raises(ContractError, match="is shown examples or sequences"):
        rule(net).predict(net, torch.zeros(3))
    with pytest.raises(ContractError, match="a hidden layer has no node"):
        rule(Network([net.stack[0], Layer(nn.Linear(NODES, NODES)), Layer(nn.Linear(NODES, 3))]))
    static = Simulated(MachZehnder())
    with pytest.raises(ContractError, match="drives nodes with memory"):
        rule(Network([Layer(nn.Linear(3, 5), static, Encode.onto(static.spec.inputs)), Layer(nn.Linear(5, 3))]))
