"""Mono-Forward: one pass, every layer the gradient of its own cross entropy, and matrices that learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.devices.meter import Metered
from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError
from hil.learners.mono_forward import MonoForward, MonoForwardSettings
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.mzi_mesh import MZIMesh
from sim_devices.scattering import Scattering
from sim_devices.simulated import Simulated

LABEL = torch.tensor([0, 2, 1, 2, 0])


def x() -> Tensor:
    return torch.randn(5, 6, generator=generator(0, 0, "x"))


def network(wire: bool = False) -> tuple[Network, Metered]:
    torch.manual_seed(0)
    device = Metered(Simulated(MachZehnder(noise=0.0)))
    encode, decode = Encode.onto(device.spec.inputs, 0.5), Decode(0.18, 0.18)
    synapses = [nn.Linear(6, 8), nn.Linear(8, 7)]
    hidden = [Layer(synapse) if wire else Layer(synapse, device, encode, decode) for synapse in synapses]
    return Network([*hidden, Layer(nn.Linear(7, 3))]), device


def learner(net: Network, **changed: object) -> MonoForward:
    return MonoForward.build(net, MonoForwardSettings(**changed), 3, generator(0, 0, "l"))  # type: ignore[arg-type]


def step(rule: MonoForward, net: Network) -> dict[str, float]:
    return dict(rule.step(net, x(), LABEL, generator(0, 0, "step")))


def test_without_a_device_it_is_the_gradient_of_every_layers_own_loss() -> None:
    net, _ = network(wire=True)
    rule = learner(net)
    matrix = rule.get_buffer("M0").clone().requires_grad_(True)
    metrics = step(rule, net)
    first, second, last = (layer.synapse for layer in net.stack)
    a = first(x())
    b = second(a.detach())
    losses = [functional.cross_entropy(a @ matrix.t(), LABEL), functional.cross_entropy(last(b), LABEL)]
    params = [*first.parameters(), *second.parameters(), *last.parameters()]
    wanted = torch.autograd.grad(losses[0] + losses[1], [*params, matrix])
    for param, due in zip(params, wanted, strict=False):
        assert param.grad is not None
        assert torch.allclose(param.grad, due, atol=1e-6)
    moved = rule.get_buffer("M0") - matrix.detach()  # the first step of Adam: the rate against the sign
    assert torch.allclose(moved, -1e-3 * wanted[-1].sign(), atol=1e-5)
    assert metrics["loss"] == pytest.approx(float(losses[0].detach() + losses[1].detach()) / 2)


def test_behind_a_device_g_stands_in_for_its_slope_and_it_is_asked_once() -> None:
    net, device = network()
    rule = learner(net, g={"family": "sine", "phase": 0.6})
    matrix = rule.get_buffer("M0").clone()
    step(rule, net)
    assert (device.count.calls, device.count.passes) == (2, 5 * (8 + 7))
    first = net.stack[0].synapse
    pre = first(x()).detach()
    answer = net.stack[0].measure(pre)
    error = ((answer @ matrix.t()).softmax(1) - functional.one_hot(LABEL, 3)) / 5
    delta = (error @ matrix) * torch.sin(pre + 0.6)
    assert isinstance(first, nn.Linear)
    assert first.weight.grad is not None
    assert torch.allclose(first.weight.grad, delta.t() @ x(), atol=1e-6)


def test_the_readout_is_chosen_on_validation_and_kept() -> None:
    net, _ = network()
    rule = learner(net)
    found = rule.select(net, x(), LABEL)
    assert found.keys() == {"accuracy_last", "accuracy_sum", "accuracy_layer0"}
    assert found[f"accuracy_{rule.readouts.name}"] == max(found.values())
    trace = net.forward(x())
    first = trace.outputs[0] @ rule.get_buffer("M0").t()
    for name, wanted in (("last", trace.outputs[-1]), ("layer0", first), ("sum", first + trace.outputs[-1])):
        assert torch.allclose(learner(net, readout=name).predict(net, x()), wanted, atol=1e-6)
    other = learner(net)
    other.load_state_dict(rule.state_dict())
    assert other.readouts.name == rule.readouts.name


def test_all_matrices_learn() -> None:
    """Both layers come to tell the examples apart; g has the sign of the slope."""
    net, _ = network()
    rule = learner(net, rate=0.01, g={"family": "sine", "phase": 1.2})
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    begun = step(rule, net)
    for _ in range(150):
        ended = step(rule, net)
        optimizer.step()
    assert ended["loss"] < 0.5 * begun["loss"]
    assert ended["accuracy"] == ended["accuracy_layer0"] == 1.0


def test_what_does_not_fit_is_refused() -> None:
    scattering = Simulated(Scattering(macropixels=9, pixels=16))
    encode = Encode.onto(scattering.spec.inputs, 10.0, overflow="clip")
    with pytest.raises(ContractError, match="another number"):
        learner(Network([Layer(nn.Linear(6, 9), scattering, encode), Layer(nn.Linear(16, 3))]))
    mesh = Simulated(MZIMesh(modes=4))  # mixes, but gives as many values as it takes: g is a choice there, as in aDFA
    learner(Network([Layer(nn.Linear(6, 4), mesh, Encode.onto(mesh.spec.inputs)), Layer(nn.Linear(4, 3))]))
    with pytest.raises(ContractError, match="hidden layer"):
        learner(Network([Layer(nn.Linear(6, 3))]))
    with pytest.raises(ConfigError, match="readout"):
        learner(network()[0], readout="best")
