"""Devices around devices hand on what they do not change."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from calibration.drift.steering import steered
from hil.device import Device, Port, Spec
from hil.devices.meter import metered
from hil.snapshot import packed, unpacked
from hil.wrapper import Wrapper
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

WRAPPERS = [Wrapper, metered, steered]


class Counting:
    """Answers its drive plus the number of the call. Its state is not the computer's to save."""

    spec = Spec(Port("dac", -2.0, 2.0, "V"), Port("adc", -100, 100, "V"), Port("weights", -1, 1, size=2))

    def __init__(self, recovered: int = 0) -> None:
        self.calls = self.closed = self.resets = 0
        self.recovered = recovered
        self.programmed: Tensor | None = None

    def program(self, params: Tensor) -> None:
        self.programmed = params

    def reset(self) -> None:
        self.resets += 1

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_everything_is_handed_on(wrap: Callable[[Device], Wrapper]) -> None:
    inner = Counting(recovered=3)
    device = wrap(wrap(inner))
    assert (device.spec, device.recovered) == (inner.spec, 3)
    device.program(torch.ones(2))
    device.reset()
    assert device.forward(torch.zeros(1, 1)).item() == 1.0
    device.close()
    device.close()
    assert (inner.calls, inner.resets, inner.closed) == (1, 1, 2)
    assert inner.programmed is not None


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_state_is_saved_as_far_as_the_inner_device_can_save_it(wrap: Callable[[Device], Wrapper]) -> None:
    assert wrap(Counting()).snapshot() == {}

    def made() -> Wrapper:
        return wrap(wrap(Simulated(MachZehnder(drift_rad_per_rts=0.1), seed=5)))

    device, other = made(), made()
    x = torch.linspace(-1, 1, 6).unsqueeze(1)
    device.forward(x)
    saved = unpacked(json.loads(json.dumps(packed(device.snapshot()))))
    wanted = device.forward(x)
    assert not torch.equal(other.forward(x), wanted)
    other.restore(saved)
    assert torch.equal(other.forward(x), wanted)
