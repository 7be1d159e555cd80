"""A driver package that knows nothing of this project works the virtual bench: PyMeasure's 33500 and DSOX1102G drivers.

pip install "hil[interop]"
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from extras import needs

from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import ServedBench, spawn

needs("pymeasure")
agilent = needs("pymeasure.instruments.agilent")
keysight = needs("pymeasure.instruments.keysight")

NODE = Part("sim_devices.mach_zehnder:MachZehnder", {"v_pi_v": 3.5, "phase_rad": -math.pi / 2, "noise": 0.0})
BENCH = VirtualBench(
    boxes=(
        VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600", {"model": "33522B"}),
        VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision"),
    ),
    wires=(VirtualWire("awg", "scope", NODE),),
    transport="all",
)
TERMINATED = {"read_termination": "\n", "write_termination": "\n"}
RATE_HZ = 1e6
POINTS = 1000
CODES = np.linspace(-32767, 32767, POINTS).astype(int)


@pytest.fixture(scope="module")
def bench() -> Iterator[ServedBench]:
    with spawn(BENCH) as served:
        yield served


@pytest.fixture(params=["resources", "vxi11", "sockets"])
def instruments(request: pytest.FixtureRequest, bench: ServedBench) -> Iterator[tuple[Any, Any]]:
    addresses, terminated = getattr(bench, request.param), TERMINATED if request.param == "sockets" else {}
    awg = agilent.Agilent33500(addresses["awg"], visa_library="@py", **terminated)
    scope = keysight.KeysightDSOX1102G(addresses["scope"], visa_library="@py", **terminated)
    for box in (awg, scope):
        box.write("*RST")
        box.clear()
    yield awg, scope
    awg.adapter.close()
    scope.adapter.close()


def volts_expected() -> np.ndarray:
    """The modulator by hand, for a ramp of 4 Vpp."""
    drive, depth, peak_v = CODES / 32767 * 2.0, (1 - 1e-3) / (1 + 1e-3), 0.9 * 10**-0.4
    return peak_v * (1 + depth * np.sin(math.pi * drive / 3.5)) / (1 + depth)


def test_identify(instruments: tuple[Any, Any]) -> None:
    awg, scope = instruments
    assert awg.id.split(",")[1] == "33522B"
    assert scope.id.split(",")[1] == "DSO-X 3024T"


def test_generator_settings(instruments: tuple[Any, Any]) -> None:
    awg, _ = instruments
    channel = awg.ch_1
    channel.output_load = 50
    for name, value in {
        "shape": "SIN", "frequency": 12_345.0, "amplitude": 1.5, "offset": 0.25, "phase": 10.0, "amplitude_unit": "VPP",
        "burst_state": True, "burst_mode": "TRIG", "burst_ncycles": 3, "burst_period": 0.01, "output": True,
        "arb_filter": "OFF", "arb_srate": 1e6, "arb_advance": "SRAT",
    }.items():  # fmt: skip
        setattr(channel, name, value)
        assert getattr(channel, name) == value, name
        assert awg.check_errors() == [], name
    channel.voltage_low, channel.voltage_high = -0.5, 1.5
    assert (channel.amplitude, channel.offset) == (2.0, 0.5)
    awg.trigger_source = "BUS"
    assert awg.trigger_source == "BUS"
    assert awg.check_errors() == []


def test_pulse_and_duty_cycle_are_not_simulated_and_say_so(instruments: tuple[Any, Any]) -> None:
    awg, _ = instruments
    awg.square_dutycycle = 30.0
    awg.pulse_width = 1e-4
    assert [int(error[0]) for error in awg.check_errors()] == [-113, -113]


def test_what_the_front_panel_does(instruments: tuple[Any, Any]) -> None:
    awg, _ = instruments
    awg.display = "measuring"
    awg.clear_display()
    awg.beep()
    awg.ext_trig_out = True
    assert awg.ext_trig_out is True
    awg.phase_sync()
    assert awg.check_errors() == []


def test_scope_settings(instruments: tuple[Any, Any]) -> None:
    _, scope = instruments
    scope.ch1.setup(bwlimit=True, coupling="ac", display=True, invert=True, label="PD", probe_attenuation=1, scale=0.05)
    scope.ch1.offset = 0.1
    assert (scope.ch1.bwlimit, scope.ch1.coupling, scope.ch1.invert, scope.ch1.scale) == (True, "ac", True, 0.05)
    assert scope.ch1.range == pytest.approx(0.4)
    configuration = scope.ch1.current_configuration
    assert (configuration["CHAN"], configuration["COUP"], configuration["OFFS"]) == (1, "AC", 0.1)
    scope.timebase_setup(mode="main", offset=1e-3, scale=1e-4)
    assert scope.timebase_range == pytest.approx(1e-3)
    assert scope.timebase["POS"] == pytest.approx(1e-3)
    scope.acquisition_type, scope.acquisition_mode = "average", "realtime"
    assert (scope.acquisition_type, scope.acquisition_mode) == ("average", "realtime")
    scope.run()
    scope.stop()
    scope.default_setup()
    scope.clear_status()
    assert scope.ask(":SYST:ERR?").startswith("+0,")


def test_upload_trigger_and_download_give_the_physics(instruments: tuple[Any, Any]) -> None:
    awg, scope = instruments
    awg.output_load = 50
    awg.data_volatile_clear()
    awg.data_arb("ramp", CODES, data_format="DAC")
    awg.arb_file, awg.shape = "ramp", "ARB"
    awg.arb_filter, awg.arb_srate = "OFF", RATE_HZ
    awg.amplitude, awg.offset = 4.0, 0.0
    awg.burst_mode, awg.burst_ncycles, awg.burst_state, awg.trigger_source = "TRIG", 1, True, "BUS"
    awg.write("OUTP:SYNC 1")
    awg.output = True
    assert awg.check_errors() == []

    scope.ch1.setup(coupling="dc", probe_attenuation=1, vertical_range=0.8, offset=0.2)
    scope.timebase_setup(mode="main", offset=POINTS / RATE_HZ / 2, horizontal_range=POINTS / RATE_HZ)
    scope.write(":TRIG:EDGE:SOUR EXT;LEV 0.5;:TRIG:SWE NORM;:WAV:POIN:MODE NORM;:WAV:POIN 1000")
    scope.single()
    assert scope.ask(":AER?").strip() == "+1"
    awg.trigger()
    awg.wait_for_trigger()
    data, preamble = scope.download_data("channel1", points=POINTS)
    assert preamble["points"] == len(data) == POINTS
    assert preamble["xincrement"] == pytest.approx(1 / RATE_HZ)
    assert np.abs(data - volts_expected()).max() <= 0.8 / 256  # a step of the 8 bit converter
    assert scope.ask(":SYST:ERR?").startswith("+0,")


def test_float_record(instruments: tuple[Any, Any]) -> None:
    awg, _ = instruments
    awg.data_volatile_clear()
    awg.data_arb("wave", np.round(np.sin(np.linspace(0, 6, 100)), 4), data_format="float")
    awg.arb_file = "wave"
    assert awg.arb_file.strip().strip('"').lower() == "wave"
    assert awg.check_errors() == []


def test_errors_are_read(instruments: tuple[Any, Any]) -> None:
    awg, _ = instruments
    awg.write("SOUR1:VOLT 500")
    awg.write("NONSENSE 3")
    found = awg.check_errors()
    assert [int(error[0]) for error in found] == [-222, -113]
    assert awg.check_errors() == []
