"""PyMeasure's drivers of a source-meter, a power supply and a laser work the simulated boxes, word by word.

pip install "hil[interop]"
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from extras import needs

from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import RunningBench, build

needs("pymeasure")
keithley = needs("pymeasure.instruments.keithley")
keysight = needs("pymeasure.instruments.keysight")

BENCH = VirtualBench(
    boxes=(
        VirtualBox("smu", "sim_devices.instruments.keithley_2400:Keithley2400", {"load_ohm": 2e3}),
        VirtualBox("supply", "sim_devices.instruments.keysight_e36300:KeysightE36312A"),
        VirtualBox("laser", "sim_devices.instruments.keysight_n7776c:KeysightN7776C"),
    ),
    transport="all",
)
TERMINATED = {"read_termination": "\n", "write_termination": "\n"}


@pytest.fixture(scope="module")
def bench() -> Iterator[RunningBench]:
    with build(BENCH) as running:
        yield running


@pytest.fixture(params=["resources", "vxi11", "sockets"])
def wire(request: pytest.FixtureRequest, bench: RunningBench) -> tuple[dict[str, str], dict[str, str]]:
    return getattr(bench, request.param), TERMINATED if request.param == "sockets" else {}


def test_the_source_meter(wire: tuple[dict[str, str], dict[str, str]]) -> None:
    addresses, terminated = wire
    smu = keithley.Keithley2400(addresses["smu"], visa_library="@py", **terminated)
    try:
        smu.reset()
        assert "MODEL 2400" in smu.id
        smu.source_mode = "voltage"
        smu.source_voltage_range, smu.source_voltage = 2.0, 1.0
        smu.compliance_current, smu.current_range, smu.current_nplc = 1e-3, 1e-3, 0.1
        assert (smu.source_mode, smu.source_voltage, smu.current_nplc) == ("voltage", 1.0, 0.1)
        smu.source_enabled = True
        assert smu.source_enabled is True
        assert smu.current == pytest.approx(5e-4)
        found = smu.measure_all()
        assert (found["voltage"], found["current"]) == (1.0, pytest.approx(5e-4))
        smu.compliance_current = 1e-4
        assert smu.current == pytest.approx(1e-4)
        smu.source_voltage = 3.0  # beyond the range that was chosen
        assert smu.source_voltage == 1.0
        smu.source_enabled = False
        assert smu.source_enabled is False
        assert [int(error[0]) for error in smu.check_errors()] == [-113, -222]  # resistance is not simulated, and says so
    finally:
        smu.adapter.close()


def test_the_power_supply(wire: tuple[dict[str, str], dict[str, str]], bench: RunningBench) -> None:
    addresses, terminated = wire
    supply = keysight.KeysightE36312A(addresses["supply"], visa_library="@py", **terminated)
    try:
        supply.reset()
        for channel, volts in ((supply.ch_1, 1.5), (supply.ch_2, 12.0)):
            channel.voltage_setpoint, channel.current_limit = volts, 0.05
            channel.output_enabled = True
            assert (channel.voltage_setpoint, channel.current_limit) == (volts, 0.05)
            assert channel.output_enabled is True
            assert (channel.voltage, channel.current) == (volts, 0.0)
        assert supply.ch_3.output_enabled is False
        assert bench.boxes["supply"].outputs()["2"] == {"on": True, "low_v": 12.0, "high_v": 12.0}
        assert supply.check_errors() == []
    finally:
        supply.adapter.close()


def test_the_laser(wire: tuple[dict[str, str], dict[str, str]]) -> None:
    addresses, terminated = wire
    laser = keysight.KeysightN7776C(addresses["laser"], visa_library="@py", **terminated)
    try:
        laser.write("*RST")
        laser.output_power_mW = 2.0
        assert laser.output_power_mW == pytest.approx(2.0)
        assert laser.output_power_dBm == pytest.approx(3.0103, abs=1e-3)
        laser.output_power_dBm = 0.0
        assert laser.output_power_mW == pytest.approx(1.0)
        laser.wavelength = 1550.5
        assert laser.wavelength == pytest.approx(1550.5)
        laser.output_enabled = 1
        assert laser.output_enabled
        assert laser.ask(":SYST:ERR?").startswith("+0,")
    finally:
        laser.adapter.close()
