"""PAT: slopes of the model at measured points."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hil.encoding import Decode, Encode
from hil.errors import ConfigError
from hil.learners.backprop import Backprop
from hil.learners.parts.one_pass import LossSettings
from hil.learners.pat import PAT
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

LABEL = torch.tensor([0, 2, 1, 2])
DECODE = Decode(0.18, 0.18)


def x() -> Tensor:
    return torch.randn(4, 6, generator=generator(0, 0, "x"))


def network(twin: MachZehnder, middle: nn.Module | None = None) -> Network:
    torch.manual_seed(0)
    device = Simulated(twin, seed=3)
    encode = Encode.onto(device.spec.inputs, 1.5, overflow="clip")
    second = nn.Linear(7, 7) if middle is None else middle
    return Network(
        [Layer(nn.Linear(6, 7), device, encode, DECODE), Layer(second, device, encode, DECODE), Layer(nn.Linear(7, 3))]
    )


def gradients(net: Network, rule: PAT | Backprop) -> list[Tensor]:
    rule.step(net, x(), LABEL, generator(0, 0, "step"))
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("middle", [None, lambda: nn.Sequential(nn.Linear(7, 7), nn.LayerNorm(7))], ids=["linear", "module"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_with_a_true_model_and_no_noise_it_is_backpropagation(middle, loss) -> None:  # type: ignore[no-untyped-def]
    twin = MachZehnder(noise=0.0)
    net = network(twin, middle and middle())
    rng = generator(0, 0, "learner")
    pat = gradients(net, PAT.build(net, LossSettings(loss), 3, rng, twin.ideal))
    exact = gradients(net, Backprop.build(net, LossSettings(loss), 3, rng, twin.ideal))
    assert len(pat) == len(exact) == len(list(net.parameters()))
    for one, other in zip(pat, exact, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_slopes_are_the_models_at_what_was_measured() -> None:
    """The formula, written out, with a model that is wrong by its half-wave voltage and its bias."""
    twin, wrong = MachZehnder(noise=0.0), MachZehnder(v_pi_v=4.2, phase_rad=-1.2)
    net = network(twin)
    rule = PAT.build(net, LossSettings(), 3, generator(0, 0, "learner"), wrong.ideal)
    found = gradients(net, rule)
    trace = net(x())
    delta = (trace.outputs[-1].softmax(1) - torch.eye(3)[LABEL]) / 4
    for number in (1, 0):
        layer, above = net.stack[number], net.stack[number + 1].synapse
        pre = trace.pre[number].double()
        small = 1e-5
        steep = (layer.through(wrong.ideal, pre + small) - layer.through(wrong.ideal, pre - small)) / (2 * small)
        assert isinstance(above, nn.Linear)
        delta = ((delta @ above.weight) * steep).float()
        assert torch.allclose(found[2 * number], delta.t() @ trace.inputs[number], atol=1e-6)
    believed = gradients(net, Backprop.build(net, LossSettings(), 3, generator(0, 0, "learner"), wrong.ideal))
    assert not torch.allclose(found[0], believed[0], atol=1e-3)


def test_a_frozen_synapse_lets_the_error_through() -> None:
    twin = MachZehnder(noise=0.0)
    net = network(twin)
    net.stack[1].synapse.requires_grad_(False)
    PAT.build(net, LossSettings(), 3, generator(0, 0, "learner"), twin.ideal).step(net, x(), LABEL, generator(0, 0, "step"))
    assert net.stack[1].synapse.weight.grad is None
    assert net.stack[0].synapse.weight.grad.any()  # type: ignore[union-attr,operator]


def test_needs_a_model_and_a_known_loss() -> None:
    with pytest.raises(ConfigError, match="there is none"):
        PAT.build(network(MachZehnder()), LossSettings(), 3, generator(0, 0, "learner"))
    with pytest.raises(ConfigError, match="no such loss"):
        LossSettings("hinge")  # type: ignore[arg-type]
