"""The identities that SAF claims, on measured spikes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from spiking_net import LABEL, close, examples, gradients, network, rng, stepped
from torch.nn.utils import vector_to_parameters

from hil.device import ArraySpec
from hil.encoding import Encode
from hil.errors import ConfigError, ContractError, OutOfRange
from hil.learners.ottt import OTTT, OTTTO
from hil.learners.parts.rate_learner import OnlineSettings, RateSettings
from hil.learners.parts.spiking_pass import chunks
from hil.learners.saf import SAFE, SAFF, WeightedSums
from hil.learners.spike_representation import SpikeRepresentation
from hil.network import Layer, Network
from hil.seeding import generator
from hil.synapses import conv
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip

NEURONS = [(0.5, 1.0), (0.5, 0.75), (1.0, 1.0), (1.0, 0.5)]


@pytest.mark.parametrize(("leak", "v_th"), NEURONS)
def test_forward_with_accumulations_is_the_device_spike_for_spike(leak: float, v_th: float) -> None:
    """U from accumulated spikes alone, both forms of it, against the spikes that real arrays gave."""
    net = network(Neuron(leak=leak, v_th=v_th))
    parts = list(chunks(net, examples(), 9, 2))
    sent = examples().expand(9, -1, -1)
    for number in range(2):
        measured = torch.cat([part.spikes[number] for part in parts])
        weight, bias = net.stack[number].synapse.weight.detach(), net.stack[number].synapse.bias.detach()
        into = before = torch.zeros_like(sent[0])
        u = ahat = torch.zeros_like(measured[0])
        ones = 0.0
        for t in range(9):
            into = leak * into + sent[t]
            ones = leak * ones + 1
            u = leak * u + (into - leak * before) @ weight.T + bias
            assert torch.equal(u, into @ weight.T + bias * ones)
            spikes = (u >= v_th * (leak * ahat + 1)).float()
            assert torch.equal(spikes, measured[t])
            before, ahat = into, leak * ahat + spikes
        assert 0.02 < measured.mean() < 0.98
        sent = measured


@pytest.mark.parametrize("update", ["accumulated", "per_step"])
@pytest.mark.parametrize("neuron", [Neuron(), Neuron(leak=0.9, v_th=0.7), Neuron(leak=1.0)])
def test_gradient_of_saf_e_is_that_of_ottt(update: str, neuron: Neuron) -> None:
    settings = OnlineSettings(time_steps=7, leak=neuron.leak, v_th=neuron.v_th, update=update)  # type: ignore[arg-type]
    ours, theirs = network(neuron, drive=0.8), network(neuron, drive=0.8)
    pairs = zip(
        SAFE(settings, 3).updates(ours, examples(), LABEL, rng()),
        OTTT(settings, 3).updates(theirs, examples(), LABEL, rng()),
        strict=True,
    )
    count = 0
    for count, (mine, reference) in enumerate(pairs, 1):  # noqa: B007
        assert close(gradients(ours), gradients(theirs))
        assert mine["loss"] == pytest.approx(reference["loss"], rel=1e-5)
        for net in (ours, theirs):
            with torch.no_grad():
                for param in net.parameters():
                    param.sub_(0.1 * param.grad)  # type: ignore[operator]
    assert count == (7 if update == "per_step" else 1)


@pytest.mark.parametrize("neuron", [Neuron(), Neuron(leak=0.8, v_th=0.7), Neuron(leak=1.0)])
def test_gradient_of_saf_f_is_that_of_the_spike_representation(neuron: Neuron) -> None:
    settings = RateSettings(time_steps=7, leak=neuron.leak, v_th=neuron.v_th, chunk=3)
    ours, theirs = (network(neuron, drive=0.8) for _ in range(2))
    assert close(stepped(ours, SAFF(settings, 3)), stepped(theirs, SpikeRepresentation(settings, 3)))
    assert all(grad.any() for grad in gradients(ours))


def test_gradient_of_saf_f_is_the_slope_of_what_the_neurons_do() -> None:
    """No formula on the other side: the loss of measured rates, with all weights moved by a little one way and the other."""
    steps, amount = 2000, 0.01
    net = network(Neuron(leak=1.0, v_th=0.75), gain=1.0)
    settings = RateSettings(time_steps=steps, leak=1.0, v_th=0.75, chunk=200)
    learner = SAFF(settings, 3)
    learner.step(net, examples(), LABEL, rng())
    gradient = torch.cat([grad.flatten() for grad in gradients(net)])
    params, at = list(net.parameters()), torch.cat([param.detach().flatten() for param in net.parameters()])
    found, wanted = [], []
    for number in range(6):
        towards = torch.randn(len(at), generator=rng(number)).sign() * (torch.rand(len(at), generator=rng(50 + number)) < 0.2)
        losses = []
        for sign in (1, -1):
            vector_to_parameters(at + sign * amount * towards, params)
            losses.append(learner.loss.judge(learner.predict(net, examples()), LABEL).metrics["loss"])
        found.append((losses[0] - losses[1]) / (2 * amount))
        wanted.append(float(gradient @ towards))
    assert torch.corrcoef(torch.tensor([found, wanted]))[0, 1] > 0.99
    assert found == pytest.approx(wanted, abs=0.1 * max(map(abs, wanted)))


def test_the_same_with_a_convolution_and_dropout() -> None:
    def made() -> Network:
        torch.manual_seed(1)
        parts, chip = conv([1, 4, 4], [3], units=[10], readout=3), TwinChip(Neuron())
        hidden = []
        for synapse, width in zip(parts, (48, 10), strict=False):
            array = chip.array(ArraySpec(width))
            hidden.append(Layer(synapse, array, Encode.onto(array.spec.inputs)))
        return Network([*hidden, Layer(parts[-1])])

    x = torch.rand(12, 16, generator=rng())
    for one, other in ((SAFE, OTTT), (SAFF, SpikeRepresentation)):
        settings = OnlineSettings(time_steps=4, dropout=0.3, sample_shape=(16,))
        found = []
        for kind in (one, other):
            net = made()
            learner = kind.build(net, settings, 3, generator(0, 0, "l"))  # type: ignore[arg-type]
            learner.step(net, x, LABEL, rng())
            found.append(gradients(net))
        assert close(*found)


def test_sums_do_not_depend_on_how_time_is_cut() -> None:
    x = torch.rand(7, 3, 4, generator=rng())
    whole, cut = WeightedSums(0.8), WeightedSums(0.8)
    whole.add([x], [x])
    for part in x.split(2):
        cut.add([part], [part])
    wanted = sum(0.8 ** (6 - t) * x[t] for t in range(7))
    assert torch.allclose(whole.drives[0], torch.as_tensor(wanted))
    assert torch.allclose(cut.spikes[0], whole.spikes[0])


def test_ottt_o_moves_every_step_and_a_does_not() -> None:
    net = network()
    count = [len(list(OTTT(s, 3).updates(net, examples(), LABEL, rng()))) for s in (OTTT.Settings(), OTTTO.Settings())]
    assert count == [1, 6]


@pytest.mark.parametrize("kind", [SAFE, SAFF, OTTT, SpikeRepresentation])
def test_a_gradient_reports_what_happened_and_prediction_leaves_it(kind: type) -> None:
    net = network()
    learner = kind.build(net, kind.Settings(), 3, generator(0, 0, "l"))  # type: ignore[attr-defined]
    metrics = learner.step(net, examples(), LABEL, rng())
    before = gradients(net)
    assert 0 <= metrics["accuracy"] <= 1
    assert metrics["overflow"] == 0
    assert metrics["loss"] > 0
    scores = learner.predict(net, examples())
    assert scores.shape == (12, 3)
    assert not scores.requires_grad
    assert torch.allclose(learner.trace(net, examples()).outputs[-1], scores, atol=1e-6)
    assert close(before, gradients(net), 0.0)
    assert close(stepped(net, learner), before, 0.0)


def test_wrong_settings_and_static_nodes_are_refused() -> None:
    for bad in (
        {"time_steps": 0},
        {"leak": 0.0},
        {"leak": 1.5},
        {"mse_share": 2.0},
        {"dropout": 1.0},
        {"chunk": 0},
        {"v_th": -1},
    ):
        with pytest.raises(ConfigError):
            RateSettings(**bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        OnlineSettings(update="sometimes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        OnlineSettings(sharpness=0)
    with pytest.raises(ContractError, match="spiking"):
        SAFF(RateSettings(), 3).step(Network([Layer(torch.nn.Linear(6, 3))]), examples(), LABEL, rng())


def test_a_current_beyond_the_limit_is_refused() -> None:
    net = network(replace(Neuron(), limit=0.01))
    with pytest.raises(OutOfRange):
        SAFE(OnlineSettings(), 3).step(net, examples(), LABEL, rng())
