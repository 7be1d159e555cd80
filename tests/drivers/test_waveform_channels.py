"""Several drives and readings of a waveform device: which goes where, how they come together, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
from scripted_link import MessageLink

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.links.memory import MemoryLink
from drivers.safe import SafeState, carry_out
from drivers.scpi import Scpi
from drivers.scpi_talk import ScpiTalk
from drivers.waveform.alignment import Delay
from drivers.waveform.arrival import arrival, together
from drivers.waveform.channels import Drive, Read
from drivers.waveform.device import Waveform, WaveformSettings
from drivers.waveform.record import GUARD, LEAD, OVERHEAD, SLOT, Frame, Memory, blank, cut
from hil.conformance import check_device
from hil.errors import ConfigError, Misaligned, OutOfRange, SwitchedOff
from sim_devices.bench.description import (
    Assembly,
    Part,
    VirtualBench,
    VirtualBox,
    VirtualInput,
    VirtualOutput,
    VirtualWire,
    assemble,
)
from sim_devices.instruments.keysight_33600 import Keysight33600 as SimulatedGenerator
from sim_devices.instruments.keysight_infiniivision import InfiniiVision as SimulatedScope
from sim_devices.iq_modulator import IqModulator

GENERATOR = "sim_devices.instruments.keysight_33600:Keysight33600"
SCOPE = "sim_devices.instruments.keysight_infiniivision:InfiniiVision"
NODE = Part("sim_devices.iq_modulator:IqModulator", {"noise": 0.0})
STEP_V = 0.5 / (1 << 10)


def boxes(wire: VirtualWire | None = None) -> Assembly:
    """Both channels of a generator on an IQ modulator, two channels of a scope behind it."""
    inputs, outputs = (VirtualInput("awg", 2, 13.1e-9),), (VirtualOutput(3, 1.5e-9),)
    whole = wire or VirtualWire("awg", "scope", NODE, delay_s=12.4e-9, inputs=inputs, outputs=outputs)
    return assemble(VirtualBench((VirtualBox("awg", GENERATOR), VirtualBox("scope", SCOPE, {"adc_bits": 10})), (whole,)))


def made(
    table: Mapping[str, Any] | None = None, settings: WaveformSettings | None = None, **generator: Any
) -> tuple[Waveform, MessageLink]:
    """A device on these boxes, and the link to the generator."""
    known = table or boxes().boxes
    link = MessageLink(known["awg"])
    awg = Keysight33600(link, **{"channels": (1, 2), "low_v": (-3.0, -2.0), "high_v": (3.0, 2.0), **generator})
    scope = InfiniiVision(MessageLink(known["scope"]), channels=(1, 3), range_v=0.5, offset_v=0.18)
    drives, reads = [Drive(awg, 0), Drive(awg, 1)], [Read(scope, 0), Read(scope, 1)]
    return Waveform(drives, reads, settings or WaveformSettings(symbol_rate_hz=50e6), "twin"), link


def drive(rows: int) -> torch.Tensor:
    uniform = torch.rand((rows, 2), generator=torch.Generator().manual_seed(5))
    return (2 * uniform - 1) * torch.tensor([3.0, 2.0])


def agree(device: Waveform, rows: int) -> None:
    x = drive(rows)
    assert (device.forward(x) - IqModulator(noise=0.0).ideal(x)).abs().max() < 2 * STEP_V


def test_every_value_goes_to_its_channel_and_comes_back_from_its_own() -> None:
    device, _ = made()
    agree(device, 1)
    agree(device, 500)
    assert device.forward(torch.empty(0, 2)).shape == (0, 2)
    assert device.stats.symbols == 501
    time_s, volts = device.edge()
    assert len(time_s) == len(volts)
    device.follow(0.1)
    agree(device, 20)
    device.close()


@pytest.mark.parametrize(
    "settings",
    [
        WaveformSettings(symbol_rate_hz=50e6, reads_per_symbol=5),
        WaveformSettings(symbol_rate_hz=25e6, samples_per_symbol=4, averages=2),
        WaveformSettings(symbol_rate_hz=1e6, settle=0.0),
    ],
)  # fmt: skip
def test_the_way_of_sampling_does_not_matter(settings: WaveformSettings) -> None:
    device, _ = made(settings=settings)
    agree(device, 50)
    device.close()


def test_the_levels_of_each_drive_follow_its_own_bias() -> None:
    device, _ = made()
    layouts = device._layouts
    before, moved = layouts.follow(0.0, None), layouts.follow((0.25, -0.5), (6.0, 4.0))
    for one, other, by in zip(before, moved, (0.25, -0.5), strict=True):
        assert (other.rest_v, other.low_v, other.high_v) == pytest.approx((one.rest_v + by, one.low_v + by, one.high_v + by))
    device.close()


def test_a_batch_of_many_records() -> None:
    device, _ = made(memory_samples=700)
    agree(device, 1300)
    assert device.stats.records == 3
    device.close()


@pytest.mark.parametrize(
    ("row", "said"),
    [([0.0, 2.1], r"channel 2: .*2\.1 V.*-2 to 2 V"), ([3.1, 0.0], r"channel 1: "), ([0.0, float("nan")], "channel 2")],
)
def test_a_value_out_of_the_range_of_its_channel_sends_nothing(row: list[float], said: str) -> None:
    device, link = made()
    sent = len(link.sent)
    with pytest.raises(OutOfRange, match=said):
        device.forward(torch.tensor([[0.0, 0.0], row]))
    assert len(link.sent) == sent
    device.close()


def test_it_keeps_the_contract_of_a_device() -> None:
    assert check_device(lambda: made()[0], sent=lambda device: cast(Waveform, device).stats.records).passed


def test_a_drive_that_no_reading_shows_and_a_reading_that_shows_no_drive() -> None:
    known = boxes()
    known.plant.set("cable.load2_ohm", 1e-3)  # a short behind the second channel
    with pytest.raises(Misaligned, match=r"reading 1, .* of drive 2: the reading does not follow the drive"):
        made(known.boxes)
    wire = VirtualWire("awg", "scope", NODE, delay_s=12.4e-9, inputs=(VirtualInput("awg", 2),), outputs=(VirtualOutput(4),))
    with pytest.raises(Misaligned, match=r"reading 2, .* of drive 1: the reading does not follow the drive"):
        made(boxes(wire).boxes)


def test_an_output_that_a_person_switches_off_stays_off_whichever_it_is() -> None:
    known = boxes().boxes
    device, _ = made(known)
    agree(device, 10)
    known["awg"].execute(b":OUTP2 0")
    with pytest.raises(SwitchedOff):
        device.forward(drive(10))
    with pytest.raises(SwitchedOff):
        device.reinstate()
    device.close()


def test_the_channels_of_a_generator_are_made_safe_together_down_their_ramps() -> None:
    box = SimulatedGenerator()
    driver = Keysight33600(MemoryLink(box), channels=(2, 1), low_v=(-1.0, -2.0), high_v=2.0, slew_v_per_s=1000.0)
    assert (driver.channels, driver.drive.low, driver.drive.high) == ((2, 1), (-1.0, -2.0), (2.0, 2.0))
    driver.prepare(10e6)
    driver.output(True)
    assert all(each["on"] for each in box.outputs().values())  # type: ignore[index]
    state = SafeState.from_json(driver.safe_state().to_json())
    assert [step.command for step in state.steps] == [":OUTP2 0", ":OUTP1 0"]
    assert carry_out(state, ScpiTalk(Scpi(MemoryLink(box)))) == ""
    assert not any(each["on"] for each in box.outputs().values())  # type: ignore[index]
    assert [each["high_v"] - each["low_v"] < 0.01 for each in box.outputs().values()] == [True, True]  # type: ignore[index]


@pytest.mark.parametrize(
    "wrong", [{"channels": (1, 1)}, {"channels": (1, 3)}, {"channels": (1, 2), "low_v": (-1.0, -1.0, -1.0)}, {"channel": 3}]
)
def test_channels_that_a_generator_does_not_have(wrong: dict[str, Any]) -> None:
    link = MemoryLink(SimulatedGenerator())
    with pytest.raises(ConfigError, match="channel"):
        Keysight33600(link, **wrong)
    assert link.sent == []


def test_a_generator_waits_for_an_edge_where_another_leads() -> None:
    box = SimulatedGenerator()
    driver = Keysight33600(MemoryLink(box), channels=(1, 2))
    driver.prepare(10e6)
    assert box.external() == ()
    driver.prepare(10e6, external=True)
    assert box.external() == (1, 2)


def test_both_channels_of_a_pair_share_a_converter() -> None:
    apart, pair = (InfiniiVision(MemoryLink(SimulatedScope()), channels=two) for two in ((1, 3), (1, 2)))
    assert (apart.highest_rate_hz, pair.highest_rate_hz) == (5e9, 2.5e9)
    assert (apart.memory.most, pair.memory.most) == (4_000_000, 2_000_000)
    for wrong in ({"channels": (1, 5)}, {"channels": (2, 2)}, {"channels": (1, 2), "range_v": (1.0,)}):
        link = MemoryLink(SimulatedScope())
        with pytest.raises(ConfigError):
            InfiniiVision(link, **wrong)  # type: ignore[arg-type]
        assert link.sent == []


def test_each_drive_has_its_markers_and_is_shifted_by_itself() -> None:
    plan = cut(10, Memory(8, 4096), Memory(1, 4096), 2, 1, Frame(markers=3), late=5)
    assert plan.total == 10 + Frame(markers=3).overhead == 10 + OVERHEAD + 4 * SLOT
    assert plan.sent >= 2 * plan.total + 5
    assert (plan.data, plan.tail) == (LEAD + 3 * SLOT, LEAD + 3 * SLOT + 10 + GUARD)
    record = blank(plan, 0, -1, 1, marker_at=2, late=5)
    moved = record.nonzero()[0]
    assert (moved[0], moved[-1]) == (2 * (LEAD + 2 * SLOT) + 5, 2 * (plan.tail + 3 * SLOT - GUARD) + 5 - 1)
    assert not blank(plan, 0, -1, 1, marker_at=None).any()


def test_drives_that_share_a_reading_are_brought_together() -> None:
    missing = Misaligned("nothing")
    first, late, alone = Delay(10e-9, 1.0), Delay(52e-9, -0.5), Delay(900e-9, 1.0)
    # drives 1 and 2 at reading 1, drives 2 and 3 at reading 2, drive 4 at reading 3
    found = [[first, missing, missing], [late, Delay(60e-9, 1.0), missing], [missing, Delay(40e-9, 1.0), missing],
             [missing, missing, alone]]  # fmt: skip
    settled, pairs, lost = arrival(found, 100e6)
    assert lost == []
    assert settled.late == (4, 0, 2, 0)
    assert settled.of(0) == {0: pytest.approx(50e-9), 1: pytest.approx(52e-9)}
    assert settled.spread_s(0) == pytest.approx(2e-9)
    assert settled.delay_s(2) == pytest.approx(900e-9)
    assert (settled.best(1), len(pairs)) == (1, 5)


def test_crosstalk_is_no_marker_unless_there_is_no_other() -> None:
    strong, weak = Delay(10e-9, 1.0), Delay(10e-9, 0.05)
    missing = Misaligned("nothing")
    assert set(arrival([[strong, weak], [weak, strong]], 1e8)[1]) == {(0, 0), (1, 1)}
    assert set(arrival([[strong], [weak]], 1e8)[1]) == {(0, 0), (0, 1)}
    assert [(which, k) for _, which, k in arrival([[strong, missing], [missing, missing]], 1e8)[2]] == [(1, 0), (0, 1), (1, 1)]


def test_drives_that_come_apart_are_named() -> None:
    assert together({0: 2, 1: 2}, "here") == 2
    with pytest.raises(Misaligned, match=r"drive 1 \+0 samples, drive 2 -1 samples"):
        together({0: 0, 1: -1}, "here")
