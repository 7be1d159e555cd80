"""Separable CMA-ES: one pass a member, convergence on a badly scaled bowl, and variances that learn the scales."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zeroth_order_net import LABEL, network, x

from hil.errors import ConfigError
from hil.learners.cma_es import CMAES, CMAESSettings, Constants
from hil.network import Layer, Network
from hil.seeding import generator
from hil.task import task_of

NUMBERS = task_of(torch.zeros(1, 1), ())
CURVATURES = torch.logspace(0, 4, 10)


def test_one_pass_a_member_is_counted_and_the_weights_are_put_back() -> None:
    net, device = network()
    before = [p.detach().clone() for p in net.parameters()]
    rule = CMAES.build(net, CMAESSettings(population=7), 3, generator(0, 0, "learner"))
    metrics = rule.step(net, x(), LABEL, generator(0, 0, "step"))
    assert (device.count.calls, device.count.passes) == (7, 7 * 4 * 5)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert metrics.keys() == {"loss", "accuracy", "overflow", "sigma"}
    assert CMAES.build(net, CMAESSettings(), 3, generator(0, 0, "learner")).population == 4 + 11  # n = 53


def bowl(steps: int, frozen: bool = False) -> tuple[Tensor, CMAES]:
    """The weights after `steps` generations on sum_i h_i w_i^2 / 20, all 1 before; h the CURVATURES. frozen: no variances."""
    net = Network([Layer(nn.Linear(10, 1, bias=False))])
    weight = net.stack[0].synapse.weight
    assert isinstance(weight, nn.Parameter)
    nn.init.ones_(weight)
    rule = CMAES.build(net, CMAESSettings(size=0.3), NUMBERS, generator(0, 0, "learner"))
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for number in range(steps):
        rule.step(net, CURVATURES.sqrt().diag(), torch.zeros(10, 1), generator(0, number, "step"))
        optimizer.step()
        if frozen:
            rule.variance.fill_(1.0)
    return weight.detach().flatten(), rule


def test_a_badly_scaled_bowl_is_descended() -> None:
    found, rule = bowl(500)
    assert float((CURVATURES * found.square()).sum()) < 1e-6  # from 2.8e4
    scaled = (rule.variance * CURVATURES).log10()  # all alike for variances in proportion to 1 / h
    assert float(scaled.max() - scaled.min()) < 1.5  # of four decades
    still, _ = bowl(500, frozen=True)
    assert float((CURVATURES * still.square()).sum()) > 1e-2


def test_the_step_size_grows_far_from_the_minimum() -> None:
    _, rule = bowl(0)
    net = Network([Layer(nn.Linear(10, 1, bias=False))])
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for number in range(30):  # a slope without an end: 1/2 (w . 1 - 1e4)^2
        rule.step(net, torch.ones(1, 10), torch.full((1, 1), 1e4), generator(0, number, "step"))
        optimizer.step()
    assert float(rule.sigma) > 3.0  # 0.3 before


def test_constants() -> None:
    own = Constants.of(100, 17)
    assert sum(own.weights) == pytest.approx(1)
    assert list(own.weights) == sorted(own.weights, reverse=True)
    assert len(own.weights) == 8
    assert 1 < own.mass < 8
    drawn = torch.randn(20_000, 100, generator=generator(0, 0, "normal")).norm(dim=1).mean()
    assert own.length == pytest.approx(float(drawn), rel=1e-3)


@pytest.mark.parametrize("wrong", [{"size": 0.0}, {"population": 1}])
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        CMAESSettings(**wrong)
    assert f"[learner] {next(iter(wrong))}" in str(refusal.value)
