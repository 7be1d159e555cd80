"""drivers/picoscope.py: a PicoScope in both roles of a bench, through an unmodified picosdk and a simulated library.

A C compiler makes the library.
"""

from __future__ import annotations

import ctypes
import io
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extras import needs
from rich.console import Console

from drivers.picoscope import BASES, PicoScope5000
from drivers.picosdk import Unit
from drivers.safe import SafeState, carry_out, conversation
from drivers.scpi import Expect
from drivers.waveform.device import Waveform, WaveformSettings
from drivers.waveform.roles import parts
from hil.commands.transcript import transcribe
from hil.conformance import Knob, check_instrument
from hil.errors import CommandRefused, ConfigError, HilError, LinkError, OpenFailed, OutOfRange, Saturated, WrongInstrument
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import RunningBench, build
from sim_devices.instruments.picoscope import PicoScope, interval_s
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

needs("picosdk")
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

NODE = {"v_pi_v": 0.7, "phase_rad": -1.2, "noise": 0.0}
RATE_HZ = 200e6 / 128
STEP_V = 2 / 2**14


def bench(load_ohm: float | None = None, **settings: Any) -> RunningBench:
    box = VirtualBox("p", "sim_devices.instruments.picoscope:PicoScope", settings)
    wire = VirtualWire("p", "p", Part("sim_devices.mach_zehnder:MachZehnder", NODE), delay_s=24.8e-9, load_ohm=load_ohm)
    return build(VirtualBench((box,), (wire,)))


@pytest.fixture
def running() -> Iterator[RunningBench]:
    with bench() as found:
        yield found


def opened(running: RunningBench, **given: Any) -> PicoScope5000:
    return PicoScope5000(running.resources["p"], **{"low_v": -0.8, "high_v": 0.8, **given})


def box_of(running: RunningBench) -> Any:
    return running.boxes["p"]


def waveform(unit: PicoScope5000, **more: Any) -> Waveform:
    settings = WaveformSettings(symbol_rate_hz=RATE_HZ, trigger_timeout_s=0.5, **more)
    return Waveform(unit.generator, unit.digitizer, settings, provenance="twin", order=parts(unit))


def drive(batch: int = 10) -> torch.Tensor:
    return (2 * torch.rand((batch, 40), generator=torch.Generator().manual_seed(5)) - 1) * 0.8


def play(unit: PicoScope5000, rate_hz: float = RATE_HZ) -> None:
    unit.generator.prepare(rate_hz)
    unit.generator.upload(np.full(64, 1000, np.int16))
    unit.generator.output(True)


class Frame:
    """The generator, and the truth behind it."""

    def __init__(self) -> None:
        self.running = bench()
        self.driver, self.box = opened(self.running), box_of(self.running)
        self.calls = 0
        self._execute = self.box.execute
        self.box.execute = self._counted

    def _counted(self, message: Any) -> Any:
        self.calls += bytes(message).startswith((b"SIGG:ARB", b"SIGG:BUIL"))
        return self._execute(message)

    def identify(self) -> object:
        return self.driver.identity

    def knobs(self) -> Sequence[Knob]:
        return [Knob("sample rate", self._play, self._rate_hz, (RATE_HZ, 2 * RATE_HZ), (1e9, 0.0, math.nan))]

    def _play(self, rate_hz: float) -> None:
        play(self.driver, rate_hz)

    def _rate_hz(self) -> float:
        return float(self.box.parts[0].drive(1).sample_rate_hz)

    def energise(self) -> bool:
        self._play(RATE_HZ)
        return bool(self.box.on(1))

    def safe(self) -> None:
        self.driver.safe()

    def is_safe(self) -> bool:
        return not self.box.on(1)

    def sent(self) -> int:
        return self.calls

    def close(self) -> None:
        self.driver.close()
        self.running.close()


def test_the_contract_of_an_instrument() -> None:
    assert check_instrument(Frame).passed


@pytest.mark.parametrize(("load_ohm", "real_ohm"), [(math.inf, None), (600.0, 600.0)])
def test_both_ways_agree_to_one_step(load_ohm: float, real_ohm: float | None) -> None:
    with bench(real_ohm) as running:
        unit = opened(running, load_ohm=load_ohm)
        device = waveform(unit)
        error = (device.forward(drive()) - Simulated(MachZehnder(**NODE)).forward(drive())).abs()
        assert float(error.max()) <= 1.2 * STEP_V + 4e-4  # and a step of 14 bits of the drive
        assert box_of(running).on(1)
        device.close()
        assert not box_of(running).on(1)


@pytest.mark.parametrize("bits", [8, 12, 14])
def test_each_resolution_has_its_timebases(running: RunningBench, bits: Any) -> None:
    base = BASES[bits]
    for divider in base.dividers[:20]:
        assert interval_s(base.number(divider), bits) == pytest.approx(divider / base.clock_hz)
    device = waveform(opened(running, bits=bits))
    far = (device.forward(drive()) - Simulated(MachZehnder(**NODE)).forward(drive())).abs().max()
    assert float(far) <= 2 * 2 / 2**bits + 4e-4
    device.close()


def test_a_rate_that_is_not_on_its_ladder_is_refused_before_anything_is_played(running: RunningBench) -> None:
    unit = opened(running)
    with pytest.raises(ConfigError, match=r"1525\.87891 Sa/s.*1562500"):
        unit.generator.prepare(2e6)
    assert not box_of(running).on(1)
    with pytest.raises(ConfigError, match="another generator"):
        unit.generator.prepare(RATE_HZ, external=True)
    with pytest.raises(ConfigError, match="10 to 32768"):
        unit.generator.upload(np.zeros(9, np.int16))
    unit.close()


def test_a_coarser_converter_stays_coarse_whatever_it_is_told() -> None:
    with bench(adc_bits=8) as running:
        device = waveform(opened(running, bits=14))
        codes = device.forward(drive()) * 2**7  # whole steps of 8 bits of 2 V, each value the mean of one sample
        assert float((codes - codes.round()).abs().max()) < 0.01
        device.close()


def test_an_input_that_leaves_its_range_is_no_reading(running: RunningBench) -> None:
    unit = opened(running, range_v=0.1)
    with pytest.raises(HilError) as found:
        waveform(unit).forward(drive())
    assert isinstance(found.value, Saturated)
    assert not box_of(running).on(1)


def test_what_the_unit_has_not_is_refused(running: RunningBench) -> None:
    with pytest.raises(OutOfRange, match="1 V either side, at 600 ohm"):
        opened(running, low_v=-1.2, high_v=1.2, load_ohm=600.0)
    with pytest.raises(ConfigError, match=r"ranges of 0\.02, 0\.04"):
        opened(running, range_v=3.0)
    with pytest.raises(ConfigError, match="inputs 1"):
        opened(running, channel=3)
    with pytest.raises(WrongInstrument):
        opened(running, expect=Expect(serial="GQ918/0053"))
    library = running.resources["p"].rpartition("::")[0]
    with pytest.raises(OpenFailed, match="PICO_NOT_FOUND"):
        PicoScope5000(f"{library}::127.0.0.1:1")
    with pytest.raises(ConfigError, match="where it is"):
        PicoScope5000("/nowhere/libps5000a.so::GQ918/0053")
    unit = opened(running)  # each that was refused was given back
    unit.close()
    unit.close()


def test_on_the_power_of_usb_it_opens_all_the_same() -> None:
    with bench(usb_power=True) as running:
        opened(running).close()


def test_a_unit_that_is_unplugged_is_a_fault_of_the_wire() -> None:
    with bench() as running:
        unit = opened(running)
    with pytest.raises(LinkError, match="PICO_NOT_RESPONDING"):
        unit.digitizer.clear()
    with pytest.raises(HilError, match="unplug its USB cable"):
        unit.close()


def test_what_it_plays_is_not_known_after_a_fault(running: RunningBench) -> None:
    unit = opened(running)
    play(unit)
    unit.generator.forget()
    unit.generator.output(False)
    assert not box_of(running).on(1)
    unit.generator.prepare(RATE_HZ)
    unit.generator.output(True)
    unit._unit.api.ps5000aCloseUnit(unit._unit._handle)  # as after a fault of USB
    box_of(running).parts[0]._channels[1].change(output=True)
    with pytest.raises(LinkError, match="PICO_INVALID_HANDLE"):
        unit.generator.identify()
    unit.generator.safe()  # over the unit, opened anew
    assert not box_of(running).on(1)
    box_of(running)._serial = "JR001/0002"
    with pytest.raises(WrongInstrument, match="JR001/0001"):
        unit.generator.reopen()
    unit.close()


def test_another_process_makes_it_safe_when_this_one_is_gone(running: RunningBench) -> None:
    unit = opened(running)
    play(unit)
    assert box_of(running).on(1)
    state = unit.safe_state()
    away = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom drivers.safe import *\nstate = SafeState.from_json(sys.stdin.read())\n"
         "with conversation(state)(state) as talk: carry_out(state, talk)"],
        input=state.to_json(), text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert away.returncode == 0, away.stderr
    assert not box_of(running).on(1)
    with conversation(state)(state) as talk:
        assert carry_out(SafeState.from_json(state.to_json()), talk) == ""


def test_the_package_picoscope_works_unchanged(running: RunningBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads the library by its name, and asks for any unit, or for one by its serial number."""
    client = needs("picoscope.ps5000a")
    library, _, address = running.resources["p"].rpartition("::")
    ctypes.CDLL(library)
    load = ctypes.cdll.LoadLibrary
    monkeypatch.setattr(ctypes.cdll, "LoadLibrary", lambda name: load(library if name == "libps5000a.so" else name))
    unit = client.PS5000a(address)
    assert unit.getUnitInfo("VariantInfo") == "5243D"
    unit.setResolution("14")
    unit.setChannel("A", "DC", 1.0, 0.0, enabled=True, BWLimited=False)
    unit.setChannel("B", "DC", 1.0, 0.0, enabled=False, BWLimited=False)
    unit.setSimpleTrigger("A", 0.1, "Rising", timeout_ms=100, enabled=False)
    unit.setSigGenBuiltInSimple(offsetVoltage=0.2, pkToPk=0.0, waveType="DCVoltage", frequency=1e3)
    interval, samples, _ = unit.setSamplingInterval(1e-6, 1e-3)
    assert interval == pytest.approx(1e-6)
    unit.runBlock()
    unit.waitReady()
    volts = unit.getDataV("A", samples)
    expected = Simulated(MachZehnder(**NODE)).forward(torch.tensor([[0.2]]))
    assert np.abs(volts - float(expected)).max() < 2e-3
    box = box_of(running).parts[0]
    wave = 0.5 * np.sin(np.linspace(0, 2 * math.pi, 1000))
    unit.setAWGSimple(wave, 1e-3, offsetVoltage=0.1, indexMode="Single", triggerSource="ScopeTrig", shots=1)
    assert box.drive(1, math.inf).duration_s == pytest.approx(1e-3, rel=1e-2)
    assert box.drive(1, math.inf).levels.max() == pytest.approx(0.5, abs=0.02)
    unit.close()


def test_calls_that_are_not_simulated_say_so_and_bad_ones_are_refused(running: RunningBench) -> None:
    unit = Unit(running.resources["p"], 8, "pico", lambda: None)
    with pytest.raises(CommandRefused, match="PICO_NOT_USED"):
        unit.call("SetNoOfCaptures", 3)
    with pytest.raises(CommandRefused, match="PICO_INVALID_VOLTAGE_RANGE"):
        unit.call("SetChannel", 0, 1, 1, 40, 0.0)
    with pytest.raises(CommandRefused, match="PICO_SIGGEN_OUTPUT_OVER_VOLTAGE"):
        unit.call("SetSigGenBuiltInV2", 2_500_000, 0, 8, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0, 0)
    box = box_of(running)
    assert box.execute(b"BLOC:TIM? x,y") == b"13"
    state = json.loads(json.dumps(box.snapshot()))
    unit.call("SetChannel", 0, 1, 1, 6, 0.0)
    box.restore(state)
    assert box.snapshot() == state
    unit.close()
    assert isinstance(box, PicoScope)


@pytest.mark.slow
def test_the_bench_opens_from_its_file_and_has_no_conversation(tmp_path: Path) -> None:
    out = io.StringIO()
    bench = Path(__file__).resolve().parents[2] / "benches" / "picoscope.toml"
    assert transcribe(bench, tmp_path / "said", Console(file=out, width=200)) == []
    assert "no transcript: its package keeps the wire" in out.getvalue()
    assert "read back" not in out.getvalue()
