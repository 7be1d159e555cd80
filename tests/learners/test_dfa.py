from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.encoding import Decode, Encode
from hil.errors import ConfigError
from hil.learners.dfa import DFA, DFASettings
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

LABEL = torch.tensor([0, 2, 1, 2])


def x() -> Tensor:
    return torch.randn(4, 6, generator=generator(0, 0, "x"))


def deltas(net: Network, rule: DFA) -> list[Tensor]:
    """What the bias gradients of a batch of one say: the deltas themselves."""
    rule.step(net, x()[:1], LABEL[:1], generator(0, 0, "step"))
    return [layer.synapse.bias.grad for layer in net.stack]  # type: ignore[union-attr,misc]


def test_slope_is_that_of_the_model_between_encode_and_decode() -> None:
    torch.manual_seed(0)
    twin = MachZehnder(noise=0.0)
    device = Simulated(twin)
    encode = Encode.onto(device.spec.inputs, gain=2.0, overflow="clip")
    net = Network([Layer(nn.Linear(6, 7), device, encode, Decode(0.1, 0.2)), Layer(nn.Linear(7, 3))])
    with torch.no_grad():
        net.stack[0].synapse.bias[0] = 50.0  # type: ignore[union-attr,index]
    rule = DFA.build(net, DFASettings(), 3, generator(0, 0, "learner"), twin.ideal)
    hidden = deltas(net, rule)[0]
    trace = net(x()[:1])
    error = trace.outputs[-1].softmax(1) - torch.eye(3)[LABEL[:1]]
    pre, small = trace.pre[0].double(), 1e-5
    layer = net.stack[0]
    steep = (layer.through(twin.ideal, pre + small) - layer.through(twin.ideal, pre - small)) / (2 * small)
    wanted = (error @ rule.projection.get_buffer("B0").T).double() * steep
    assert torch.allclose(hidden.double(), wanted.flatten(), atol=1e-6)
    assert hidden[0] == 0  # clipped: nothing moves


class Mixing:
    """A device that mixes five drives into four readings."""

    spec = Spec(Port("in", -10, 10, size=5), Port("out", -100, 100, size=4), provenance="twin")
    weights = torch.arange(20.0).view(5, 4) / 10

    def program(self, params: Tensor) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weights).tanh()


def test_a_node_that_mixes_is_treated_exactly() -> None:
    torch.manual_seed(0)
    device = Mixing()
    net = Network([Layer(nn.Linear(6, 5), device, Encode.onto(device.spec.inputs, 0.2)), Layer(nn.Linear(4, 3))])
    rule = DFA.build(net, DFASettings(), 3, generator(0, 0, "learner"), device.forward)
    assert rule.projection.shapes == ((4,),)
    hidden = deltas(net, rule)[0]
    trace = net(x()[:1])
    error = trace.outputs[-1].softmax(1) - torch.eye(3)[LABEL[:1]]
    slope = 1 - trace.outputs[0].square()
    wanted = ((error @ rule.projection.get_buffer("B0").T) * slope) @ device.weights.T * 0.2
    assert torch.allclose(hidden, wanted.flatten(), atol=1e-6)


def test_forward_pass_is_measured() -> None:
    torch.manual_seed(0)
    twin = MachZehnder(noise=1.0, thermal_a_per_rthz=1e-8)
    device = Simulated(twin, seed=3)
    encode = Encode.onto(device.spec.inputs)
    net = Network([Layer(nn.Linear(6, 7), device, encode, Decode(0.18, 0.18)), Layer(nn.Linear(7, 3))])
    rule = DFA.build(net, DFASettings(), 3, generator(0, 0, "learner"), twin.ideal)
    one, other = (rule.step(net, x(), LABEL, generator(0, 0, "step"))["loss"] for _ in range(2))
    assert one != other  # noise of two passes
    assert device.snapshot()["calls"] == 2


@pytest.mark.parametrize("settings", [{"scale": -1.0}, {"distribution": "flat"}, {"loss": "hinge"}, {"sparsity": 2.0}])
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        DFASettings(**settings)  # type: ignore[arg-type]


def test_without_a_model_there_is_nothing_to_differentiate() -> None:
    net = Network([Layer(nn.Linear(6, 3))])
    with pytest.raises(ConfigError, match=r"\[twin\]"):
        DFA.build(net, DFASettings(), 3, generator(0, 0, "learner"), None)
