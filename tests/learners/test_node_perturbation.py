"""Node perturbation: a pass a direction and one more, the gradient on the average, and what is programmed learns with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from zeroth_order_net import LABEL, TWIN, flat, network, x

import hil
from hil.encoding import Encode, Levels
from hil.errors import ConfigError
from hil.learners.backprop import Backprop
from hil.learners.node_perturbation import NodePerturbation, NodePerturbationSettings
from hil.learners.parts.one_pass import LossSettings
from hil.learners.pat import PAT
from hil.network import Layer, Network
from hil.seeding import generator
from hil.task import Loss
from sim_devices.dopant_network import DopantNetwork
from sim_devices.simulated import Simulated


def rule(net: Network, outputs: int, **settings: Any) -> NodePerturbation:
    return NodePerturbation.build(net, NodePerturbationSettings(**settings), outputs, generator(0, 0, "learner"))


def test_a_pass_a_direction_and_one_more_and_the_mean_is_the_gradient() -> None:
    net, device = network()
    Backprop.build(net, LossSettings(), 3, generator(0, 0, "learner"), TWIN.ideal).step(net, x(), LABEL, generator(0, 0, "s"))
    true = flat(net)
    metrics = rule(net, 3, directions=400, size=0.01).step(net, x(), LABEL, generator(0, 0, "step"))
    assert (device.count.calls, device.count.passes) == (401, 401 * 4 * 5)
    assert metrics.keys() == {"loss", "accuracy", "overflow"}
    found = flat(net)
    assert torch.cosine_similarity(found, true, dim=0) > 0.98
    assert float(found.norm()) == pytest.approx(float(true.norm()), rel=0.1)
    readout = net.stack[-1].synapse.weight.grad.numel() + 3  # type: ignore[union-attr, operator]
    assert torch.allclose(found[-readout:], true[-readout:], atol=1e-6)  # exact


def test_what_is_programmed_gets_the_gradient_of_the_twin_and_is_put_back() -> None:
    twin = DopantNetwork(specimen=1, noise=0.0)
    assert twin.spec.params is not None
    torch.manual_seed(0)
    params = nn.Parameter(torch.tensor([0.3, -0.2, 0.1, 0.5, -0.4]))
    before = params.detach().clone()
    encode, decode = Encode.onto(twin.spec.inputs, 0.4, -0.3, "clip"), hil.Decode(0.0, 1e-8)
    first = Layer(nn.Linear(2, 2), Simulated(twin), encode, decode, params, Levels.onto(twin.spec.params))
    net = Network([first, Layer(nn.Linear(1, 2))])
    at, label = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    PAT.build(net, LossSettings(), 2, generator(0, 0, "learner"), twin.settled).step(net, at, label, generator(0, 0, "s"))
    true = params.grad.clone()  # type: ignore[union-attr]
    rule(net, 2, directions=500, size=0.01, params_size=0.02).step(net, at, label, generator(0, 0, "step"))
    assert params.grad is not None
    assert torch.cosine_similarity(params.grad, true, dim=0) > 0.95
    assert float(params.grad.norm()) == pytest.approx(float(true.norm()), rel=0.2)
    assert torch.equal(params.detach(), before)


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "weighed", "own"])
def test_the_mean_of_the_losses_of_examples_is_that_of_the_batch(name: str) -> None:
    def own(scores: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return (scores.sum(1) - label).square().mean()

    loss = {"weighed": Loss(weights=(0.5, 1.5, 1.0)), "own": Loss("own", own)}.get(name) or Loss(name)
    scores = torch.randn(4, 3, generator=generator(0, 0, "scores"))
    assert float(loss.each(scores, LABEL).mean()) == pytest.approx(float(loss.of(scores, LABEL)), rel=1e-5)


@pytest.mark.parametrize("wrong", [{"size": 0.0}, {"directions": 0}, {"params_size": -1.0}])
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        NodePerturbationSettings(**wrong)
