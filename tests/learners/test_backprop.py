from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hil.encoding import Decode, Encode
from hil.errors import ConfigError, OutOfRange
from hil.learners.backprop import Backprop
from hil.learners.parts.one_pass import LossSettings
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

LABEL = torch.tensor([0, 2, 1, 2])


def x() -> Tensor:
    return torch.randn(4, 6, generator=generator(0, 0, "x"))


def network(noise: float = 0.0, overflow: str = "clip") -> tuple[Network, Simulated]:
    torch.manual_seed(0)
    device = Simulated(MachZehnder(noise=noise), seed=1)
    encode = Encode.onto(device.spec.inputs, gain=0.7, overflow=overflow)  # type: ignore[arg-type]
    decode = Decode(0.18, 0.18)
    net = Network([*(Layer(nn.Linear(n, 7), device, encode, decode) for n in (6, 7)), Layer(nn.Linear(7, 3))])
    return net, device


def learner(net: Network, loss: str = "cross_entropy") -> Backprop:
    settings = LossSettings(loss)  # type: ignore[arg-type]
    return Backprop.build(net, settings, 3, generator(0, 0, "learner"), MachZehnder().ideal)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_gradient_is_that_of_finite_differences(loss: str) -> None:
    net, _ = network()
    rule = learner(net, loss)
    rule.step(net, x(), LABEL, generator(0, 0, "step"))
    weight, small = next(net.parameters()), 1e-2
    assert weight.grad is not None
    found = weight.grad[2, 3].item()

    def loss_at(value: float) -> float:
        with torch.no_grad():
            weight[2, 3] = value
        return float(rule.loss.of(rule.modelled(net, x()).outputs[-1].detach().double(), LABEL))

    middle = weight[2, 3].item()
    assert found == pytest.approx((loss_at(middle + small) - loss_at(middle - small)) / (2 * small), rel=2e-2)


def test_a_step_never_asks_the_device_and_prediction_does() -> None:
    net, device = network(noise=1.0)
    rule = learner(net)
    metrics = rule.step(net, x(), LABEL, generator(0, 0, "step"))
    assert device.snapshot()["calls"] == 0
    scores = rule.predict(net, x())
    assert device.snapshot()["calls"] == 2
    assert scores.shape == (4, 3)
    assert not scores.requires_grad
    assert set(metrics) == {"loss", "accuracy", "overflow"}


def test_model_and_noiseless_device_agree() -> None:
    net, _ = network()
    rule = learner(net)
    assert torch.allclose(rule.predict(net, x()), rule.modelled(net, x()).outputs[-1], atol=1e-5)


def test_a_drive_the_device_would_refuse_is_refused() -> None:
    net, _ = network(overflow="refuse")
    with torch.no_grad():
        next(net.parameters()).mul_(1000)
    with pytest.raises(OutOfRange):
        learner(net).step(net, x(), LABEL, generator(0, 0, "step"))


def test_old_gradients_are_overwritten() -> None:
    net, _ = network()
    rule = learner(net)
    for p in net.parameters():
        p.grad = torch.full_like(p, 7.0)
    rule.step(net, x(), LABEL, generator(0, 0, "step"))
    once = [p.grad for p in net.parameters()]
    rule.step(net, x(), LABEL, generator(0, 0, "step"))
    assert all(torch.equal(a, p.grad) for a, p in zip(once, net.parameters(), strict=True) if a is not None)  # type: ignore[arg-type]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="hinge"):
        LossSettings("hinge")  # type: ignore[arg-type]
    net, _ = network()
    with pytest.raises(ConfigError, match="model"):
        Backprop.build(net, LossSettings(), 3, generator(0, 0, "learner"), None)
