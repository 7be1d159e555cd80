from __future__ import annotations

import pytest
import torch
from spiking_net import LABEL, close, examples, gradients, network, rng, stepped

from hil.errors import OutOfRange
from hil.learners.bptt import BPTT
from hil.learners.parts.neuron_model import bump, modelled
from hil.learners.parts.rate_learner import OnlineSettings
from hil.seeding import generator
from sim_devices.lif_array import LifArray, Neuron

SETTINGS = OnlineSettings(time_steps=5, mse_share=0.0)


KINDS = [
    Neuron(), Neuron(leak=1.0), Neuron(leak=0.8, v_th=0.7, v_rest=-0.2), Neuron(reset="hard"),
    Neuron(leak=0.8, v_rest=0.3, reset="hard", refractory=2), Neuron(refractory=1),
]  # fmt: skip


@pytest.mark.parametrize("neuron", KINDS)
def test_the_model_spikes_and_slopes_as_the_twin_does(neuron: Neuron) -> None:
    currents = torch.randn(8, 4, 9, generator=rng())
    mine, theirs = currents.clone().requires_grad_(True), currents.clone().requires_grad_(True)
    weight = torch.randn(8, 4, 9, generator=rng(1))
    twin = LifArray(9, neuron)
    assert twin.spec.neurons is not None
    spikes = modelled(twin.spec.neurons, mine)
    wanted = twin.surrogate(theirs, "sigmoid")
    assert torch.equal(spikes, wanted)
    assert spikes.any()
    (spikes * weight).sum().backward()
    (wanted * weight).sum().backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-5)


def test_gradient_is_that_of_the_twin_differentiated_through_time() -> None:
    net = network()
    found = stepped(net, BPTT(SETTINGS, 3))
    twins = [LifArray(14, Neuron()), LifArray(11, Neuron())]
    net.zero_grad()
    h = examples().expand(5, -1, -1)
    for layer, twin in zip(net.stack, twins, strict=False):
        h = twin.surrogate(layer.synapse(h), "sigmoid")
    torch.nn.functional.cross_entropy(net.stack[2].synapse(h).mean(0), LABEL).backward()
    assert close(found, gradients(net), 1e-4)


def test_a_step_asks_no_device_and_refuses_what_the_device_would() -> None:
    net = network(Neuron(limit=0.01))
    with pytest.raises(OutOfRange):
        BPTT(SETTINGS, 3).step(net, examples(), LABEL, rng())

    net = network()
    net.stack[0].device = net.stack[1].device = None
    assert BPTT.build(net, SETTINGS, 3, generator(0, 0, "l")).step(net, examples(), LABEL, rng())["loss"] > 0


def test_slope_of_a_spike_is_highest_at_threshold_and_even() -> None:
    at = torch.tensor([-1.0, 0.0, 1.0])
    values = bump(at)
    assert values[1] == 1.0
    assert values[0] == pytest.approx(float(values[2]), rel=1e-4)


def test_dropout_draws_from_the_generator_alone() -> None:
    net = network()
    learner = BPTT.build(net, OnlineSettings(time_steps=3, dropout=0.5), 3, generator(0, 0, "l"))
    assert close(stepped(net, learner), stepped(net, learner), 0.0)
    before = gradients(net)
    learner.step(net, examples(), LABEL, rng(1))
    assert not close(before, gradients(net))
