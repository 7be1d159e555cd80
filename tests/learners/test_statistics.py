"""Running statistics of a normalising synapse: moved by training passes alone, used and frozen at test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hil.device import ArraySpec
from hil.encoding import Encode
from hil.learner import Learner
from hil.learners.adfa import ADFA, ADFASettings
from hil.learners.adfa_snn import ADFASNN, ADFASNNSettings
from hil.learners.backprop import Backprop
from hil.learners.dfa import DFA, DFASettings
from hil.learners.last_layer import LastLayer
from hil.learners.ottt import OTTTA
from hil.learners.parts.one_pass import LossSettings
from hil.learners.parts.rate_learner import OnlineSettings, RateSettings
from hil.learners.pat import PAT
from hil.learners.saf import SAFE, SAFF
from hil.learners.spike_representation import SpikeRepresentation
from hil.learners.spsa import SPSA, SPSASettings
from hil.network import Layer, Network
from hil.seeding import generator
from hil.synapses import dense
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated
from sim_devices.spiking_array import TwinChip

LABEL = torch.arange(12) % 3
MODEL = MachZehnder().ideal
Make = Callable[[Network], Learner]


def x() -> Tensor:
    return torch.randn(12, 6, generator=generator(0, 0, "x")) + 1


def rng() -> torch.Generator:
    return generator(0, 0, "step")


def static() -> Network:
    torch.manual_seed(0)
    device = Simulated(MachZehnder(noise=0.0))
    *hidden, readout = dense([6, 8, 7, 3], norm="batch")
    encode = Encode.onto(device.spec.inputs, overflow="clip")
    return Network([*(Layer(synapse, device, encode) for synapse in hidden), Layer(readout)])


def spiking() -> Network:
    torch.manual_seed(0)
    chip = TwinChip()
    *hidden, readout = dense([6, 8, 7, 3], norm="batch")
    arrays = [chip.array(ArraySpec(width)) for width in (8, 7)]
    layers = [Layer(s, a, Encode.onto(a.spec.inputs)) for s, a in zip(hidden, arrays, strict=True)]
    return Network([*layers, Layer(readout)])


def statistics(net: Network) -> list[Tensor]:
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]
    return [value.clone() for norm in norms for value in norm.buffers()]


def alike(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


STATIC: dict[str, Make] = {
    "adfa": lambda net: ADFA.build(net, ADFASettings(sample_shape=(6,)), 3, rng()),
    "dfa": lambda net: DFA.build(net, DFASettings(sample_shape=(6,)), 3, rng(), MODEL),
    "pat": lambda net: PAT.build(net, LossSettings(), 3, rng(), MODEL),
    "backprop": lambda net: Backprop.build(net, LossSettings(), 3, rng(), MODEL),
    "last_layer": lambda net: LastLayer.build(net, LossSettings(), 3, rng()),
    "spsa": lambda net: SPSA.build(net, SPSASettings(), 3, rng()),
}
ONLINE = OnlineSettings(time_steps=3, chunk=3)
SPIKING: dict[str, Make] = {
    "adfa_snn": lambda net: ADFASNN.build(net, replace(ADFASNNSettings(time_steps=3, chunk=3), sample_shape=(6,)), 3, rng()),
    "saf_e": lambda net: SAFE.build(net, ONLINE, 3, rng()),
    "saf_f": lambda net: SAFF.build(net, RateSettings(time_steps=3, chunk=3), 3, rng()),
    "spike_representation": lambda net: SpikeRepresentation.build(net, RateSettings(time_steps=3, chunk=3), 3, rng()),
}


@pytest.mark.parametrize("name", STATIC)
def test_frozen_at_test_and_moved_by_a_step(name: str) -> None:
    net = static()
    fresh = statistics(net)
    rule = STATIC[name](net)
    assert alike(statistics(net), fresh)
    for _ in range(2):  # the second after a prediction
        before = statistics(net)
        rule.step(net, x(), LABEL, rng())
        after = statistics(net)
        assert not alike(before, after)
        whole = rule.predict(net, x())
        assert torch.allclose(whole, torch.cat([rule.predict(net, row) for row in x().split(1)]), atol=1e-5)
        assert alike(statistics(net), after)


@pytest.mark.parametrize("name", ["adfa", "dfa", "pat", "last_layer"])
def test_one_pass_moves_them_once(name: str) -> None:
    net, other = static(), static()
    STATIC[name](net).step(net, x(), LABEL, rng())
    other(x())
    assert alike(statistics(net), statistics(other))


@pytest.mark.parametrize("name", SPIKING)
def test_they_are_those_of_spikes_not_of_rates_or_traces(name: str) -> None:
    net, other = spiking(), spiking()
    SPIKING[name](net).step(net, x(), LABEL, rng())
    other.stack[0].synapse(x())
    expected, found = statistics(other), statistics(net)
    assert alike(found[:3], expected[:3])  # of the first layer, which sees x once
    assert int(found[5]) == 1  # of the second: one chunk of spikes, and nothing else


def test_ottt_moves_them_once_a_step_of_time() -> None:
    net = spiking()
    OTTTA.build(net, ONLINE, 3, rng()).step(net, x(), LABEL, rng())
    found = statistics(net)
    assert [int(found[2]), int(found[5])] == [1, 3]
