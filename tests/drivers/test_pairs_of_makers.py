"""One twin, asked directly and asked through generators and oscilloscopes of several makers, each in its own words."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from scripted_link import MessageLink

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.rigol_dg import RigolDG
from drivers.rigol_scope import RigolScope
from drivers.rohde_schwarz_rtb import RohdeSchwarzRTB
from drivers.siglent_sdg import SiglentSDG
from drivers.siglent_sds import SiglentSDS
from drivers.tektronix_afg31000 import TektronixAFG31000
from drivers.tektronix_mso import TektronixMSO
from drivers.tektronix_tbs import TektronixTBS
from drivers.waveform.device import Waveform, WaveformSettings
from hil.errors import InstrumentError, MeasurementError, SwitchedOff
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire, assemble
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

NODE = {"v_pi_v": 3.52, "phase_rad": -1.2, "noise": 0.0}
RANGE_V, DRIVE_V = 0.5, 4.0
BYTE_V, TWELVE_V = RANGE_V / 8 / 25, RANGE_V / 2**12
SIM = "sim_devices.instruments."
Side = tuple[str, dict[str, Any], Any, dict[str, Any]]  # box, its settings, driver, its settings

SDG2: Side = (f"{SIM}siglent_sdg:SiglentSDG", {}, SiglentSDG, {})
SDG1: Side = (f"{SIM}siglent_sdg:SiglentSDG", {"model": "SDG1032X"}, SiglentSDG, {})
DG: Side = (f"{SIM}rigol_dg:RigolDG", {}, RigolDG, {})
AFG: Side = (f"{SIM}tektronix_afg31000:TektronixAFG31000", {}, TektronixAFG31000, {})
KEYSIGHT: Side = (f"{SIM}keysight_33600:Keysight33600", {}, Keysight33600, {})
Z_E: Side = (f"{SIM}rigol_scope:RigolScope", {}, RigolScope, {})
Z: Side = (f"{SIM}rigol_scope:RigolScope", {"model": "DS1104Z", "trigger_channel": 4}, RigolScope, {"trigger_channel": 4})
DHO: Side = (f"{SIM}rigol_scope:RigolScope", {"model": "DHO802"}, RigolScope, {})
SDS: Side = (f"{SIM}siglent_sds:SiglentSDS", {}, SiglentSDS, {})
MSO: Side = (f"{SIM}tektronix_mso:TektronixMSO", {}, TektronixMSO, {})
TBS: Side = (f"{SIM}tektronix_tbs:TektronixTBS", {}, TektronixTBS, {})
TBS2: Side = (
    f"{SIM}tektronix_tbs:TektronixTBS", {"model": "TBS2204B", "trigger_channel": 4}, TektronixTBS, {"trigger_channel": 4}
)  # fmt: skip
RTB: Side = (f"{SIM}rohde_schwarz_rtb:RohdeSchwarzRTB", {}, RohdeSchwarzRTB, {})
SCOPE: Side = (f"{SIM}keysight_infiniivision:InfiniiVision", {"adc_bits": 12}, InfiniiVision, {})

PAIRS = [  # generator, oscilloscope, step of its words in V
    ("SDG2042X, DS1202Z-E", SDG2, Z_E, BYTE_V),
    ("SDG1032X, SDS1104X HD", SDG1, SDS, TWELVE_V),
    ("DG832, DHO802", DG, DHO, TWELVE_V),
    ("DG832, DSO-X 3024T", DG, SCOPE, TWELVE_V),
    ("AFG31052, DHO802", AFG, DHO, TWELVE_V),
    ("33622A, DS1104Z triggered at channel 4", KEYSIGHT, Z, BYTE_V),
    ("33622A, SDS1104X HD", KEYSIGHT, SDS, TWELVE_V),
    ("AFG31052, MSO54", AFG, MSO, 1.024 * TWELVE_V),
    ("AFG31052, TBS1072C", AFG, TBS, BYTE_V),
    ("33622A, TBS2204B triggered at channel 4", KEYSIGHT, TBS2, BYTE_V),
    ("DG832, RTB2004", DG, RTB, 1.024 * RANGE_V / 2**10),
]
RATES_HZ = {TektronixMSO: 12.5e6, TektronixTBS: 12.5e6}  # of symbols, where they are not 1, 2, 5 times a power of ten


def opened(generator: Side, scope: Side, **settings: Any) -> tuple[Waveform, dict[str, Any]]:
    sides = {"awg": generator, "scope": scope}
    boxes = tuple(VirtualBox(name, use, given) for name, (use, given, _, _) in sides.items())
    wire = VirtualWire("awg", "scope", Part("sim_devices.mach_zehnder:MachZehnder", NODE), delay_s=24.8e-9)
    made = assemble(VirtualBench(boxes, (wire,))).boxes
    drive = generator[2](MessageLink(made["awg"]), low_v=-DRIVE_V, high_v=DRIVE_V, **generator[3])
    read = scope[2](MessageLink(made["scope"]), range_v=RANGE_V, offset_v=0.18, **scope[3])
    return Waveform(
        drive, read, WaveformSettings(symbol_rate_hz=RATES_HZ.get(scope[2], 10e6), **settings), provenance="twin"
    ), dict(made)


def volts(batch: int, width: int) -> torch.Tensor:
    return (2 * torch.rand((batch, width), generator=torch.Generator().manual_seed(5)) - 1) * DRIVE_V


@pytest.mark.parametrize(("generator", "scope", "step_v"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_both_ways_agree_to_one_step(generator: Side, scope: Side, step_v: float) -> None:
    device, boxes = opened(generator, scope)
    try:
        assert device.delay_s == pytest.approx(24.8e-9, abs=20e-9)
        for x in (volts(40, 80), volts(7, 20)):
            error = (device.forward(x) - Simulated(MachZehnder(**NODE)).forward(x)).abs()
            assert float(error.max()) <= 1.2 * step_v + 4e-4  # and a step of 14 bits of the drive
        assert boxes["awg"].on(1)
    finally:
        device.close()
    assert not boxes["awg"].on(1)


@pytest.mark.parametrize("generator", [SDG2, SDG1, DG, AFG, KEYSIGHT])
def test_a_generator_that_follows_plays_at_an_edge(generator: Side) -> None:
    use, given, driver, settings = generator
    module, _, name = use.partition(":")
    box = getattr(importlib.import_module(module), name)(**given)
    follower = driver(MessageLink(box), low_v=-DRIVE_V, high_v=DRIVE_V, **settings)
    follower.prepare(1e6, external=True)
    assert box.external() == (1,)
    again = type(box)(**given)
    again.restore(box.snapshot())
    assert again.external() == (1,)
    follower.close()


@pytest.mark.parametrize(
    ("generator", "scope", "box"), [(SDG2, Z_E, "scope"), (DG, SDS, "awg"), (DG, SDS, "scope"), (SDG2, Z_E, "awg")]
)
def test_a_rebooted_box_never_passes_for_data(generator: Side, scope: Side, box: str) -> None:
    device, boxes = opened(generator, scope, trigger_timeout_s=0.05)
    try:
        before = device.forward(volts(8, 20))
        boxes[box].reboot()
        with pytest.raises((MeasurementError, InstrumentError)):
            device.forward(volts(8, 20))
        device.clear()
        device.identify()
        if (generator, box) == (SDG2, "awg"):  # it has no register that tells a power cut from a hand
            with pytest.raises(SwitchedOff):
                device.reinstate()
        else:
            device.reinstate()
            device.verify()
            assert torch.allclose(device.forward(volts(8, 20)), before, atol=2 * BYTE_V)
    finally:
        device.close()
