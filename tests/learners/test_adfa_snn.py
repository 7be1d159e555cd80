from __future__ import annotations

import pytest
import torch
from spiking_net import LABEL, close, examples, gradients, network, rng, stepped
from torch import Tensor

from hil.device import ArraySpec
from hil.encoding import Encode
from hil.errors import ConfigError, ContractError, OutOfRange
from hil.learners.adfa_snn import ADFASNN, ADFASNNSettings
from hil.learners.parts.neuron_model import Belief, Membrane, believed
from hil.learners.parts.spiking_pass import over_time
from hil.learners.saf import SAFE
from hil.network import Layer, Network
from hil.neuron import NeuronModel
from hil.seeding import generator
from hil.synapses import conv, flat_widths
from hil.task import Loss
from hil.training.outcome import misbelieved
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import SpikingArray, TwinChip

STEPS = 5


def learner(net: Network, **changed: object) -> ADFASNN:
    settings = ADFASNNSettings(**{"time_steps": STEPS, **changed})  # type: ignore[arg-type]
    return ADFASNN.build(net, settings, 3, generator(0, 0, "l"))


def recorded(net: Network, x: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """Of each hidden layer (spikes, membranes), all steps at once; membranes as the arrays themselves report them."""
    net.reset()
    found, h = [], (examples() if x is None else x).expand(STEPS, -1, -1)
    with torch.no_grad():
        for layer in net.stack[:-1]:
            h = layer.measure(over_time(layer.synapse, h))
            array = layer.device
            assert isinstance(array, SpikingArray)
            found.append((h, array.monitor().clone()))
    return found


@pytest.mark.parametrize("neuron", [Neuron(), Neuron(v_rest=-0.5, reset="hard"), Neuron(leak=0.75, refractory=1)])
def test_the_host_follows_the_membranes_of_the_device(neuron: Neuron) -> None:
    net = network(neuron)
    with torch.no_grad():
        current = net.stack[0].synapse(examples())
    spikes, membranes = recorded(net)[0]
    followed = Membrane(believed(net, Belief()))
    for t in range(STEPS):
        assert torch.equal(followed.advance(current, spikes[t]), membranes[t])


def test_what_is_misbelieved_of_a_neuron_does_not_grow_with_time() -> None:
    array = TwinChip(Neuron(threshold_mismatch=0.1, leak_mismatch=0.1)).array(ArraySpec(50))
    current = torch.rand(1, 3, 50, generator=rng()).expand(60, -1, -1) * 2
    spikes = array.forward(current)
    followed, wrong = Membrane(NeuronModel()), []
    for t in range(60):
        v = followed.advance(current[t], spikes[t])
        wrong.append(float((v - array.monitor()[t]).abs().mean()))
    assert sum(wrong[50:]) / 10 < 0.3
    assert sum(wrong[50:]) < 1.3 * sum(wrong[10:20])


@pytest.mark.parametrize("presynaptic", ["spike", "trace"])
def test_mean_error_gives_the_product_of_means(presynaptic: str) -> None:
    net = network()
    one = learner(net, presynaptic=presynaptic)
    found = stepped(net, one)
    (s1, v1), (s2, v2) = recorded(net)
    error, _ = Loss().judge(net.stack[2].synapse(s2.mean(0)).detach(), LABEL)
    g, b = one.feedback.g, one.projection
    delta1 = (error @ b.get_buffer("B0").T) * g(v1 - 1).mean(0)
    delta2 = (error @ b.get_buffer("B1").T) * g(v2 - 1).mean(0)
    sent = s1.mean(0) if presynaptic == "spike" else leaky(s1).mean(0)
    wanted = [delta1.T @ examples(), delta1.sum(0), delta2.T @ sent, delta2.sum(0), error.T @ s2.mean(0), error.sum(0)]
    assert close(wanted, found)


@pytest.mark.parametrize("presynaptic", ["spike", "trace"])
@pytest.mark.parametrize("update", ["accumulated", "per_step"])
def test_running_error_gives_three_factors_a_step(presynaptic: str, update: str) -> None:
    net = network()
    one = learner(net, presynaptic=presynaptic, error="running", update=update)
    found = [gradients(net) for _ in one.updates(net, examples(), LABEL, rng())]
    (s1, v1), (s2, v2) = recorded(net)
    sent = s1 if presynaptic == "spike" else leaky(s1)
    wanted = []
    for t in range(STEPS):
        rate = s2[: t + 1].mean(0)
        error, _ = Loss().judge(net.stack[2].synapse(rate).detach(), LABEL)
        delta1 = (error @ one.projection.get_buffer("B0").T) * one.feedback.g(v1[t] - 1)
        delta2 = (error @ one.projection.get_buffer("B1").T) * one.feedback.g(v2[t] - 1)
        wanted.append([delta1.T @ examples(), delta1.sum(0), delta2.T @ sent[t], delta2.sum(0), error.T @ rate, error.sum(0)])
    if update == "accumulated":
        wanted = [[sum(parts, torch.zeros(())) / STEPS for parts in zip(*wanted, strict=True)]]
    assert len(found) == len(wanted)
    assert all(close(w, f) for w, f in zip(wanted, found, strict=True))


@pytest.mark.parametrize(
    "changed", [{}, {"error": "running", "update": "per_step", "presynaptic": "trace"}], ids=["mean", "running"]
)
def test_the_same_through_convolutions(changed: dict[str, object]) -> None:
    """B reaches every unit of a map; the gradient of a kernel is the synapse's own, at what was sent on, by autograd."""
    torch.manual_seed(0)
    synapses = conv([1, 6, 6], [3, 4], strides=[1, 2], pool="average", weights="standardised", readout=3, gain=4.0)
    chip = TwinChip()
    arrays = [chip.array(ArraySpec(width)) for width in flat_widths(synapses, 36)[1:-1]]
    layers = [Layer(s, a, Encode.onto(a.spec.inputs)) for s, a in zip(synapses, arrays, strict=False)]
    net = Network([*layers, Layer(synapses[-1])])
    x = examples(36)
    one = learner(net, sample_shape=(36,), **changed)
    found = [gradients(net) for _ in one.updates(net, x, LABEL, rng())][-1]
    (s1, v1), (s2, v2) = recorded(net, x)
    assert s1.any()
    assert s2.any()
    error, _ = Loss().judge(synapses[2](s2.mean(0)).detach(), LABEL)
    g, b = one.feedback.g, one.projection
    slopes = [g(v - 1)[-1] if changed else g(v - 1).mean(0) for v in (v1, v2)]
    sent = [x, leaky(s1)[-1] if changed else s1.mean(0)]
    wanted = []
    for number, inputs in enumerate(sent):
        delta = (error @ b.get_buffer(f"B{number}").T) * slopes[number]
        wanted += torch.autograd.grad(synapses[number](inputs), list(synapses[number].parameters()), delta)
    assert close([*wanted, error.T @ s2.mean(0), error.sum(0)], found)


def leaky(spikes: Tensor) -> Tensor:
    """The trace with lam = 1/2 in units of one spike."""
    found, trace, ones = [], torch.zeros_like(spikes[0]), 0.0
    for s in spikes:
        trace, ones = 0.5 * trace + s, 0.5 * ones + 1
        found.append(trace / ones)
    return torch.stack(found)


def test_chunks_change_nothing() -> None:
    nets = [network(), network()]
    assert close(*(stepped(net, learner(net, chunk=chunk)) for net, chunk in zip(nets, (1, 4), strict=True)), 1e-6)


def test_spikes_are_all_it_sees() -> None:
    """The same spikes from neurons that work otherwise give the same gradients: membranes are the host's own estimate."""

    class Recorded:
        def __init__(self, inner: SpikingArray, tape: list[Tensor]) -> None:
            self.inner, self.tape = inner, list(tape)
            self.spec = inner.spec

        def reset(self) -> None: ...

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.tape.pop(0) for _ in x])

    net = network(Neuron(noise=0.3))
    first, tapes = learner(net), []
    for layer in net.stack[:-1]:
        tape: list[Tensor] = []
        tapes.append(tape)
        forward = layer.device.forward  # type: ignore[union-attr]
        layer.device.forward = lambda x, f=forward, t=tape: t.extend(y := f(x)) or y  # type: ignore[union-attr]
    found = stepped(net, first)
    for layer, tape in zip(net.stack[:-1], tapes, strict=True):
        layer.device = Recorded(layer.device, tape)  # type: ignore[assignment, arg-type]
    assert close(found, stepped(net, first), 0.0)


def test_prediction_and_report() -> None:
    net = network()
    one = learner(net)
    metrics = one.step(net, examples(), LABEL, rng())
    assert {"loss", "accuracy", "overflow", "rate_layer0", "rate_layer1"} <= set(metrics)
    assert all(isinstance(value, float) for value in metrics.values())
    trace = one.trace(net, examples())
    assert trace.pre[0].shape == (STEPS, 12, 14)
    assert trace.outputs[1].shape == (12, 11)
    assert torch.allclose(trace.outputs[-1], one.predict(net, examples()), atol=1e-6)
    assert set(one.state_dict()) == {"projection.B0", "projection.B1"}


def test_wrong_settings_are_refused() -> None:
    for bad in (
        {"update": "never"}, {"error": "none"}, {"presynaptic": "both"}, {"update": "per_step"}, {"time_steps": 0},
        {"leak": 2.0}, {"dropout": -0.1}, {"v_rest": 2.0, "v_th": 1.5},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            ADFASNNSettings(**bad)  # type: ignore[arg-type]


def test_nan_is_refused_before_it_is_sent() -> None:
    net = network()
    with torch.no_grad():
        net.stack[0].synapse.weight.fill_(float("nan"))  # type: ignore[operator, union-attr]
    with pytest.raises(OutOfRange):
        stepped(net, learner(net))


def test_neurons_are_believed_as_the_chip_says_them_and_a_difference_is_said() -> None:
    net = network(Neuron(leak=0.8, v_th=0.75, reset="hard", refractory=1))
    assert learner(net).neuron == NeuronModel(0.8, 0.75, 0.0, "hard", 1)
    assert not list(misbelieved(net, learner(net)))
    (said,) = misbelieved(net, learner(net, leak=0.5))
    assert said == (
        "the learner follows neurons with leak 0.5 in layer 0, and the chip says leak 0.8; take leak out of [learner]"
    )
    (said,) = misbelieved(net, SAFE.build(net, SAFE.Settings(), 3, rng()))
    assert "reset soft, refractory 0" in said
    assert "reset hard, refractory 1; choose a learner that follows these" in said
    net.stack[1].device = TwinChip(Neuron()).array(ArraySpec(11))
    with pytest.raises(ContractError, match="the hidden layers have different neurons"):
        learner(net)


def test_what_g_is_taken_of_is_the_membrane_above_threshold_in_layers_that_really_visit_it() -> None:
    net = network()
    one = learner(net, chunk=2)
    for (_, membranes), visited in zip(recorded(net), one.visited(net, examples()), strict=True):
        assert torch.equal(visited, membranes - 1.0)
