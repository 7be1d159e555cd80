"""Drivers of other projects work the simulated TBS oscilloscopes unchanged.

pip install hil[interop]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import pyvisa
import torch
from extras import needs

from sim_devices.instruments.tektronix_tbs import TektronixTBS
from sim_devices.transports.hislip import HislipServer

USB = "USB0::1689::964::C0SIM002::INSTR"  # its name on the bus, as tektronixosc looks for it


@contextmanager
def served(box: TektronixTBS) -> Iterator[str]:
    server = HislipServer(box)
    server.start()
    try:
        yield f"TCPIP::127.0.0.1::hislip0,{server.port}::INSTR"
    finally:
        server.close()


class Bus:
    """A resource manager on whose USB bus one oscilloscope is, which HiSLIP stands for."""

    def __init__(self, address: str) -> None:
        self._manager, self._address = pyvisa.ResourceManager("@py"), address

    def list_resources(self) -> tuple[str, ...]:
        return (USB,)

    def open_resource(self, name: str) -> Any:
        assert name == USB
        return self._manager.open_resource(self._address)


def taken(scope: TektronixTBS) -> torch.Tensor:
    """Give an armed scope its trigger; the volts at its first input."""
    window = scope.window()
    volts = 0.2 + 0.3 * torch.sin(torch.arange(window.points) / 100)
    scope.capture(window, {1: volts})
    return volts


def test_tektronixosc_reads_a_tbs1072c(monkeypatch: pytest.MonkeyPatch) -> None:
    module = needs("tektronixosc").oscilloscope
    box = TektronixTBS()
    with served(box) as address:
        bus = Bus(address)
        monkeypatch.setattr(module.vi, "ResourceManager", lambda: bus)
        scope = module.Oscilloscope(USB)
        scope.visa_query_delay = 0
        assert (scope.device_model, scope.record_length, scope.max_sample_rate) == ("TBS 1072C", 2000, 1e9)
        scope.horizontal_scale, scope.trig_source, scope.trig_mode, scope.trig_slope = 4e-6, "aux", "normal", "rising"
        channel = scope.channels[0]
        channel.enabled, channel.coupling, channel.attenuation = True, "dc", 1
        channel.offset = 0.2
        box.execute(b"CH1:SCA 0.1")  # which the driver has no words for
        scope.single()
        scope.run()
        volts = taken(box)
        instants, read = scope.get_signal("ch1")
        assert np.abs(np.array(read) - volts.numpy()).max() < 0.1 / 25
        assert instants[1] - instants[0] == pytest.approx(32e-9)
        assert (scope.trig_source, scope.horizontal_scale, float(channel.offset)) == ("aux", 4e-6, 0.2)


def test_oscilloscope_scripts_read_a_tbs2204b() -> None:
    control = needs("Tektronix_TBS2000B_control.oscilloscope_control")
    box = TektronixTBS(model="TBS2204B", trigger_channel=4)
    with served(box) as address:
        (kind,) = (one for one in vars(control).values() if isinstance(one, type) and hasattr(one, "Sampling"))
        scope = kind(address)
        for line in ("CH1:SCA 0.1", "CH1:OFFS 0.2", "TRIG:A:MOD AUTO", "HOR:SCA 4E-6"):
            box.execute(line.encode())
        instants, read = scope.Sampling("CH1", 2000)  # it triggers itself, with no cable at its input
        assert np.abs(read["CH1"]).max() <= 0.1 / 25
        assert instants["CH1"][[0, -1]] == pytest.approx([-32e-6, 32e-6 - 32e-9])
