"""Forward-forward of sequences: each layer has the gradient of its own goodness, without credit through the node's memory."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.device import Port, Spec
from hil.encoding import Encode
from hil.errors import ConfigError, ContractError
from hil.learners.forward_forward_memory import ForwardForwardMemory, ForwardForwardMemorySettings
from hil.learners.parts.label_slot import wrong_labels
from hil.network import Layer, Network
from hil.seeding import generator
from hil.synapses import length_normalised
from hil.task import as_task

NODES, STEPS, CLASSES, WASHOUT = 7, 5, 3, 2
LABEL = torch.arange(8) % CLASSES


class Fading:
    """A node that answers sin(x[t]) and half of what it answered before; it counts sequences."""

    spec = Spec(Port("fading", -9.0, 9.0, "V"), Port("answer", -2.0, 2.0, "V"), temporal=True, provenance="twin")
    asked = 0

    def __init__(self) -> None:
        self._before: Tensor | float = 0.0

    def forward(self, drive: Tensor) -> Tensor:
        self.asked += drive.shape[1]
        found: list[Tensor] = []
        for step in drive:
            found.append(step.sin() + 0.5 * self._before)
            self._before = found[-1]
        return torch.stack(found)

    def reset(self) -> None:
        self._before = 0.0

    def close(self) -> None:
        """There is nothing to close."""


def network() -> tuple[Network, Fading]:
    torch.manual_seed(0)
    node = Fading()
    layers = [Layer(nn.Linear(a, NODES), node, Encode.onto(node.spec.inputs)) for a in (2, NODES)]
    return Network([*layers, Layer(nn.Linear(NODES, CLASSES))]), node


def learner(net: Network, **changed: object) -> ForwardForwardMemory:
    settings = {"g": {"family": "sine", "phase": math.pi / 2}, "sharpness": 2.0, "negatives": "uniform", **changed}
    task = replace(as_task(CLASSES), washout=WASHOUT)
    made = ForwardForwardMemorySettings(**settings)  # type: ignore[arg-type]
    return ForwardForwardMemory.build(net, made, task, generator(0, 0, "learner"))


def examples() -> Tensor:
    return torch.rand(len(LABEL), STEPS, 2, generator=generator(0, 0, "x")) - 0.3


def answered(drive: Tensor) -> Tensor:
    """What Fading answers to (time, batch, n), with a graph to the drive of the same step alone."""
    found: list[Tensor] = []
    for step in drive:
        found.append(step.sin() + (0.5 * found[-1].detach() if found else 0.0))
    return torch.stack(found)


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({}, 48),
        ({"loss": "logistic", "threshold": 0.4}, 48),
        ({"drive": "rectified", "peer": 0.3}, 48),
        ({"goodness": "host"}, 32),
    ],
)
def test_each_layer_has_the_gradient_of_its_own_goodness(changed: dict[str, object], asked: int) -> None:
    """Positives and negatives in one shot a layer, beside the neutral pass of the head; a layer nobody hears is not asked."""
    net, node = network()
    rule = learner(net, amplitude=1.5, straight_through=False, **changed)
    said = rule.step(net, examples(), LABEL, generator(0, 0, "step"))
    assert node.asked == asked
    wrong = wrong_labels(LABEL, CLASSES, generator(0, 0, "step"))
    one = functional.one_hot(torch.cat([LABEL, wrong]), CLASSES) * 1.5
    h = torch.cat([one.expand(STEPS, -1, -1), torch.cat([examples()] * 2).transpose(0, 1)], 2)
    for number, layer in enumerate(net.stack[:-1]):
        synapse = layer.synapse
        pre = synapse(h)
        answer = answered(pre.relu() if "drive" in changed else pre)
        y = pre.relu() if "goodness" in changed else answer
        good, bad = y[WASHOUT:].square().mean((0, 2)).chunk(2)
        both = torch.cat([2 * (0.4 - good), 2 * (bad - 0.4)])
        own = functional.softplus(both).mean() if "loss" in changed else functional.softplus(-2 * (good - bad)).mean()
        if "peer" in changed:
            activity = 0.1 * y[WASHOUT:, :8].mean((0, 1))
            on = pre[WASHOUT:, :8] > 0
            pull = (activity - activity.mean()).detach() * 0.3 * 0.1 / on.numel()
            own = own + (pull * on * pre[WASHOUT:, :8]).sum()
        for param, due in zip(synapse.parameters(), torch.autograd.grad(own, list(synapse.parameters())), strict=True):
            assert param.grad is not None
            assert torch.allclose(param.grad, due, rtol=1e-4, atol=1e-6)
        assert said[f"gap_layer{number}"] == pytest.approx((good - bad).mean().item(), abs=1e-5)
        h = length_normalised(answer.detach())


def test_the_head_learns_from_the_mean_of_what_claims_nothing() -> None:
    net, _ = network()
    rule = learner(net)
    rule.step(net, examples(), LABEL, generator(0, 0, "step"))
    trace = rule.trace(net, examples())
    assert trace.pre[0].shape == (STEPS, 8, NODES)
    head = net.stack[-1].synapse
    scores = head(trace.inputs[-1])[WASHOUT:].mean(0)
    exact = torch.autograd.grad(functional.cross_entropy(scores, LABEL), list(head.parameters()))
    assert all(torch.allclose(p.grad, e, atol=1e-6) for p, e in zip(head.parameters(), exact, strict=True))  # type: ignore[arg-type]
    rule.readouts.chosen.fill_(rule.readouts.names.index("head"))
    assert torch.allclose(rule.predict(net, examples()), scores, atol=1e-6)


def test_goodness_of_every_label_decides_whatever_the_order_of_the_batch() -> None:
    net, _ = network()
    rule = learner(net, readout="goodness")
    scores = rule.predict(net, examples())
    assert scores.shape == (8, CLASSES)
    turned = rule.predict(net, examples().flip(0))
    assert torch.allclose(turned.flip(0), scores, atol=1e-6)
    found = rule.select(net, examples(), LABEL)
    assert set(found) == {"accuracy_goodness", "accuracy_layer0", "accuracy_layer1", "accuracy_head"}


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"between": "rest"}, "rest_steps goes with rest"),
        ({"loss": "hinge"}, "logistic, pairs"),
        ({"g": {"family": "bump"}}, "family"),
        ({"readout": "layer2"}, "layer1"),
    ],
)
def test_wrong_settings_are_explained(changed: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        learner(network()[0], **changed)


def test_examples_without_time_are_refused() -> None:
    net, _ = network()
    with pytest.raises(ContractError, match="is shown sequences"):
        learner(net).step(net, torch.rand(8, 2), LABEL, generator(0, 0, "step"))
