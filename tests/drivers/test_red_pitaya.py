"""The Red Pitaya: one board in both roles, its traps, and how it shows that another hand was there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scripted_link import MessageLink

from drivers.red_pitaya import RedPitaya
from drivers.waveform.device import Waveform, WaveformSettings
from drivers.waveform.roles import parts
from hil.errors import (
    Changed,
    CommandRefused,
    ConfigError,
    InstrumentError,
    LinkError,
    MeasurementError,
    WrongInstrument,
)
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire, assemble
from sim_devices.instruments.keysight_33600 import Keysight33600
from sim_devices.instruments.red_pitaya import RedPitaya as Box
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

NODE = {"v_pi_v": 0.7, "phase_rad": -1.2, "noise": 0.0}
STEP_V = 2 / 2**14


def opened(real_ohm: float | None = 50.0, **given: Any) -> tuple[Waveform, Any, RedPitaya]:
    wire = VirtualWire("p", "p", Part("sim_devices.mach_zehnder:MachZehnder", NODE), delay_s=24.8e-9, load_ohm=real_ohm)
    bench = VirtualBench((VirtualBox("p", "sim_devices.instruments.red_pitaya:RedPitaya"),), (wire,))
    box: Any = assemble(bench).boxes["p"]
    board = RedPitaya(MessageLink(box), low_v=-0.8, high_v=0.8, **given)
    settings = WaveformSettings(symbol_rate_hz=125e6 / 64, trigger_timeout_s=0.1)
    return Waveform(board.generator, board.digitizer, settings, provenance="twin", order=parts(board)), box, board


def drive(batch: int = 10) -> torch.Tensor:
    return (2 * torch.rand((batch, 40), generator=torch.Generator().manual_seed(5)) - 1) * 0.8


@pytest.mark.parametrize(("load_ohm", "real_ohm"), [(50.0, 50.0), (float("inf"), None)])
def test_both_ways_agree_to_one_step(load_ohm: float, real_ohm: float | None) -> None:
    device, box, _ = opened(real_ohm, load_ohm=load_ohm)
    error = (device.forward(drive()) - Simulated(MachZehnder(**NODE)).forward(drive())).abs()
    assert float(error.max()) <= 1.2 * STEP_V + 4e-4  # and a step of 14 bits of the drive
    assert box.on(1)
    device.close()
    assert not box.on(1)


def test_a_hand_is_noticed_and_a_power_cut_never_passes_for_data() -> None:
    device, box, _ = opened()
    before = device.forward(drive())
    box.press("SOUR1:VOLT 0.5")
    device.attend()
    with pytest.raises(Changed, match="amplitude"):
        device.forward(drive())
    device.reinstate()
    assert torch.allclose(device.forward(drive()), before, atol=2 * STEP_V)
    box.reboot()
    with pytest.raises((MeasurementError, InstrumentError, LinkError)):
        device.forward(drive())
    device.close()


def test_both_channels_play_at_one_trigger_and_are_read() -> None:
    box = Box()
    board = RedPitaya(MessageLink(box), channels=(1, 2), low_v=-0.5, high_v=0.5)
    started: list[tuple[int, ...]] = []

    class Cables:
        def fired(self, source: Any, channels: tuple[int, ...]) -> None:
            started.append(channels)

        def switched(self, source: Any, channel: int, on: bool) -> None: ...

        def moved(self, source: Any, channel: int) -> None: ...

    box.parts[0].connect(Cables())
    board.generator.prepare(1.25e6)
    for k in (0, 1):
        board.generator.upload(np.arange(64, dtype=np.int16) * 100, k)
    board.generator.output(True)
    board.generator.trigger()
    assert started == [(1, 2)]
    assert box.parts[0].drive(2).levels.max() == pytest.approx(0.5 * 6300 / 32767, abs=1e-4)
    board.close()


def test_what_the_board_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="range 2 V"):
        RedPitaya(MessageLink(Box()), range_v=1.0)
    with pytest.raises(WrongInstrument):
        RedPitaya(MessageLink(Keysight33600()))
    board = RedPitaya(MessageLink(Box()))
    with pytest.raises(ConfigError, match="does not sample at a multiple"):
        board.digitizer.configure(64, 3e6, 0.0)
    board.generator.prepare(1.25e6)
    board.generator._rate_hz = 1e12  # beyond what a record of two can be played at
    with pytest.raises(CommandRefused, match="did not take the record"):
        board.generator.upload(np.zeros(2, np.int16))
    board.close()


def test_the_box_has_the_traps_of_the_server() -> None:
    box = Box()
    box.execute(b"SOUR1:VOLT 0.25")
    box.execute(b"*RST")  # which does nothing
    assert box.execute(b"SOUR1:VOLT?") == b"0.25"
    assert box.execute(b"ACQ:SOUR1:DATA:OLD:N? 2") == b"{0,0}"  # text until it is told otherwise
    box.execute(b"ACQ:DATA:FORMAT BIN")
    box.parts[1].start(type("Call", (), {"none": lambda self: None})())
    box.execute(b"ACQ:TRIG CH1_PE")
    box.parts[1].capture(box.parts[1].window(), {1: torch.full((16_384,), 0.5)})
    reply = box.execute(b"ACQ:SOUR1:DATA:OLD:N? 2")
    assert reply is not None
    assert reply[:3] == b"#18"
    assert np.frombuffer(reply[3:], ">f4") == pytest.approx(0.5, abs=1e-4)
    box.execute(b"SOUR1:VOLT:OFFS 0.9")  # with the amplitude beyond 1 V
    assert b"-222" in (box.execute(b"SYST:ERR?") or b"")
