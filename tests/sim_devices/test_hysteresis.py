"""The play between drive and modulator: its loop, its state, and that it is the same over the wire."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from hil.errors import ConfigError
from hil.seeding import generator
from hil.snapshot import packed, unpacked
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

WIDTH_V = 0.2
NODE = MachZehnder(noise=0.0, hysteresis_v=WIDTH_V)


def played(drive: Tensor, before: float) -> list[float]:
    """The play operator, value after value."""
    acts, low, high = [], drive - WIDTH_V / 2, drive + WIDTH_V / 2
    for least, most in zip(low.tolist(), high.tolist(), strict=True):
        before = min(max(before, least), most)
        acts.append(before)
    return acts


@pytest.mark.parametrize("count", [1, 2, 3, 64, 1001])
def test_the_scan_is_the_operator_value_after_value(count: int) -> None:
    drive = 0.3 * torch.randn(count, generator=generator(count, 0, "drive"), dtype=torch.float64).cumsum(0)
    acts, last = NODE._played(drive, torch.tensor(0.05, dtype=torch.float64))
    assert acts.tolist() == pytest.approx(played(drive, 0.05), abs=1e-12)
    assert float(last) == pytest.approx(acts[-1].item())


def test_both_ways_of_a_sweep_lie_the_width_apart() -> None:
    up = torch.linspace(-3, 3, 601)
    reading = Simulated(NODE).forward(torch.cat([up.flip(0), up, up.flip(0)]).unsqueeze(0))[0].double()
    rising, falling = reading[601:1202], reading[1202:].flip(0)
    inside = slice(40, -40)
    assert torch.allclose(rising[inside], NODE.ideal(up.double() - WIDTH_V / 2)[inside], atol=1e-7)
    assert torch.allclose(falling[inside], NODE.ideal(up.double() + WIDTH_V / 2)[inside], atol=1e-7)


def test_its_state_goes_through_a_snapshot() -> None:
    device, other = Simulated(NODE), Simulated(NODE)
    device.forward(torch.tensor([[2.0]]))
    other.restore(unpacked(json.loads(json.dumps(packed(device.snapshot())))))
    x = torch.tensor([[1.95, 1.85]])
    assert torch.equal(device.forward(x), other.forward(x))
    assert not torch.equal(device.forward(x), Simulated(NODE).forward(x))  # the past matters


def test_without_it_nothing_is_remembered_of_the_drive() -> None:
    x = torch.linspace(-3, 3, 50).unsqueeze(0)
    plain = Simulated(MachZehnder(noise=0.0))
    assert torch.equal(plain.forward(x), plain.forward(x.flip(1)).flip(1))


def test_a_width_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="hysteresis"):
        MachZehnder(hysteresis_v=-0.1)
