"""Simultaneous perturbation: two passes a direction, unbiased, and weights that are whole afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from zeroth_order_net import LABEL, TWIN, flat, network, x

from hil.errors import ConfigError, LinkTimeout
from hil.learners.backprop import Backprop
from hil.learners.parts.one_pass import LossSettings
from hil.learners.parts.probe import orthogonal
from hil.learners.spsa import SPSA, SPSASettings
from hil.network import Network
from hil.seeding import generator


def step(net: Network, number: int = 0, **settings: Any) -> dict[str, float]:
    rule = SPSA.build(net, SPSASettings(**settings), 3, generator(0, 0, "learner"))
    return dict(rule.step(net, x(), LABEL, generator(0, number, "step")))


@pytest.mark.parametrize("directions", [1, 3])
def test_two_passes_a_direction_are_counted(directions: int) -> None:
    net, device = network()
    before = [p.detach().clone() for p in net.parameters()]
    metrics = step(net, directions=directions)
    assert device.count.calls == 2 * directions
    assert device.count.passes == 2 * directions * 4 * 5
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))  # to the last bit
    assert metrics.keys() == {"loss", "accuracy", "overflow"}


@pytest.mark.parametrize("perturbation", ["sign", "orthogonal", "normal"])
def test_the_mean_over_directions_is_the_gradient(perturbation: str) -> None:
    net, _ = network()
    Backprop.build(net, LossSettings(), 3, generator(0, 0, "learner"), TWIN.ideal).step(
        net, x(), LABEL, generator(0, 0, "step")
    )
    true = flat(net)
    step(net, directions=1000, size=1e-2, perturbation=perturbation)
    found = flat(net)
    assert torch.cosine_similarity(found, true, dim=0) > 0.95
    assert float(found.norm() / true.norm()) == pytest.approx(1, abs=0.15)


def test_one_direction_is_the_slope_along_it() -> None:
    """g . u / |u|^2 is the directional derivative, and for signs |g| is the same for every weight."""
    net, _ = network()
    Backprop.build(net, LossSettings(), 3, generator(0, 0, "learner"), TWIN.ideal).step(
        net, x(), LABEL, generator(0, 0, "step")
    )
    true = flat(net)
    step(net, size=1e-2)
    found = flat(net)
    assert torch.allclose(found.abs(), found.abs()[:1].expand_as(found))
    u = found.sign()
    assert float(found.abs()[0]) == pytest.approx(abs(float(true @ u)), rel=0.05)
    step(net, 1, size=1e-2)
    assert not torch.equal(found.sign(), flat(net).sign())  # other directions in another step


def test_orthogonal_directions_leave_nothing_of_one_weight_in_another() -> None:
    """As many as the order of the matrix give the gradient itself; with as many signs at random, other weights' slopes show."""
    net, _ = network()
    order = 1 << (sum(p.numel() for p in net.parameters()) - 1).bit_length()
    step(net, perturbation="each", size=1e-2)
    true = flat(net)
    off = {}
    for perturbation in ("sign", "orthogonal"):
        step(net, perturbation=perturbation, directions=order, size=1e-2)
        off[perturbation] = float((flat(net) - true).norm() / true.norm())
    assert off["orthogonal"] < 0.02
    assert off["sign"] > 0.3


@pytest.mark.parametrize("size", [1, 5, 8])
def test_orthogonal_directions_are_rows_at_right_angles_and_differ_between_steps(size: int) -> None:
    order = 1 << (size - 1).bit_length()
    drawn = torch.stack(list(orthogonal(2 * order, size, generator(0, 0, "step")))).double()
    assert drawn.shape == (2 * order, size)
    assert torch.equal(drawn.abs(), torch.ones_like(drawn))
    for rows in drawn.split(order):
        assert torch.equal(rows.T @ rows, order * torch.eye(size, dtype=torch.float64))
        assert size == 1 or len({tuple(row.tolist()) for row in rows}) == order  # no row twice
    others = [torch.stack(list(orthogonal(order, size, generator(0, number, "step")))) for number in range(1, 9)]
    assert any(not torch.equal(drawn[:order], one.double()) for one in others)


def test_a_fault_leaves_no_perturbed_weights() -> None:
    net, device = network()
    before = [p.detach().clone() for p in net.parameters()]
    answer, calls = device.inner.forward, 0

    def faulty(drive: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise LinkTimeout("no answer", where="scope")
        return answer(drive)

    device.inner.forward = faulty  # type: ignore[method-assign]
    with pytest.raises(LinkTimeout):
        step(net)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("wrong", [{"size": 0.0}, {"directions": 0}, {"directions": 1.5}, {"perturbation": "sgn"}])
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        SPSASettings(**wrong)
    assert f"[learner] {next(iter(wrong))}" in str(refusal.value)
