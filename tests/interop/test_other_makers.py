"""Driver packages that know nothing of this project work the simulated Siglent and Rigol boxes: those of QCoDeS and PyMeasure.

pip install hil[interop]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from extras import needs

from sim_devices.instruments.rigol_dg import RigolDG
from sim_devices.instruments.rigol_scope import RigolScope
from sim_devices.instruments.siglent_sdg import SiglentSDG
from sim_devices.instruments.siglent_sds import SiglentSDS
from sim_devices.instruments.tektronix_afg31000 import TektronixAFG31000
from sim_devices.transports.hislip import HislipServer
from sim_devices.transports.socket import SocketServer


@contextmanager
def served(box: Any, kind: type[HislipServer | SocketServer] = HislipServer) -> Iterator[str]:
    server = kind(box)
    server.start()
    try:
        yield server.resource
    finally:
        server.close()


def test_qcodes_contrib_drives_a_siglent_sdg2042x() -> None:
    sdg = needs("qcodes_contrib_drivers.drivers.Siglent.sdg")
    box = SiglentSDG()
    with served(box) as resource:
        generator = sdg.Siglent_SDG_2042X("sdg", resource, visalib="@py")
        assert generator.get_idn()["model"] == "SDG2042X"
        channel = generator.channel1
        for name, value in {
            "load": 50, "polarity": "inverted", "wave_type": "square", "frequency": 12345.5, "amplitude": 2.5, "offset": 0.25,
            "phase": 90.0, "high_level": 2.0, "low_level": -1.0,
        }.items():  # fmt: skip
            channel.parameters[name](value)
            assert channel.parameters[name]() == value, name
        assert (channel.amplitude(), channel.offset()) == (3.0, 0.5)
        channel.enabled(True)
        assert channel.enabled() is True
        assert box.on(1)
        channel.enabled(False)
        assert channel.enabled() is False
        assert not box.on(1)
        box.execute(b"C1:WVDT WVNM,ramp,WAVEDATA," + np.arange(100, dtype="<i2").tobytes())
        channel.wave_type("arb")
        generator.write("C1:ARWV NAME,ramp")
        assert generator.ask("C1:ARWV?").endswith("NAME,RAMP")
        generator.close()


def test_qcodes_reads_a_rigol_ds1000z() -> None:
    ds1074z = needs("qcodes.instrument_drivers.rigol")
    box = RigolScope(model="DS1104Z")
    with served(box) as resource:
        scope = ds1074z.RigolDS1074Z("scope", resource, visalib="@py")
        scope.trigger_mode("edge")
        scope.trigger_edge_source("ch4")
        scope.trigger_edge_slope("positive")
        scope.trigger_level(0.5)
        assert float(scope.trigger_level()) == 0.5
        scope.channels[0].vertical_scale(0.1)
        assert scope.channels[0].vertical_scale() == 0.1
        for command in (":CHAN1:OFFS -0.2", ":TIM:SCAL 1e-4", ":SING"):
            scope.write(command)
        assert scope.ask("*OPC?") == "1"  # all of it was executed
        window = box.window()
        volts = 0.2 + 0.3 * torch.sin(torch.arange(window.points) / 1000)
        box.capture(window, {1: volts})
        scope.data_source("ch1")
        scope.waveform_npoints(1200)
        measured, instants = scope.channels[0].trace(), scope.time_axis()
        assert len(measured) == len(instants) == 1200
        assert np.abs(measured - volts[:: window.points // 1200].numpy()).max() <= 0.1 / 25
        scope.close()


def test_pymeasure_reads_a_siglent_sds1000x_hd() -> None:
    siglent = needs("pymeasure.instruments.siglenttechnologies")
    box = SiglentSDS()
    with served(box) as resource:
        scope = siglent.SDS1000XHD(resource, visa_library="@py")
        scope.channel_1.scale, scope.channel_1.offset, scope.channel_1.coupling = 0.1, -0.2, "DC"
        scope.channel_1.display_enabled, scope.channel_2.display_enabled = True, False
        assert (scope.channel_1.scale, scope.channel_1.offset, scope.channel_1.coupling) == (0.1, -0.2, "DC")
        scope.timebase.scale, scope.timebase.delay = 1e-4, 2e-4
        assert (scope.timebase.scale, scope.timebase.delay) == (1e-4, 2e-4)
        scope.acquisition.memory_depth = "10K"
        scope.trigger.edge_source, scope.trigger.edge_slope = "EX", "RISing"
        scope.trigger.edge_level = 0.5
        assert scope.trigger.edge_level == 0.5
        scope.trigger.mode = "SINGle"
        assert [scope.trigger.status.strip() for _ in range(2)] == ["Arm", "Ready"]
        window = box.window()
        instants = window.start_s + torch.arange(window.points, dtype=torch.float64) / window.rate_hz
        box.capture(window, {1: 0.2 + 0.3 * torch.sin(instants * 1e5)})
        assert scope.trigger.status.strip() == "Stop"
        waveform, visa = scope.wf_C1, scope.adapter.connection
        waveform.source, waveform.width = "C1", "WORD"
        assert waveform.max_point >= scope.acquisition.points == 10_000
        # its own reading of blocks waits for ever over HiSLIP, so PyVISA reads them, and the driver says what they mean
        block = visa.query_binary_values(":WAV:PRE?", "B", container=bytes)
        told = waveform._parse_preamble_descriptor(b"#9%09d" % len(block) + block)
        codes = np.array(visa.query_binary_values(":WAV:DATA?", "h"))
        volts = codes / told["vcode_per"] * told["vdiv"] - told["voffset"]
        seconds = -told["tdiv"] * 10 / 2 + np.arange(len(codes)) * told["interval"] + told["trdl"]
        assert len(volts) == 10_000
        assert np.abs(volts - (0.2 + 0.3 * np.sin(seconds * 1e5))).max() < 1e-3
        scope.adapter.close()


def test_pymeasure_drives_a_rigol_dg800() -> None:
    rigol = needs("pymeasure.instruments.rigol")
    box = RigolDG()
    with served(box) as resource:
        generator = rigol.DG800(resource, visa_library="@py")
        channel = generator.channel_1
        assert channel.load == pytest.approx(9.9e37)
        channel.load = 50
        assert channel.load == 50
        channel.sine = (12_345.0, 2.5, 0.25, 10.0)
        assert channel.shape == "SIN"
        assert channel.frequency == 12_345
        assert channel.waveform[0].strip('"') == "SIN"
        channel.square = (1e3, 1.0, 0.0, 0.0)
        assert (channel.shape, channel.frequency) == ("SQU", 1e3)
        channel.sync_enabled = True
        assert channel.sync_enabled is True
        channel.output_enabled = True
        assert channel.output_enabled is True
        assert box.on(1)
        channel.output_enabled = False
        assert channel.output_enabled is False
        assert not box.on(1)
        generator.adapter.close()


def test_pymeasure_drives_a_tektronix_afg31000() -> None:
    tektronix = needs("pymeasure.instruments.tektronix")
    box = TektronixAFG31000()
    with served(box) as resource:
        generator = tektronix.AFG3152C(resource, visa_library="@py")
        channel = generator.ch1
        for name, value in {
            "shape": "ramp", "unit": "VPP", "amp_vpp": 2.5, "offset": 0.25, "frequency": 12_345.0,
        }.items():  # fmt: skip
            setattr(channel, name, value)
            assert getattr(channel, name) == value, name
        channel.waveform("SIN", 1e4, "VPP", 1, 0.5)
        assert (channel.shape, channel.amp_vpp, channel.offset) == ("sinusoidal", 1.0, 0.5)
        generator.beep()
        assert generator.opc() == 1
        assert box.drive(1).sample_rate_hz == pytest.approx(1e4 * 1000)  # a thousand points of a sine
        generator.adapter.close()


def test_pydho800_reads_a_rigol_dho804() -> None:
    pydho800 = needs("pydho800.pydho800")
    box = RigolScope(model="DHO804", serial="DHO8SIM")
    server = SocketServer(box)
    server.start()
    scope = pydho800.PYDHO800("127.0.0.1", server.port, useNumpy=True)
    scope._connect("127.0.0.1", server.port)
    scope.set_channel_enable(0, True)
    assert scope.is_channel_enabled(0)
    scope.set_timebase_scale(1e-4)
    assert scope.get_timebase_scale() == pytest.approx(1e-4)
    for command in (b":CHAN1:SCAL 0.1", b":CHAN1:OFFS 0", b":SING"):
        box.execute(command)
    window = box.window()
    volts = 0.3 * torch.sin(torch.arange(window.points) / 1000)
    box.capture(window, {1: volts})
    found = scope.query_waveform(0)
    assert (
        np.abs(np.asarray(found["y"]) - volts[:: max(1, window.points // len(found["y"]))].numpy()[: len(found["y"])]).max()
        < 0.01
    )
    scope._disconnect()
    server.close()
