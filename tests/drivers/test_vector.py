"""The device of the vector shape, over raw sockets to simulated boxes around the twin of a mesh, all in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from drivers.keithley_2400 import Keithley2400
from drivers.links.memory import MemoryLink
from drivers.links.visa_link import VisaLink
from drivers.make_safe import make_safe
from drivers.read_back import Care
from drivers.safe import SafeState, Switchable
from drivers.vector.device import Vector, VectorSettings, joined
from hil.build.shapes.vector import VectorBench, channels, description
from hil.config.bench import read_bench
from hil.conformance import check_device
from hil.device import Port
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient
from hil.errors import Changed, ConfigError, HilError, OutOfRange, SwitchedOff
from sim_devices.bench.description import Part, VirtualBox
from sim_devices.bench.served import RunningBench, build
from sim_devices.instruments.keithley_2400 import Keithley2400 as SimulatedMeter
from sim_devices.instruments.source_box import SourceBox
from sim_devices.mzi_mesh import MZIMesh

BENCH = read_bench(Path(__file__).parents[2] / "benches" / "mesh_levels.toml")
assert isinstance(BENCH, VectorBench)
NODE = {"modes": 3, "specimen": 11, "noise": 0.0}
QUICK = VectorSettings(settle_s=0.0, step_s=1e-3)
SEVENTH = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def served() -> RunningBench:
    """The boxes of the shipped bench but for its laser, and a node without noise."""
    told = description(BENCH)
    grid = replace(told.grids[0], node=Part(told.grids[0].node.use, NODE))
    boxes = tuple(VirtualBox(box.name, box.use, box.settings) for box in told.boxes if box.name != "laser")
    return build(replace(told, boxes=boxes, grids=(grid,), feeds=(), transport="socket"))


class Rig:
    """Benches and devices of one test."""

    def __init__(self) -> None:
        self.closing = ExitStack()
        self.bench: RunningBench | None = None
        self.uses = 0

    def used(self) -> None:
        self.uses += 1

    def device(self, settings: VectorSettings = QUICK, slew: float | None = None, **more: Any) -> Vector:
        self.bench = running = served()
        self.closing.callback(running.close)
        drivers = {}
        for name in BENCH.roles:
            given = dict(BENCH.instruments[name].choice.settings)
            if "slew_v_per_s" in given:
                given["slew_v_per_s"] = slew
            drivers[name] = BENCH.instruments[name].choice.made(
                VisaLink(running.resources[name], timeout_s=0.5, beat=self.used), **given
            )
        drive, read = (list(channels(named, drivers)) for named in (BENCH.node.drive, BENCH.node.read))
        vector = Vector(drivers, drive, read, settings, **more)
        self.closing.callback(vector.close)
        return vector

    def box(self, name: str) -> SourceBox:
        assert self.bench is not None
        box = self.bench.boxes[name]
        assert isinstance(box, SourceBox)
        return box


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    with made.closing:
        yield made


def test_it_keeps_the_contract_of_a_device(rig: Rig) -> None:
    assert check_device(rig.device, lambda device: rig.uses).passed


def test_the_readings_are_those_of_the_twin(rig: Rig) -> None:
    device, x = rig.device(VectorSettings(settle_s=0.0, averages=2)), torch.rand(4, 6) * 0.8
    assert device.forward(x) == pytest.approx(0.9 * MZIMesh(**NODE).ideal(x), rel=1e-4, abs=1e-9)  # type: ignore[arg-type]
    assert device.forward(torch.empty(0, 6)).shape == (0, 3)


def test_one_value_of_channel_6_beyond_its_own_limit_sends_nothing_and_is_named(rig: Rig) -> None:
    device = rig.device()
    before = rig.uses
    with pytest.raises(OutOfRange, match="channel 6") as told:
        device.forward(torch.tensor([SEVENTH, [0.9, 0.9, 0.9, 0.9, 0.9, 0.9]]))
    assert "channel 1" not in str(told.value)
    assert rig.uses == before
    assert rig.box("quadrature").stands(3) == 0.0


def test_every_channel_keeps_its_slew_up_and_down_and_at_the_end(rig: Rig) -> None:
    device = rig.device(slew=100.0)
    device.forward(torch.tensor([[1.0, 0.5, 0.0, 1.0, 0.0, 0.8], SEVENTH]))
    device.close()
    for name in ("in_phase", "quadrature"):
        for channel in (1, 2, 3):
            levels = [(t, v) for t, n, v in rig.box(name).history if n == channel]
            assert all(abs(b - a) <= 0.1001 for (_, a), (_, b) in pairwise([(0.0, 0.0), *levels]) if b), name
            assert levels[-1][1] == 0.0
    assert rig.bench is not None
    assert rig.bench.control.extremes()["in_phase"]["1"] == {"low_v": 0.0, "high_v": 1.0}  # type: ignore[index]
    risen = [(t, v) for t, n, v in rig.box("in_phase").history if n == 1]
    top = next(k for k, (_, v) in enumerate(risen) if v == 1.0)
    assert risen[top][0] - risen[0][0] >= 0.009  # ten steps of 1 ms


def test_the_guardian_goes_the_same_way_down_over_a_wire_of_its_own(rig: Rig) -> None:
    device = rig.device(slew=2.0)
    device.forward(torch.tensor([[0.1, 0.2, 0.3, 0.1, 0.1, 0.2]]))
    source = device._sources["quadrature"]
    assert isinstance(source, Switchable)
    box = rig.box("quadrature")
    box.history.clear()
    (outcome,) = make_safe([SafeState.from_json(source.safe_state().to_json())], 0.0)
    assert outcome.verified
    assert outcome.why == ""
    third = [0.2, *(v for _, n, v in box.history if n == 3)]
    assert third[-1] == 0.0
    assert max(a - b for a, b in pairwise(third)) <= 0.04
    assert len(third) < 8
    assert box.outputs()["3"]["on"] is False  # type: ignore[index]


@pytest.mark.parametrize(("command", "fault"), [(":SOUR:CURR 0.01,(@1)", Changed), (":OUTP 0,(@2)", SwitchedOff)])
def test_another_hand_is_seen_and_a_change_is_put_right(rig: Rig, command: str, fault: type[HilError]) -> None:
    device = rig.device(care=Care(every_s=0.0))
    wanted = device.forward(torch.tensor([SEVENTH]))
    rig.box("in_phase").press(command)
    with pytest.raises(fault):
        device.forward(torch.tensor([SEVENTH]))
    if fault is Changed:
        with pytest.raises(HilError, match="not set up again yet"):
            device.forward(torch.tensor([SEVENTH]))
        device.reinstate()
        assert "changed by another hand: current_1" in device.verify()
        assert torch.equal(device.forward(torch.tensor([SEVENTH])), wanted)


def test_a_box_that_lost_its_power_is_set_up_again_by_the_ladder(rig: Rig) -> None:
    inner = rig.device()
    told: list[str] = []
    device = resilient(inner, lambda rungs: Ladder(rungs, Patience(), lambda kind, **facts: told.append(kind)))
    wanted = device.forward(torch.tensor([SEVENTH]))
    rig.box("pd2").reboot()
    assert torch.equal(device.forward(torch.tensor([SEVENTH])), wanted)
    assert told[-1] == "recovery"


def test_one_source_meter_answers_a_batch_by_lists() -> None:
    box = SimulatedMeter(load_ohm=1e4)
    link = MemoryLink(box)
    smu = Keithley2400(link, low_v=-1.0, high_v=1.0)
    device = Vector({"smu": smu}, [("smu", 0)], [("smu", 0)], VectorSettings(settle_s=0.0, averages=2))
    x = torch.linspace(-1.0, 1.0, 120).unsqueeze(1)
    before = len(link.sent)
    assert device.forward(x) == pytest.approx(x / 1e4, rel=1e-5)  # type: ignore[arg-type]
    assert len(link.sent) - before < 60
    assert box.stands(1) == 1.0
    device.close()
    assert box.stands(1) == 0.0


PORTS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda d: Vector(d, [("smu", 1)], [("smu", 0)]), "no channel smu 2"),
    (lambda d: Vector(d, [("smu", 0), ("smu", 0)], [("smu", 0)]), "twice"),
    (lambda d: Vector(d, [("smu", 0)], []), "channels of read"),
]


@pytest.mark.parametrize(("make", "said"), PORTS)
def test_channels_that_make_no_sense_are_refused_with_outputs_off(make: Callable[[Any], Any], said: str) -> None:
    box = SimulatedMeter()
    with pytest.raises(ConfigError, match=said):
        make({"smu": Keithley2400(MemoryLink(box))})
    assert box.outputs()["1"]["on"] is False  # type: ignore[index]


def test_ports_are_joined_channel_by_channel() -> None:
    two = Port("a", (0.0, -1.0), (1.0, 2.0), "V", 2, slew_per_s=(1.0, 2.0))
    one = Port("b", 0.5, 3.0, "V", 1)
    made = joined("drive", [two, one, two], [1, 0, 0])
    assert made == Port(
        "drive", (-1.0, 0.5, 0.0), (2.0, 3.0, 1.0), "V", 3, slew_per_s=(2.0, math.inf, 1.0), rest=(0.0, 0.5, 0.0)
    )  # fmt: skip
    with pytest.raises(ConfigError, match="one unit"):
        joined("drive", [two, Port("c", 0.0, 1.0, "A", 1)], [0, 0])
