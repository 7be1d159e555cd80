"""Makers' own clients and drivers of other projects work the simulated scopes and boards unchanged.

pip install hil[interop]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extras import needs

from sim_devices.instruments.keysight_33600 import Keysight33600
from sim_devices.instruments.keysight_m8195a import KeysightM8195A
from sim_devices.instruments.red_pitaya import RedPitaya
from sim_devices.instruments.rohde_schwarz_rtb import RohdeSchwarzRTB
from sim_devices.instruments.tektronix_afg31000 import TektronixAFG31000
from sim_devices.instruments.tektronix_mso import TektronixMSO
from sim_devices.transports.hislip import HislipServer
from sim_devices.transports.socket import SocketServer


@contextmanager
def served(box: Any, kind: type[HislipServer | SocketServer] = SocketServer) -> Iterator[Any]:
    server = kind(box)
    server.start()
    try:
        yield server
    finally:
        server.close()


def taken(scope: Any) -> torch.Tensor:
    """Give an armed scope its trigger; the volts at its first input."""
    window = scope.window()
    volts = 0.2 + 0.3 * torch.sin(torch.arange(window.points) / 100)
    scope.capture(window, {1: volts})
    return volts


def test_tm_devices_of_tektronix_reads_an_mso5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it writes a log
    tm_devices = needs("tm_devices")
    box = TektronixMSO()
    with served(box) as server:
        manager = tm_devices.DeviceManager(verbose=False)
        manager.visa_library = "@py"
        manager.setup_cleanup_enabled = manager.teardown_cleanup_enabled = False
        scope = manager.add_scope("127.0.0.1", connection_type="SOCKET", port=server.port)
        assert (type(scope).__name__, scope.model) == ("MSO5", "MSO54")
        say = scope.commands
        say.ch[1].scale.write(0.1, verify=True)
        say.ch[1].offset.write(0.2, verify=True)
        say.horizontal.mode.write("MANUAL", verify=True)
        say.horizontal.mode.samplerate.write(62.5e6, verify=True)
        say.horizontal.mode.recordlength.write(2000, verify=True)
        say.trigger.a.mode.write("NORMAL", verify=True)
        say.acquire.stopafter.write("SEQUENCE", verify=True)
        say.acquire.state.write("RUN")
        assert [say.trigger.state.query() for _ in range(2)] == ["ARMED", "READY"]
        volts = taken(box)
        assert say.acquire.state.query() == "0"
        say.data.width.write(2)
        say.data.start.write(1)
        say.data.stop.write(2000)
        words = np.array(scope.curve_query(1))  # which sets and verifies source and encoding
        step, place, zero = (float(getattr(say.wfmoutpre, name).query()) for name in ("ymult", "yoff", "yzero"))
        assert np.abs((words - place) * step + zero - volts.numpy()).max() < 2e-4
        manager.close()


def test_tm_devices_of_tektronix_drives_an_afg31000(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tm_devices = needs("tm_devices")
    box = TektronixAFG31000()
    with served(box) as server:
        manager = tm_devices.DeviceManager(verbose=False)
        manager.visa_library = "@py"
        manager.setup_cleanup_enabled = manager.teardown_cleanup_enabled = False
        generator = manager.add_afg("127.0.0.1", connection_type="SOCKET", port=server.port)
        assert type(generator).__name__ == "AFG31052"
        generator.write("*CLS")  # its power was just switched on
        shapes, one = generator.source_device_constants.functions, {"channel": "SOURCE1", "termination": "FIFTY"}
        generator.generate_function(frequency=1e4, function=shapes.SIN, amplitude=1.5, offset=0.25, **one)
        played = box.drive(1)  # it verifies settings and the error queue itself
        assert box.on(1)
        assert (played.levels.min(), played.levels.max()) == pytest.approx((-0.5, 1.0), abs=1e-3)
        generator.setup_burst(frequency=2e4, function=shapes.SIN, amplitude=1.0, offset=0.0, burst_count=3, **one)
        assert box.drive(1).cycles == 3
        manager.close()


def test_pyarbtools_drives_a_keysight_m8195a() -> None:
    pyarbtools = needs("pyarbtools")
    box = KeysightM8195A()
    with served(box) as server:
        generator = pyarbtools.instruments.M8195A("127.0.0.1", port=server.port, reset=True)
        generator.configure(dacMode="single", fs=64e9, amp1=0.4, func="arb")
        assert (generator.fs, generator.amp1, generator.func) == (64e9, 0.4, "ARB")
        sine = np.sin(2 * np.pi * np.arange(2560) / 2560)
        segment = generator.download_wfm(sine, ch=1)
        generator.play(wfmID=segment, ch=1)
        generator.query("*opc?")
        assert box.on(1)
        assert np.abs(box.drive(1).record - 0.2 * np.int8(127 * sine) / 127).max() < 1e-4
        generator.err_check()
        generator.stop(ch=1)
        generator.query("*opc?")
        assert not box.on(1)
        generator.instance.close()


def test_rsinstrument_of_rohde_schwarz_reads_an_rtb2004() -> None:
    rs = needs("RsInstrument")
    box = RohdeSchwarzRTB()
    with served(box, HislipServer) as server:
        scope = rs.RsInstrument(server.resource, True, True, "SelectVisa='@py'")
        assert scope.instrument_model_name == "RTB"
        scope.write_str("TRIG:A:MODE NORM;:TRIG:A:SOUR EXT;:TRIG:A:LEV5 0.5")
        scope.write_float("CHAN1:RANG", 1.0)
        scope.write_float("CHAN1:OFFS", 0.2)
        scope.write_bool("CHAN1:STAT", True)
        scope.write_float("TIM:ACQT", 0.01)
        scope.write_int("ACQ:POIN", 10_000)
        scope.write_str_with_opc("SING")
        volts = taken(box).numpy()
        assert scope.query_str("ACQ:STAT?") == "COMP"
        scope.write_str("FORM REAL,32;:FORM:BORD LSBF;:CHAN1:DATA:POIN MAX")
        assert np.abs(np.array(scope.query_bin_or_ascii_float_list("CHAN1:DATA?")) - volts).max() < 6e-4
        scope.write_str("FORM ASC")
        assert np.abs(np.array(scope.query_bin_or_ascii_float_list("CHAN1:DATA?")) - volts).max() < 6e-4
        with pytest.raises(Exception, match="Header suffix out of range"):
            scope.write_str_with_opc("CHAN9:RANG 1")
        scope.close()


def test_pymeasure_reads_a_red_pitaya() -> None:
    redpitaya = needs("pymeasure.instruments.redpitaya")
    box = RedPitaya()
    with served(box) as server:
        board = redpitaya.RedPitayaScpi(server.resource, visa_library="@py")
        assert (board.board_name, board.buffer_length) == ("STEMlab 125-14 v1.1", 16_384)
        board.acquisition_reset()
        for name, value in {
            "decimation": 8, "average_skipped_samples": False, "acq_units": "VOLTS", "acq_trigger_delay_samples": 8192,
            "acq_trigger_level": 0.25,
        }.items():  # fmt: skip
            setattr(board, name, value)
            assert getattr(board, name) == value, name
        board.acq_format = "ASCII"  # its reading of BIN takes the samples for 64-bit integers
        board.ain1.gain = "LV"
        assert board.ain1.gain == "LV"
        board.acquisition_start()
        board.acq_trigger_source = "CH1_PE"
        assert board.acq_trigger_status is False
        volts = taken(box.parts[1]).numpy()
        assert (board.acq_trigger_status, board.acq_buffer_filled, board.acq_trigger_position) == (True, True, 8192)
        assert np.abs(board.ain1.get_data(1000) - volts[:1000]).max() < 1.3e-4
        assert len(board.ain1.get_data()) == 16_384
        board.aoutslow0.voltage = 0.5
        board.adapter.close()


def test_qcodes_drives_a_keysight_33622a() -> None:
    keysight = needs("qcodes.instrument_drivers.Keysight")
    box = Keysight33600()
    with served(box, HislipServer) as server:
        generator = keysight.Keysight33622A("generator", server.resource, visalib="@py")
        channel = generator.ch1
        for name, value in {
            "function_type": "SQU", "frequency": 12_345.0, "amplitude_unit": "VPP", "amplitude": 1.5, "offset": 0.25,
            "burst_state": "ON", "burst_ncycles": 3, "output": "ON",
        }.items():  # fmt: skip
            channel.parameters[name](value)
            assert channel.parameters[name]() == value, name
        assert box.on(1)
        assert box.drive(1).cycles == 3
        channel.output("OFF")
        assert channel.output() == "OFF"
        assert not box.on(1)
        assert generator.error()[0] == 0
        generator.close()
