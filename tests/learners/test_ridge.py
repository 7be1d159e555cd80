"""A readout in closed form: exact, from sums that do not grow, with a penalty that the validation split chooses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hil.devices.meter import metered
from hil.encoding import Encode
from hil.errors import ContractError
from hil.learners.parts.ridge_sums import RidgeSums, hidden
from hil.learners.ridge import Ridge, RidgeSettings
from hil.metric import METRICS
from hil.network import Layer, Network
from hil.seeding import generator
from hil.task import Task, task_of
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

FEATURES, WIDTH = 3, 20
NUMBERS = task_of(torch.zeros(1, 2), ())
CLASSES = task_of(torch.zeros(0, dtype=torch.int64), ("a", "b", "c"))


def network(outputs: int = 2, bias: bool = True) -> Network:
    torch.manual_seed(0)
    device = metered(Simulated(MachZehnder(noise=0.0)))
    layers = [Layer(nn.Linear(FEATURES, WIDTH), device, Encode.onto(device.spec.inputs, 3.0, overflow="clip"))]
    return Network([*layers, Layer(nn.Linear(WIDTH, outputs, bias=bias))])


def examples(count: int, stream: str) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, FEATURES, generator=generator(0, 0, stream)) - 0.5
    return x, torch.stack([(2 * x).sin().sum(1), x.prod(1) * 10 + 3], 1)


def rule(net: Network, task: Task = NUMBERS, penalties: tuple[float, ...] = RidgeSettings().penalties) -> Ridge:
    return Ridge.build(net, RidgeSettings(penalties), task, generator(0, 0, "learner"))


def trained(net: Network, learner: Ridge, x: Tensor, y: Tensor, batch: int = 32) -> None:
    for number, (some, wanted) in enumerate(zip(torch.split(x, batch), torch.split(y, batch), strict=True)):
        learner.step(net, some, wanted, generator(0, number, "step"))


@pytest.mark.parametrize("bias", [True, False])
def test_the_solution_is_that_of_all_examples_at_once(bias: bool) -> None:
    net, (x, y) = network(bias=bias), examples(200, "train")
    penalty = 1e-3
    learner = rule(net, penalties=(penalty,))
    trained(net, learner, x, y)
    learner.fit(net, [examples(20, "validation")])
    h, wanted = hidden(net, x).double().numpy(), y.double().numpy()
    middle, centre = (h.mean(0), wanted.mean(0)) if bias else (0 * h.mean(0), 0 * wanted.mean(0))
    gram = (h - middle).T @ (h - middle) / len(h)
    strength = penalty * np.trace(gram) / WIDTH
    exact = np.linalg.solve(gram + strength * np.eye(WIDTH), (h - middle).T @ (wanted - centre) / len(h)).T
    synapse = net.stack[-1].synapse
    assert isinstance(synapse, nn.Linear)
    assert np.allclose(synapse.weight.numpy(), exact, atol=1e-4)
    if synapse.bias is not None:
        assert np.allclose(synapse.bias.numpy(), centre - exact @ middle, atol=1e-4)


def test_validation_outputs_are_what_the_network_gives_and_the_metric_chose_the_penalty() -> None:
    net, (x, y), (held, wanted) = network(), examples(200, "train"), examples(50, "validation")
    learner = rule(net)
    trained(net, learner, x, y)
    found = learner.fit(net, zip(torch.split(held, 20), torch.split(wanted, 20), strict=True))
    assert torch.allclose(found.outputs, learner.predict(net, held), atol=1e-4)
    score = METRICS["nrmse"].of(found.outputs, wanted)
    for penalty in (1e-9, 1e-2, 10.0):
        other = rule(net, penalties=(penalty,))
        trained(net, other, x, y)
        assert score <= METRICS["nrmse"].of(other.fit(net, [(held, wanted)]).outputs, wanted) + 1e-6
    assert score < 0.3
    assert 0 < found.train["loss"] < 0.1


def test_every_example_passes_the_device_once() -> None:
    net, (x, y), (held, wanted) = network(), examples(96, "train"), examples(30, "validation")
    learner = rule(net)
    device = net.devices[0]
    trained(net, learner, x, y)
    learner.fit(net, [(held, wanted)])
    assert device.count.passes == (96 + 30) * WIDTH  # type: ignore[attr-defined]
    assert not any(param.requires_grad for param in net.parameters())


def test_sums_do_not_depend_on_the_batches_and_go_on_from_a_checkpoint() -> None:
    net, (x, y) = network(), examples(100, "train")
    whole, pieces, first = rule(net), rule(net), rule(net)
    trained(net, whole, x, y, 100)
    trained(net, pieces, x, y, 7)
    trained(net, first, x[:49], y[:49], 7)
    later = rule(net)
    later.load_state_dict({key: value.clone() for key, value in first.state_dict().items()})
    trained(net, later, x[49:], y[49:], 7)
    for name, value in pieces.state_dict().items():
        assert torch.equal(value, later.state_dict()[name])
        assert torch.allclose(value, whole.state_dict()[name])
    assert sum(value.numel() for value in whole.state_dict().values()) < WIDTH * (WIDTH + 8)
    with pytest.raises(ValueError, match="another network"):
        rule(network(3), CLASSES).load_state_dict(first.state_dict())


def test_classes_are_fitted_as_well() -> None:
    net, (x, _), (held, _) = network(3), examples(300, "train"), examples(90, "validation")
    label, wanted = (torch.bucketize(part[:, 0].contiguous(), torch.tensor([-0.17, 0.17])) for part in (x, held))
    learner = rule(net, CLASSES)
    trained(net, learner, x, label)
    found = learner.fit(net, [(held, wanted)])
    assert METRICS["accuracy"].of(found.outputs, wanted) > 0.9


def test_what_cannot_be_fitted_is_refused() -> None:
    net = network()
    bent = Network([*net.stack[:-1], Layer(nn.Sequential(nn.Linear(WIDTH, 2)))])
    with pytest.raises(ContractError, match="only a linear readout"):
        rule(bent)
    with pytest.raises(ContractError, match="cannot be fitted"):
        rule(net).fit(net, [examples(20, "validation")])
    broken = RidgeSums(WIDTH, 2)
    broken.add(torch.full((4, WIDTH), torch.nan), torch.zeros(4, 2))
    with pytest.raises(ContractError, match="not finite"):
        broken.fit(net, [examples(20, "validation")], NUMBERS)


def test_constant_features_give_the_mean() -> None:
    net, sums = network(), RidgeSums(WIDTH, 2)
    target = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    sums.add(torch.ones(2, WIDTH), target)
    found = sums.fit(net, [examples(10, "validation")], NUMBERS)
    assert torch.allclose(found.outputs, target.mean(0).expand(10, 2))
