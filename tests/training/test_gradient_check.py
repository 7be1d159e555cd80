"""Angles to the true gradient, and what crosses the boundary."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hil.data.dataset import load
from hil.device import ArraySpec
from hil.devices.meter import MeteredChip, metered
from hil.devices.traffic import Traffic, read_bits
from hil.encoding import Decode, Encode
from hil.learners.adfa import ADFA, ADFASettings
from hil.learners.adfa_snn import ADFASNN, ADFASNNSettings
from hil.learners.bptt import BPTT
from hil.learners.ffgaf import FFGAF, FFGAFSettings
from hil.learners.last_layer import LastLayer
from hil.learners.ottt import OTTTO, OTTTOSettings
from hil.learners.parts.one_pass import LossSettings
from hil.learners.parts.rate_learner import OnlineSettings, RateSettings
from hil.learners.pat import PAT
from hil.learners.saf import SAFE, SAFF
from hil.learners.spsa import SPSA, SPSASettings
from hil.network import Layer, Network
from hil.seeding import generator
from hil.training.gradient_check import GradientLook, angle, look
from hil.training.loop import Epoch, TrainingStep, train
from hil.training.state import Training, TrainingPlan
from sim_devices.lif_array import LifArray
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated
from sim_devices.spiking_array import SpikingArray, TwinChip

TWIN = MachZehnder(noise=0.0)


def training(learner: str, budget: int | None = None) -> Training:
    torch.manual_seed(0)
    device = metered(Simulated(TWIN))
    encode = Encode.onto(device.spec.inputs, 0.3, overflow="clip")
    net = Network([Layer(nn.Linear(64, 12), device, encode, Decode(0.18, 0.18)), Layer(nn.Linear(12, 10))])
    rng = generator(0, 0, "learner")
    rule = {
        "adfa": lambda: ADFA.build(net, ADFASettings(), 10, rng, TWIN.ideal),
        "pat": lambda: PAT.build(net, LossSettings(), 10, rng, TWIN.ideal),
        "spsa": lambda: SPSA.build(net, SPSASettings(directions=2), 10, rng),
        "last": lambda: LastLayer.build(net, LossSettings(), 10, rng),
    }[learner]()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    return Training(net, rule, optimizer, load("digits"), TrainingPlan(0, 3, 64, budget_passes=budget), (device,))


def seen(learner: str, model: object = TWIN.ideal) -> GradientLook:
    made = training(learner)
    before = [p.detach().clone() for p in made.net.parameters()]
    found = look(made, model, 100)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(before, made.net.parameters(), strict=True))
    assert all(p.grad is None for p in made.net.parameters())
    assert made.devices[0].watch is None
    return found


def test_angle() -> None:
    assert angle(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])) == pytest.approx(90)
    assert angle(torch.tensor([1.0, 1.0]), torch.tensor([-1.0, -1.0])) == pytest.approx(180)
    assert angle(torch.zeros(2), torch.ones(2)) is None


def test_pat_with_the_true_model_is_aligned_and_random_feedback_is_not() -> None:
    pat = seen("pat").angles
    assert all(a is not None and a < 0.1 for a in pat)
    first, last = seen("adfa").angles
    assert first is not None
    assert first > 5
    assert last == pytest.approx(0, abs=0.1)  # the readout is exact
    assert seen("last").angles[0] is None  # frozen: no direction at all


def test_without_a_twin_the_reason_is_said() -> None:
    found = seen("adfa", None)
    assert found.angles == (None, None)
    assert "no twin" in found.why


SPIKING = {"time_steps": 4, "dropout": 0.2}


@pytest.mark.parametrize(
    ("kind", "settings", "exact"),
    [
        (BPTT, OnlineSettings(**SPIKING), (0, 1, 2)),  # it is its own measure
        (ADFASNN, ADFASNNSettings(**SPIKING), (2,)),  # the readout is exact
        (ADFASNN, ADFASNNSettings(**SPIKING, loss="mse"), (2,)),
        (SAFE, OnlineSettings(**SPIKING), ()),
        (SAFF, RateSettings(**SPIKING), ()),
        (OTTTO, OTTTOSettings(**SPIKING), ()),
    ],
)
def test_spiking_learners_are_measured_from_the_surrogate_gradient(kind: Any, settings: Any, exact: tuple[int, ...]) -> None:
    made = spiking(kind, settings)
    found = look(made, None, 100)
    assert not found.why
    assert "through time" in found.to
    assert found.examples == 100
    assert found.step[0].sent == (0 if kind is BPTT else 100 * 4 * 30)  # of all examples, once
    for number, one in enumerate(found.angles):
        assert one is not None
        assert one < (0.1 if number in exact else 90 if kind is not ADFASNN else 180)
        assert number in exact or one > 0.5
    assert made.net.devices[0].spec.temporal


def test_a_spiking_learner_without_a_readout_has_no_gradient_to_be_measured_from() -> None:
    found = look(spiking(FFGAF, FFGAFSettings()), None, 20)
    assert found.angles == (None, None, None)
    assert "spikes have no gradient" in found.why


def spiking(kind: Any, settings: Any) -> Training:
    torch.manual_seed(0)
    chip = MeteredChip(TwinChip())
    arrays = [chip.array(ArraySpec(30)), chip.array(ArraySpec(20))]
    synapses = [nn.Linear(64, 30), nn.Linear(30, 20), nn.Linear(20, 10)]
    hidden = [Layer(s, a, Encode.onto(a.spec.inputs, 4.0)) for s, a in zip(synapses[:2], arrays, strict=True)]
    net = Network([*hidden, Layer(synapses[2])])
    rule = kind.build(net, settings, 10, generator(0, 0, "learner"))
    return Training(
        net, rule, torch.optim.SGD(net.parameters(), 0.1), load("digits"), TrainingPlan(0, 1, 64), tuple(chip.devices)
    )


def test_traffic_is_counted_at_the_device() -> None:
    assert seen("pat").step[0] == Traffic(calls=1, sent=1200, read=1200, fired=1200)
    spsa = seen("spsa")
    assert spsa.step[0].calls == 4
    assert spsa.prediction[0].sent == 1200
    assert spsa.step[0].bits(TWIN.spec) == 4 * 1200 * 32


def test_spikes_are_one_bit_and_couples_two() -> None:
    array = SpikingArray(LifArray(3))
    assert read_bits(array.spec) == 1
    assert read_bits(LifArray(3, couples=True).spec) == 2
    traffic = Traffic()
    drive = torch.full((4, 2, 3), 0.6)
    answer: Tensor = array.forward(drive)
    traffic.add(drive, answer)
    assert traffic.bits(array.spec) == 24 * 17
    assert traffic.firing_rate(array.spec) == pytest.approx(float(answer.mean()))
    assert traffic.firing_rate(TWIN.spec) is None


@pytest.mark.parametrize("budget", [1, 12 * 64 * 5, 12 * 1437 + 1])
def test_a_budget_ends_training_with_the_step_that_spends_it(budget: int) -> None:
    made = training("pat", budget)
    points = list(train(made))
    steps = [p for p in points if isinstance(p, TrainingStep)]
    epochs = [p for p in points if isinstance(p, Epoch)]
    assert isinstance(points[-1], Epoch)  # validated, so that there are weights to choose
    assert made.epoch == len(epochs) == 1
    wanted = min(math.ceil(budget / (12 * 64)), math.ceil(1437 / 64))
    assert len(steps) == wanted
    assert list(train(made)) == []  # and it stays ended
