"""Averages in the oscilloscope: the noise falls as by reading each record, and one record comes over the wire."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from array_instruments import ArrayDigitizer, ArrayGenerator
from scripted_link import MessageLink
from test_pairs_of_makers import AFG, DG, KEYSIGHT, MSO, NODE, RTB, SCOPE, SDS, Z_E, Side

from drivers.red_pitaya import RedPitaya
from drivers.waveform.device import Waveform, WaveformSettings
from drivers.waveform.roles import playing, taking
from hil.errors import Changed, ConfigError, InstrumentError, MissedTrigger
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire, assemble
from sim_devices.instruments.red_pitaya import RedPitaya as SimulatedRedPitaya

N, NOISE_V, RANGE_V, DRIVE_V = 16, 5e-3, 0.5, 4.0
AVERAGERS = {"DSO-X 3024T": (DG, SCOPE), "MSO54": (AFG, MSO), "RTB2004": (KEYSIGHT, RTB)}
VOLTS = (2 * torch.rand((8, 40), generator=torch.Generator().manual_seed(5)) - 1) * DRIVE_V


def opened(
    generator: Side, scope: Side, averages: int = 1, by: str = "scope", timing: Any = None, **settings: Any
) -> tuple[Waveform, Any]:
    boxes = tuple(VirtualBox(name, side[0], side[1]) for name, side in (("awg", generator), ("scope", scope)))
    wire = VirtualWire("awg", "scope", Part("sim_devices.mach_zehnder:MachZehnder", NODE), noise_v=NOISE_V)
    bench = assemble(VirtualBench(boxes, (wire,), timing=timing))
    drive = generator[2](MessageLink(bench.boxes["awg"]), low_v=-DRIVE_V, high_v=DRIVE_V, **generator[3])
    read = scope[2](MessageLink(bench.boxes["scope"]), range_v=RANGE_V, offset_v=0.18, **scope[3])
    told = WaveformSettings(symbol_rate_hz=12.5e6, averages=averages, averaged_by=by, **settings)  # type: ignore[arg-type]
    return Waveform(drive, read, told, provenance="twin"), bench


def spread_v(device: Waveform) -> float:
    """Standard deviation of an answer, from two of the same batch."""
    return float((device.forward(VOLTS) - device.forward(VOLTS)).std()) / 2**0.5


@pytest.mark.parametrize("pair", AVERAGERS)
def test_the_noise_falls_and_one_record_is_read(pair: str) -> None:
    single, _ = opened(*AVERAGERS[pair])
    averaged, bench = opened(*AVERAGERS[pair], averages=N)
    try:
        before = bench.plant.shots
        assert spread_v(single) / spread_v(averaged) == pytest.approx(4, rel=0.2)
        one, many = single.stats, averaged.stats
        assert (many.records, many.bytes_down, many.bytes_up) == (one.records, one.bytes_down, one.bytes_up)
        assert many.played_s == pytest.approx(N * one.played_s)
        assert bench.plant.shots - before == N * many.records
    finally:
        single.close()
        averaged.close()


def test_a_record_of_an_average_is_as_long_as_the_scope_reads() -> None:
    device, _ = opened(DG, SCOPE, averages=2)
    try:
        device.forward(VOLTS.repeat(5, 1))
        assert device.stats.records == 2  # 1600 symbols, of which 1000 samples fit
    finally:
        device.close()


@pytest.mark.parametrize("scope", [Z_E, SDS])
def test_a_scope_that_cannot_say_when_it_is_done_is_refused(scope: Side) -> None:
    with pytest.raises(ConfigError, match=r'does not average by itself.*averaged_by = "host"'):
        opened(KEYSIGHT, scope, averages=4)


def test_instruments_that_do_not_average_are_refused() -> None:
    settings = WaveformSettings(averages=4, averaged_by="scope")
    generator = ArrayGenerator()
    with pytest.raises(ConfigError, match=r"ArrayDigitizer has no average\(records\)"):
        Waveform(generator, ArrayDigitizer(generator), settings)
    board = RedPitaya(MessageLink(SimulatedRedPitaya()))
    with pytest.raises(ConfigError, match="but no records"):
        Waveform(playing(board), taking(board), settings)
    with pytest.raises(ConfigError, match=r"so many records.*2 to 10240"):
        opened(AFG, MSO, averages=20_000)


@pytest.mark.parametrize("pair", AVERAGERS)
def test_a_missed_edge_is_told(pair: str) -> None:
    device, bench = opened(*AVERAGERS[pair], averages=4, trigger_timeout_s=0.02)
    try:
        bench.faults.add({"box": "scope", "kind": "missed_trigger", "after": 1})
        with pytest.raises(MissedTrigger, match="for record 2 of 4"):
            device.forward(VOLTS)
        assert spread_v(device) < NOISE_V
    finally:
        device.close()


COUNTS = {"DSO-X 3024T": b":ACQ:COUN 2", "MSO54": b":ACQ:NUMAV 2", "RTB2004": b":ACQ:AVER:COUN 5"}


@pytest.mark.parametrize("pair", AVERAGERS)
def test_another_count_by_another_hand_is_seen(pair: str) -> None:
    device, bench = opened(*AVERAGERS[pair], averages=4, trigger_timeout_s=0.02)
    try:
        device.forward(VOLTS)
        bench.boxes["scope"].execute(COUNTS[pair])
        with pytest.raises((Changed, InstrumentError, MissedTrigger), match=r"averages \+?4\S* -> |average all records"):
            device.forward(VOLTS)
    finally:
        device.close()


@pytest.mark.parametrize("pair", AVERAGERS)
def test_no_edge_comes_while_a_slow_scope_works_on_a_record(pair: str) -> None:
    slow = {"acquire_s": 4e-3, "arm_s": 1e-3, "trigger_s": 1e-3}
    device, _ = opened(*AVERAGERS[pair], averages=4, timing=slow, trigger_timeout_s=0.5)
    try:
        device.forward(VOLTS)
        assert device.stats.wait_s > 4 * 5e-3
    finally:
        device.close()
