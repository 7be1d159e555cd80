"""What a bench says when its marker does not come, and one edge of it looked at between the samples. In this process: messages
go straight into the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from scripted_link import MessageLink

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.waveform.device import Waveform
from drivers.waveform.timing import FALL
from hil.device import Timed
from hil.devices.recovery import Ladder
from hil.devices.resilient import resilient
from hil.errors import Flat, Late, Misaligned
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire, assemble

NODE = {"v_pi_v": 3.52, "phase_rad": -1.2, "noise": 1.0}
BOXES = (
    VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600", {"dac_bits": 12}),
    VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision", {"adc_bits": 10}),
)
WIRE = VirtualWire("awg", "scope", Part("sim_devices.mach_zehnder:MachZehnder", NODE), delay_s=12.4e-9)


def opened(wire: VirtualWire = WIRE, *faults: Mapping[str, object]) -> Waveform:
    boxes = assemble(VirtualBench(BOXES, (wire,), faults=faults)).boxes
    generator = Keysight33600(MessageLink(boxes["awg"]), low_v=-4.0, high_v=4.0)
    scope = InfiniiVision(MessageLink(boxes["scope"]), range_v=0.5, offset_v=0.18)
    return Waveform(generator, scope, provenance="twin")


def test_a_channel_that_is_stuck_is_flat() -> None:
    with pytest.raises(Flat, match="does not follow"):
        opened(WIRE, {"box": "scope", "kind": "stuck", "volts": 0.2, "times": 0})


def test_noise_without_light_is_flat_and_not_a_marker_by_chance() -> None:
    dark = replace(WIRE, node=Part(WIRE.node.use, {**NODE, "laser_w": 1e-12}))
    with pytest.raises(Flat):
        opened(dark)


def test_a_marker_that_is_late_is_found_and_its_delay_said() -> None:
    with pytest.raises(Late, match=r"2\.6e-06 s"):
        opened(replace(WIRE, delay_s=2.6e-6))


def test_a_marker_that_is_farther_than_anybody_looks_is_still_no_data() -> None:
    with pytest.raises(Misaligned):
        opened(replace(WIRE, delay_s=1e-3))


@pytest.mark.parametrize("delay_s", [0.0, 12.4e-9, 313.07e-9])
def test_the_edge_moves_with_the_delay_and_shifts_lie_between_the_samples(delay_s: float) -> None:
    device = opened(replace(WIRE, delay_s=delay_s))
    try:
        time_s, reading = device.edge()
        later_s, _ = device.edge(0.3e-10)
        assert float(later_s[0] - time_s[0]) == pytest.approx(0.3e-10, abs=1e-14)
        assert float(time_s.diff().mean()) == pytest.approx(0.2e-9)
        before = reading[: len(reading) // 3].median()
        moved = (reading - before).abs() > 0.1 * (reading[-10:].mean() - before).abs()
        first = int((~moved).nonzero().max()) + 1
        assert float(time_s[first - 1]) < delay_s + 2e-12  # a burst's instants belong to the next sample from 1 ps before it
        assert delay_s - 2e-12 <= float(time_s[first])
        x = torch.linspace(-4, 4, 50).unsqueeze(0)
        assert float((device.forward(x) - device.forward(x)).abs().max()) < 0.01  # the next shot is as the one before
    finally:
        device.close()


def test_the_edge_is_the_first_fall_of_the_marker() -> None:
    assert FALL == 12 + 5


def test_a_ladder_around_it_still_shows_edges() -> None:
    device = opened()
    try:
        around = resilient(device, Ladder)
        assert isinstance(around, Timed)
        time_s, reading = around.edge()
        assert time_s.shape == reading.shape
    finally:
        device.close()
