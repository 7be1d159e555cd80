from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError, OutOfRange
from hil.learners.parts.label_slot import claiming, wrong_labels
from hil.learners.phyll import PhyLL, PhyLLSettings
from hil.network import Layer, Network
from hil.seeding import generator
from hil.synapses import BesideLinear, behind_devices, length_normalised
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

LABEL = torch.tensor([0, 2, 1, 2, 0])


def x() -> Tensor:
    return torch.rand(5, 8, generator=generator(0, 0, "x"))


def network(concatenate: bool = True, noise: float = 0.0) -> Network:
    torch.manual_seed(0)
    device = Simulated(MachZehnder(noise=noise), seed=1)
    encode = Encode.onto(device.spec.inputs, gain=0.5, overflow="clip")
    made = behind_devices([8, 12, 10], concatenate)
    return Network([*(Layer(s, device, encode, Decode(0.18, 0.18)) for s in made[:-1]), Layer(made[-1])])


def learner(net: Network, **changed: object) -> PhyLL:
    return PhyLL.build(net, PhyLLSettings(**changed), 3, generator(0, 0, "l"))  # type: ignore[arg-type]


def rng(step: int = 0) -> torch.Generator:
    return generator(0, step, "step")


def own_loss(synapse: nn.Module, inputs: Tensor, direction: Tensor, theta: float, phi: str) -> Tensor:
    z = synapse(inputs)
    good, bad = torch.cosine_similarity(z.abs() if phi == "abs" else z.relu(), direction.expand_as(z)).chunk(2)
    return nn.functional.softplus(-theta * (good - bad)).mean()


@pytest.mark.parametrize("phi", ["abs", "relu"])
@pytest.mark.parametrize("concatenate", [True, False])
def test_step_is_the_gradient_of_every_layers_own_contrast(phi: str, concatenate: bool) -> None:
    net = network(concatenate)
    rule = learner(net, theta=3.0, phi=phi)
    metrics = rule.step(net, x(), LABEL, rng())
    wrong = wrong_labels(LABEL, 3, rng())
    sent = length_normalised(torch.cat([claiming(x(), LABEL, 3, 1.0), claiming(x(), wrong, 3, 1.0)]))
    losses = []
    for number in (1, 2):
        answer = net.stack[number - 1].measure(sent)
        inputs = torch.cat([answer, sent], 1) if concatenate else answer
        synapse = net.stack[number].synapse
        loss = own_loss(synapse, inputs, rule.get_buffer(f"direction{number}"), 3.0, phi)
        exact = torch.autograd.grad(loss, list(synapse.parameters()))
        for param, grad in zip(synapse.parameters(), exact, strict=True):
            assert torch.allclose(param.grad, grad, atol=1e-6)  # type: ignore[arg-type]
        losses.append(loss.item())
        sent = synapse(inputs).detach()
    assert metrics["loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)


def test_inner_steps_are_a_descent_on_one_measurement() -> None:
    net = network()
    before = [p.detach().clone() for p in net.parameters()]
    device = net.devices[0]
    assert isinstance(device, Simulated)
    rule = learner(net, inner_steps=4, inner_rate=0.2)
    rule.step(net, x(), LABEL, rng())
    assert device.snapshot()["calls"] == 2  # the layers, not the inner steps
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    found = [p.grad.clone() for p in net.parameters()]  # type: ignore[union-attr]
    plain = learner(net, inner_steps=1)
    plain.step(net, x(), LABEL, rng())
    first = net.stack[1].synapse
    wrong = wrong_labels(LABEL, 3, rng())
    sent = length_normalised(torch.cat([claiming(x(), LABEL, 3, 1.0), claiming(x(), wrong, 3, 1.0)]))
    inputs = torch.cat([net.stack[0].measure(sent), sent], 1)
    weights = list(first.parameters())
    start = [w.detach().clone() for w in weights]
    for _ in range(4):
        loss = own_loss(first, inputs, rule.direction1, 4.0, "abs")  # type: ignore[arg-type]
        grads = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, grad in zip(weights, grads, strict=True):
                weight -= 0.2 * grad
    for weight, begun, grad in zip(weights, start, found, strict=False):
        assert torch.allclose((begun - weight) / 0.2, grad, atol=1e-5)


def test_directions_are_fixed_unit_vectors_of_the_state() -> None:
    net = network()
    rule = learner(net)
    state = rule.state_dict()
    assert set(state) == {"direction1", "direction2"}
    assert all(float(value.norm()) == pytest.approx(1, abs=1e-5) for value in state.values())
    before = {name: value.clone() for name, value in state.items()}
    rule.step(net, x(), LABEL, rng())
    assert all(torch.equal(value, before[name]) for name, value in rule.state_dict().items())


def test_label_in_the_slot_is_not_seen_by_prediction() -> None:
    net = network()
    rule = learner(net)
    assert torch.allclose(rule.predict(net, x()), rule.predict(net, claiming(x(), LABEL, 3, 7.0)), atol=1e-6)


def test_clouds_are_learned_with_noise() -> None:
    source = generator(3, 0, "clouds")
    label = torch.arange(120) % 3
    points = torch.randn(3, 8, generator=source)[label] + 0.3 * torch.randn(120, 8, generator=source)
    net = network(noise=1.0)
    rule = learner(net, amplitude=3.0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(80):
        rule.step(net, points, label, rng(step))
        optimizer.step()
    assert float((rule.predict(net, points).argmax(1) == label).float().mean()) > 0.9


def test_a_nan_weight_sends_nothing_behind_it() -> None:
    net = network()
    with torch.no_grad():
        next(net.parameters())[0, 0] = math.nan
    with pytest.raises(OutOfRange, match="NaN"):
        learner(net).step(net, x(), LABEL, rng())


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"theta": 0.0}, "theta"),
        ({"phi": "gelu"}, "abs, relu"),
        ({"inner_steps": 0}, "inner_steps"),
        ({"inner_rate": 0.0}, "inner_rate"),
    ],
)
def test_wrong_settings_are_explained(changed: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        PhyLLSettings(**changed)  # type: ignore[arg-type]


def test_networks_that_do_not_fit_are_explained() -> None:
    with pytest.raises(ContractError, match="no layer has weights"):
        learner(Network([Layer(nn.Identity())]))
    with pytest.raises(ContractError, match="no device before"):
        learner(Network([Layer(BesideLinear(4, 3))]))
