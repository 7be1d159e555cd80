"""The M8195A: each sample is sent as often as it lasts, and a marker is the edge for the scope."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scripted_link import MessageLink

from drivers.keysight_m8195a import HIGHEST_HZ, LOWEST_HZ, KeysightM8195A
from drivers.tektronix_mso import TektronixMSO
from drivers.waveform.device import Waveform, WaveformSettings
from hil.errors import ConfigError, OutOfRange
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire, assemble
from sim_devices.instruments.keysight_m8195a import KeysightM8195A as Box
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

NODE = {"v_pi_v": 0.4, "phase_rad": -1.2, "noise": 0.0}
SIM = "sim_devices.instruments."


def test_both_ways_agree_to_one_step() -> None:
    wire = VirtualWire("awg", "scope", Part("sim_devices.mach_zehnder:MachZehnder", NODE), delay_s=2e-9)
    boxes = tuple(
        VirtualBox(name, f"{SIM}{use}")
        for name, use in (("awg", "keysight_m8195a:KeysightM8195A"), ("scope", "tektronix_mso:TektronixMSO"))
    )
    made: dict[str, Any] = dict(assemble(VirtualBench(boxes, (wire,))).boxes)
    drive = KeysightM8195A(MessageLink(made["awg"]))
    read = TektronixMSO(MessageLink(made["scope"]), range_v=0.5, offset_v=0.18)
    device = Waveform(drive, read, WaveformSettings(symbol_rate_hz=125e6), provenance="twin")
    x = (2 * torch.rand((2, 10), generator=torch.Generator().manual_seed(5)) - 1) * 0.5
    error = (device.forward(x) - Simulated(MachZehnder(**NODE)).forward(x)).abs()
    step_v = 0.5 * 1.024 / 2**12  # of the scope; and half a step of 8 bits of the drive, where the transfer curve is steepest
    assert float(error.max()) <= 1.2 * step_v + 4e-4 + 0.36 / 2 * np.pi / 0.4 * 0.5 / 254
    assert made["awg"].on(1)
    device.close()
    assert not made["awg"].on(1)


def test_a_sample_is_sent_as_often_as_it_lasts() -> None:
    box = Box()
    driver = KeysightM8195A(MessageLink(box), low_v=-0.25, high_v=0.25)
    driver.prepare(1e9)
    driver.upload(np.array([0, 32767, -32767, 0], np.int16))
    played = box.drive(1)
    assert LOWEST_HZ <= played.sample_rate_hz <= HIGHEST_HZ
    assert played.sample_rate_hz == 54 * 1e9
    assert len(played.record) == 1280
    assert np.allclose(played.record[54:108], 0.25, atol=1e-3)
    assert np.allclose(played.record[216:], 0.0, atol=1e-3)
    with pytest.raises(ConfigError, match="no multiple of this rate"):
        driver.prepare(40e9)
    driver._times = 10**6
    with pytest.raises(ConfigError, match="too long"):
        driver.upload(np.zeros(1000, np.int16))
    driver.close()
    with pytest.raises(OutOfRange):
        KeysightM8195A(MessageLink(box), low_v=-0.01, high_v=0.01)
