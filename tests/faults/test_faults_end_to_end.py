"""Every recoverable fault of the bench, in the middle of a training: the weights come out as if it had not happened.

The bench is deterministic (no noise, no drift), so a shot that is repeated gives the answer that was lost; whatever is left of
the fault, a stale answer, a setting that was not set again, a batch put together from two shots, would show in the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.links.visa_link import VisaLink
from drivers.scpi import Expect, Scpi
from drivers.waveform.device import Waveform, WaveformSettings
from hil.data.dataset import Dataset, load, subset
from hil.device import Streaming
from hil.devices.meter import metered
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient
from hil.encoding import Decode, Encode
from hil.errors import (
    HilError,
    Jumped,
    LinkTimeout,
    MeasurementError,
    Misaligned,
    MissedTrigger,
    NotAReading,
    OpenFailed,
    Saturated,
    WrongInstrument,
)
from hil.learners.adfa import ADFA, ADFASettings
from hil.network import Layer, Network
from hil.seeding import generator
from hil.training.loop import train
from hil.training.state import Training, TrainingPlan
from sim_devices.bench.control import ControlClient
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import RunningBench, build

LIMIT_V = 4.0
TIMEOUT_S = 0.25


@dataclass
class Outcome:
    """weights: all in a row. told: what the ladder said."""

    weights: Tensor
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]

    def errors(self) -> set[str]:
        return {str(facts["error"]) for kind, facts in self.told if kind == "recovering"}


@cache
def digits() -> Dataset:
    return subset(load("digits"), 192)


def description() -> VirtualBench:
    boxes = (
        VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600", {"dac_bits": 12, "serial": "SN-AWG"}),
        VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision", {"serial": "SN-SCOPE"}),
    )
    node = Part("sim_devices.mach_zehnder:MachZehnder", {"v_pi_v": 3.52, "phase_rad": -1.2, "noise": 0.0})
    return VirtualBench(boxes, (VirtualWire("awg", "scope", node, delay_s=12.4e-9),), transport="all")


@pytest.fixture(scope="module")
def bench() -> Iterator[RunningBench]:
    with build(description()) as running:
        yield running


@pytest.fixture
def control(bench: RunningBench) -> Iterator[ControlClient]:
    with ControlClient(*bench.control.address) as client:
        client.heal()
        yield client
        client.heal()


def device(resources: dict[str, str], stack: ExitStack) -> Waveform:
    def scpi(name: str) -> Scpi:
        return Scpi(VisaLink(resources[name], timeout_s=TIMEOUT_S), expect=Expect(serial=f"SN-{name.upper()}"))

    generator_ = Keysight33600(scpi("awg"), low_v=-LIMIT_V, high_v=LIMIT_V)
    made = Waveform(
        generator_, InfiniiVision(scpi("scope"), range_v=0.5, offset_v=0.18), WaveformSettings(trigger_timeout_s=0.2), "twin"
    )
    stack.callback(made.close)
    return made


def trained(
    resources: dict[str, str],
    pieces: int = 1,
    patience: Patience | None = None,
    opened: Callable[[], object] = lambda: None,
) -> Outcome:
    """One epoch of three batches through the bench, and its validation. opened: called when the device is."""
    torch.set_num_threads(1)
    told: list[tuple[str, dict[str, object]]] = []

    def hear(kind: str, **facts: object) -> None:
        told.append((kind, facts))

    with ExitStack() as stack:
        waveform = device(resources, stack)
        opened()
        node = metered(resilient(waveform, lambda inner: Ladder(inner, patience or Patience(5.0), hear)))
        assert isinstance(node, Streaming)
        torch.manual_seed(1)
        hidden = Layer(nn.Linear(64, 24), node, Encode.onto(waveform.spec.inputs, 1.0, 0.0, "clip", None), Decode(0.18, 0.2))
        net = Network([hidden, Layer(nn.Linear(24, 10))], pieces=pieces)
        learner = ADFA.build(net, ADFASettings(), 10, generator(0, 0, "learner"), None)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        training = Training(net, learner, optimizer, digits(), TrainingPlan(seed=0, epochs=1, batch=64), (node,))
        for _ in train(training):
            pass
        return Outcome(torch.cat([p.detach().flatten() for p in net.parameters()]), told)


@pytest.fixture(scope="module")
def unharmed(bench: RunningBench) -> Outcome:
    whole = trained(bench.resources)
    assert whole.told == []
    assert trained(bench.sockets).weights.equal(whole.weights)
    return whole


READ, UPLOAD, ASK = ":WAV:DATA?", ":SYST:ERR?", ":OPER:COND?"
WIRE = {
    "no answer": ("scope", "drop", {"match": READ}),
    "no answer to a question": ("scope", "drop", {"match": ASK}),
    "a late answer": ("scope", "delay", {"match": READ, "seconds": 2 * TIMEOUT_S}),
    "an answer that comes in front of the next": ("scope", "stale", {"match": ASK, "seconds": 2 * TIMEOUT_S}),
    "half a block": ("scope", "truncate", {"match": READ, "bytes": 100}),
    "half a header": ("scope", "truncate", {"match": READ, "bytes": 5}),
    "extra bytes": ("scope", "pad", {"match": READ, "bytes": 6}),
    "a flipped bit in the header": ("scope", "flip", {"match": READ, "position": "header", "bits": 3}),
    "garbage before the header": ("scope", "garbage", {"match": READ, "bytes": 7}),
    "an answer twice": ("scope", "duplicate", {"match": READ}),
    "swapped bytes": ("scope", "swap", {"match": READ}),
    "a damaged command": ("awg", "mangle", {"match": "FUNC:ARB", "bits": 4}),
    "a reset connection": ("scope", "reset", {"match": READ}),
    "a reset connection of the generator": ("awg", "reset", {"match": UPLOAD}),
    "a connection that ends in a block": ("scope", "half_close", {"match": READ}),
    "a box that is not reached for a while": ("scope", "refuse", {"match": READ, "seconds": 0.6}),
    "a box that stops reading": ("awg", "stall", {"match": UPLOAD, "seconds": 2 * TIMEOUT_S}),
    "a slow box": ("scope", "throttle", {"match": READ, "bytes_per_s": 2e3}),
    "a generator that reboots": ("awg", "reboot", {"match": UPLOAD, "seconds": 0.3}),
    "a scope that reboots": ("scope", "reboot", {"match": READ, "seconds": 0.3}),
    "a generator that reboots unseen": ("awg", "reboot", {"match": UPLOAD, "quiet": True}),
    "a scope that reboots unseen": ("scope", "reboot", {"match": READ, "quiet": True}),
    "an error queue that overflows": ("awg", "flood", {"match": UPLOAD}),
}
HARMLESS = {"an answer twice"}  # over HiSLIP: what comes a second time has the number of an old question
PHYSICS = {
    "holes": ("scope", "holes", {"points": 3}, NotAReading),
    "no measurement": ("scope", "sentinel", {}, NotAReading),
    "a spike beyond the rail": ("scope", "saturation", {}, Saturated),
    "a channel that sticks for a shot": ("scope", "stuck", {"volts": 0.2}, Misaligned),
    "a missed trigger": ("scope", "missed_trigger", {}, MissedTrigger),
    "a hop there and back": ("node", "mode_hop", {"power": 0.4}, Jumped),
}


@pytest.mark.parametrize("wire", ["resources", "sockets", pytest.param("vxi11", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WIRE)
def test_a_fault_of_the_wire_leaves_no_trace(
    name: str, wire: str, bench: RunningBench, control: ControlClient, unharmed: Outcome
) -> None:
    box, kind, settings = WIRE[name]
    faults: list[str] = []  # from when the device is open: how often it asks until then depends on how fast the bench is
    outcome = trained(getattr(bench, wire), opened=lambda: faults.append(control.fault(box, kind, after=1, **settings)))
    assert injected(control, *faults) == 1
    assert outcome.weights.equal(unharmed.weights)
    if not (wire == "resources" and name in HARMLESS):
        assert outcome.kinds()[0] == "recovering"
        assert outcome.kinds()[-1] == "recovery"
    limits_kept(control)


@pytest.mark.parametrize("name", PHYSICS)
def test_a_fault_of_the_physics_leaves_no_trace(
    name: str, bench: RunningBench, control: ControlClient, unharmed: Outcome
) -> None:
    box, kind, settings, error = PHYSICS[name]
    fault = control.fault(box, kind, after=4, **settings)
    outcome = trained(bench.resources)
    assert injected(control, fault) == 1
    assert outcome.errors() == {error.__name__}
    assert outcome.weights.equal(unharmed.weights)
    limits_kept(control)


def test_faults_while_shots_overlap_leave_no_trace(bench: RunningBench, control: ControlClient, unharmed: Outcome) -> None:
    control.fault("scope", "truncate", match=READ, after=4)
    control.fault("awg", "reset", match=UPLOAD, after=9)
    outcome = trained(bench.resources, pieces=2)
    assert outcome.kinds().count("recovery") >= 2
    assert outcome.weights.equal(unharmed.weights)


def test_many_faults_at_random_leave_no_trace(bench: RunningBench, control: ControlClient, unharmed: Outcome) -> None:
    def faults() -> None:
        for box, kind in (("scope", "truncate"), ("scope", "reset"), ("awg", "reset"), ("scope", "duplicate"), ("awg", "drop")):
            control.fault(box, kind, rate=0.005)
        control.fault("scope", "truncate", match=READ, after=1)  # chance may spare a run as short as this

    outcome = trained(bench.resources, patience=Patience(30.0), opened=faults)
    control.heal()
    assert outcome.kinds().count("recovery") >= 1
    assert outcome.weights.equal(unharmed.weights)
    limits_kept(control)


LASTING: dict[str, tuple[str, str, dict[str, object], type[HilError]]] = {
    "another instrument": ("scope", "serial", {"after": 1}, WrongInstrument),
    "a channel that sticks": ("scope", "stuck", {"volts": 0.2, "times": 0}, MeasurementError),
    "a range that is too small": ("scope", "saturation", {"times": 0}, Saturated),
    "no trigger any more": ("scope", "missed_trigger", {"times": 0}, MissedTrigger),
    "another mode": ("node", "mode_hop", {"power": 0.4, "times": 0}, Jumped),
    "a box that stays away": ("scope", "refuse", {"match": READ, "seconds": 600.0, "after": 2}, OpenFailed),
    "silence": ("scope", "drop", {"match": READ, "times": 0}, LinkTimeout),
}


@pytest.mark.parametrize("name", LASTING)
def test_what_stays_ends_the_run_with_outputs_off(name: str, bench: RunningBench, control: ControlClient) -> None:
    box, kind, settings, error = LASTING[name]
    control.fault(box, kind, **{"after": 3, **settings})
    if kind == "serial":  # asked for again only after the wire was lost
        control.fault("scope", "reset", match=READ, after=2)
    with pytest.raises(error):
        trained(bench.resources, patience=Patience(1.0))
    control.heal()
    assert all(not output["on"] for output in outputs(control))
    limits_kept(control)


def injected(control: ControlClient, fault: str) -> int:
    found = next(row for row in control.faults()["faults"] if row["id"] == fault)
    return int(str(found["injected"]))


def outputs(control: ControlClient) -> list[dict[str, float]]:
    return list(control.outputs()["awg"].values())  # type: ignore[attr-defined]


def limits_kept(control: ControlClient) -> None:
    for output in control.extremes()["awg"].values():
        assert -LIMIT_V - 1e-3 <= output["low_v"] <= output["high_v"] <= LIMIT_V + 1e-3
