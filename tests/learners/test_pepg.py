"""Parameter-exploring policy gradients: two passes a direction, an unbiased direction, and widths that follow the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zeroth_order_net import LABEL, TWIN, flat, network, x

from hil.errors import ConfigError
from hil.learners.backprop import Backprop
from hil.learners.parts.one_pass import LossSettings
from hil.learners.pepg import PEPG, PEPGSettings
from hil.network import Layer, Network
from hil.seeding import generator
from hil.task import task_of


def test_two_passes_a_direction_are_counted_and_the_weights_are_put_back() -> None:
    net, device = network()
    before = [p.detach().clone() for p in net.parameters()]
    rule = PEPG.build(net, PEPGSettings(directions=3), 3, generator(0, 0, "learner"))
    metrics = rule.step(net, x(), LABEL, generator(0, 0, "step"))
    assert (device.count.calls, device.count.passes) == (6, 6 * 4 * 5)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert metrics.keys() == {"loss", "accuracy", "overflow", "sigma"}


def test_the_mean_over_directions_is_the_gradient() -> None:
    net, _ = network()
    Backprop.build(net, LossSettings(), 3, generator(0, 0, "learner"), TWIN.ideal).step(
        net, x(), LABEL, generator(0, 0, "step")
    )
    true = flat(net)
    rule = PEPG.build(net, PEPGSettings(directions=2000, size=0.01), 3, generator(0, 0, "learner"))
    rule.step(net, x(), LABEL, generator(0, 0, "step"))
    found = flat(net)
    assert torch.cosine_similarity(found, true, dim=0) > 0.97
    assert float(found.norm() / true.norm()) == pytest.approx(1, abs=0.15)


def widths(directions: int) -> Tensor:
    """Widths after 60 steps at the minimum of 1/2 w_0^2; the other weight changes nothing."""
    net = Network([Layer(nn.Linear(2, 1, bias=False))])
    nn.init.zeros_(net.stack[0].synapse.weight)  # type: ignore[arg-type]
    settings = PEPGSettings(size=0.1, directions=directions, sigma_rate=0.1)
    rule = PEPG.build(net, settings, task_of(torch.zeros(1, 1), ()), generator(0, 0, "learner"))
    for number in range(60):
        rule.step(net, torch.tensor([[1.0, 0.0]]), torch.zeros(1, 1), generator(0, number, "step"))
    return rule.get_buffer("sigma0").flatten()


def test_a_width_shrinks_where_the_loss_is_steep_and_stays_where_it_is_flat() -> None:
    steep, even = widths(8)
    assert steep < 0.02
    assert 0.05 < even < 0.2
    assert torch.equal(widths(1), torch.full((2,), 0.1))  # no baseline, so no change


@pytest.mark.parametrize("wrong", [{"size": 0.0}, {"directions": 0}, {"sigma_rate": -1.0}])
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        PEPGSettings(**wrong)
    assert f"[learner] {next(iter(wrong))}" in str(refusal.value)
