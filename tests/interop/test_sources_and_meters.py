"""Drivers of other projects work the simulated source-meters, meters, lasers and heater drivers, unchanged.

pip install hil[interop]
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import pyvisa
from extras import needs

from sim_devices.instruments.keithley_2450 import Keithley2450
from sim_devices.instruments.keithley_dmm6500 import KeithleyDMM6500
from sim_devices.instruments.keysight_8164 import Keysight8164
from sim_devices.instruments.keysight_b2900 import KeysightB2900
from sim_devices.instruments.qontrol import Qontrol
from sim_devices.instruments.thorlabs_pm100d import ThorlabsPM100D
from sim_devices.transports.hislip import HislipServer
from sim_devices.transports.pty import PtyServer


@contextmanager
def served(box: Any) -> Iterator[str]:
    server = HislipServer(box)
    server.start()
    try:
        yield server.resource
    finally:
        server.close()


def no_errors(ask: Any) -> None:
    assert ask("SYST:ERR?").lstrip("+").startswith("0,")


def test_pymeasure_drives_a_keithley_2450() -> None:
    keithley = needs("pymeasure.instruments.keithley")
    with served(Keithley2450(load_ohm=2e3)) as resource:
        smu = keithley.Keithley2450(resource, visa_library="@py")
        smu.reset()
        smu.apply_voltage(2.0, compliance_current=1e-3)
        smu.measure_current(nplc=0.1, current=1e-3, auto_range=False)
        smu.source_voltage = 1.0
        smu.enable_source()
        assert smu.current == pytest.approx(5e-4)
        assert (smu.source_voltage, smu.current_nplc) == (1.0, 0.1)
        smu.compliance_current = 1e-4
        assert smu.current == pytest.approx(1e-4)
        smu.measure_voltage(nplc=1, voltage=2.0, auto_range=False)
        assert smu.voltage == pytest.approx(1.0)
        smu.disable_source()
        no_errors(smu.ask)
        smu.adapter.close()


def test_qcodes_drives_a_keithley_2450() -> None:
    keithley = needs("qcodes.instrument_drivers.Keithley")
    with served(Keithley2450(load_ohm=2e3)) as resource:
        smu = keithley.Keithley2450("smu", resource, visalib="@py")
        smu.source_function("voltage")
        smu.sense_function("current")
        smu.source.range(2.0)
        smu.source.limit(1e-3)
        smu.sense.range(1e-3)
        smu.sense.nplc(0.1)
        smu.output_enabled(True)
        smu.source.voltage(1.0)
        assert smu.sense.current() == pytest.approx(5e-4)
        assert smu.source.limit_tripped() is False
        smu.source.limit(1e-4)
        assert smu.source.limit_tripped() is True
        smu.source.limit(1e-3)
        smu.source.sweep_setup(0.0, 1.0, 11)
        assert smu.sense.sweep() == pytest.approx(np.linspace(0, 5e-4, 11))
        with smu.buffer("own", size=20, style="FULL") as own:
            own.elements(["source_value", "measurement", "source_value_status"])
            own.trigger_start()
            assert [float(part) for part in own.get_last_reading().split(",")] == [1.0, 5e-4, 128]
            assert own.number_of_readings() == 1
        smu.output_enabled(False)
        no_errors(smu.ask)
        smu.close()


def test_pymeasure_reads_a_keithley_dmm6500() -> None:
    keithley = needs("pymeasure.instruments.keithley")
    with served(KeithleyDMM6500(there=1.25)) as resource:
        meter = keithley.KeithleyDMM6500(resource, visa_library="@py")
        meter.mode = "voltage"
        meter.range = 9.0
        assert meter.range == 10.0
        meter.nplc = 0.5
        assert meter.nplc == 0.5
        assert meter.voltage == pytest.approx(1.25)
        meter.voltage_range = 0.1
        assert meter.voltage > 9e37
        meter.measure_current()
        assert meter.mode == "current"
        no_errors(meter.ask)
        meter.adapter.close()


def test_qcodes_reads_a_keithley_dmm6500() -> None:
    keithley = needs("qcodes.instrument_drivers.Keithley")
    with served(KeithleyDMM6500(there=1.25)) as resource:
        meter = keithley.Keithley6500("meter", resource, visalib="@py")
        meter.mode("dc voltage")
        meter.nplc(1.0)
        meter.range(10.0)
        meter.averaging_count(7)
        meter.averaging_type("moving")
        assert (meter.mode(), meter.nplc(), meter.range(), meter.averaging_count(), meter.averaging_type()) == (
            "dc voltage", 1.0, 10.0, 7, "moving",
        )  # fmt: skip
        assert meter.amplitude() == pytest.approx(1.25)
        no_errors(meter.ask)
        meter.close()


def test_qcodes_drives_a_keysight_b2900() -> None:
    keysight = needs("qcodes.instrument_drivers.Keysight")
    with served(KeysightB2900(load_ohm=2e3)) as resource:
        smu = keysight.KeysightB2962A("b2900", resource, visalib="@py")
        assert smu.get_idn()["model"] == "B2902A"
        for channel, volts in ((smu.ch1, 1.0), (smu.ch2, -0.5)):
            channel.current_limit(1e-3)
            channel.source_voltage(volts)
            channel.enable("on")
            assert channel.source_voltage() == volts
            assert channel.voltage() == volts
            assert channel.current() == pytest.approx(volts / 2e3)
            assert channel.resistance() == pytest.approx(2e3)
            channel.enable("off")
        no_errors(smu.ask)
        smu.close()


def test_pymeasure_drives_the_laser_of_a_keysight_8164() -> None:
    keysight = needs("pymeasure.instruments.keysight")
    with served(Keysight8164()) as resource:
        laser = keysight.KeysightN7776C(resource, visa_library="@py")
        laser.output_power_mW = 2.0
        assert laser.output_power_dBm == pytest.approx(3.0103, abs=1e-3)
        laser.wavelength = 1550.5
        assert laser.wavelength == pytest.approx(1550.5)
        laser.output_enabled = 1
        assert laser.output_enabled
        no_errors(laser.ask)
        laser.adapter.close()


def test_pymeasure_reads_a_thorlabs_pm100d() -> None:
    thorlabs = needs("pymeasure.instruments.thorlabs")
    with served(ThorlabsPM100D(power_w=5e-4)) as resource:
        meter = thorlabs.ThorlabsPM100USB(resource, visa_library="@py")
        assert (meter.sensor_name, meter.is_power_sensor, meter.wavelength_settable) == ("S144C", True, True)
        assert meter.power == pytest.approx(5e-4)
        meter.wavelength = 2000.0  # it asks for the largest one, and sets that
        assert meter.wavelength == 1700.0
        assert meter.power == pytest.approx(5e-4 * 1550 / 1700)
        no_errors(meter.ask)
        meter.adapter.close()


def test_the_package_thorlabspm100_reads_a_pm100d() -> None:
    package = needs("ThorlabsPM100")
    with served(ThorlabsPM100D(power_w=5e-4)) as resource:
        wire = pyvisa.ResourceManager("@py").open_resource(resource)
        meter = package.ThorlabsPM100(inst=wire)
        meter.sense.average.count = 10
        assert meter.sense.average.count == 10
        assert meter.read == pytest.approx(5e-4)
        meter.sense.correction.wavelength = 1310
        assert meter.sense.correction.wavelength == 1310
        meter.sense.power.dc.range.upper = 1e-3
        assert meter.sense.power.dc.range.upper == pytest.approx(1.3e-3)
        assert meter.sense.power.dc.unit.strip() == "W"
        meter.configure.scalar.power()
        meter.initiate.immediate()
        assert meter.fetch == pytest.approx(5e-4 * 1550 / 1310)
        no_errors(wire.query)
        wire.close()


def test_qcodes_contrib_reads_a_thorlabs_pm100d(monkeypatch: pytest.MonkeyPatch) -> None:
    module = needs("qcodes_contrib_drivers.drivers.Thorlabs.PM100D")
    monkeypatch.setattr(module, "sleep", lambda seconds: None)  # 5 s at its start
    with served(ThorlabsPM100D(power_w=5e-4)) as resource:
        meter = module.Thorlab_PM100D("power", resource, visalib="@py")
        assert meter.power() == pytest.approx(5e-4)
        meter.power_range(1e-3)
        assert meter.power_range() == pytest.approx(1.3e-3)
        meter.auto_range(True)
        assert meter.auto_range() is True
        meter.close()


@pytest.mark.parametrize("binary", [False, True])
def test_qontrols_own_client_drives_a_q8iv(binary: bool) -> None:
    client = needs("qontrol")
    box = Qontrol(modules=2, load_ohm=1e3)
    with PtyServer(box) as line:
        heaters = client.QXOutput(serial_port_name=line.port, response_timeout=0.5, binary_mode=binary)
        try:
            assert heaters.device_id == "Q8iv-0001"
            assert (heaters.n_chs, heaters.v_full, heaters.i_full) == (16, 12.0, 24.0)
            assert [module["device_id"] for module in heaters.chain] == ["Q8iv-0001", "Q8iv-0002"]
            heaters.v[3] = 4.5
            assert heaters.v[3] == pytest.approx(4.5, abs=1e-3)
            assert heaters.i[3] == pytest.approx(4.5, abs=1e-3)
            heaters.set_all_values("V", [0.25 * k for k in range(16)])
            assert heaters.get_all_values("V") == pytest.approx([0.25 * k for k in range(16)], abs=1e-3)
            heaters.v[15] = 0.0
            heaters.imax[15] = 2.0
            heaters.v[15] = 5.0
            time.sleep(0.05)
            assert heaters.v[15] == 0.0
            assert [entry["raw"] for entry in heaters.log if entry["type"] == "err"] == ["E02:15"]
            assert box.stands(3) == pytest.approx(0.75, abs=1e-3)
        finally:
            heaters.close()
