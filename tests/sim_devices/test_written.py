"""Writes as physics: steps, chance, drift and wear of what is programmed, read back and written once more."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hil.device import readable
from hil.errors import ConfigError, ContractError, OutOfRange
from hil.seeding import generator
from hil.snapshot import packed, unpacked
from hil.twin import Fittable, Parametric, Writing
from sim_devices.crossbar import Crossbar
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated
from sim_devices.written import Written

OF = "sim_devices.crossbar:Crossbar"
LOW, SPAN = 1e-6, 24e-6


def twin_of(rows: int = 40, **settings: Any) -> Written:
    return Written(of=OF, base={"rows": rows, "outputs": 5, "noise": 0.0}, **settings)


def written(twin: Written, *shares: float) -> tuple[Tensor, Tensor]:
    """Shares of the range that all channels hold after they were told `shares`, one after the other; and how often."""
    rng, state = generator(0, 0, "write"), twin.rest(1, generator(0, 0, "rest"))
    for share in shares:
        params = torch.full_like(state[0], LOW + share * SPAN)
        state = twin.write(state, params, torch.ones_like(params, dtype=torch.bool), rng)
    return (twin.held(state, rng) - LOW) / SPAN, state[3]


def test_a_write_goes_a_part_of_the_way_up_another_down_and_to_a_level() -> None:
    assert written(twin_of(up=0.8, down=0.5), 0.5)[0] == pytest.approx(torch.full((400,), 0.4), abs=1e-5)
    assert written(twin_of(up=0.8, down=0.5), 0.5, 0.2)[0] == pytest.approx(torch.full((400,), 0.3), abs=1e-5)
    assert written(twin_of(bits=2), 0.4)[0] == pytest.approx(torch.full((400,), 1 / 3), abs=1e-5)
    spread = written(twin_of(up=0.8, spread=0.1), 0.5)[0]
    assert float(spread.std()) == pytest.approx(0.04, rel=0.15)


def test_a_write_scatters_by_a_share_of_the_range_and_of_its_way_inside_the_limits() -> None:
    assert float(written(twin_of(noise=0.03), 0.5)[0].std()) == pytest.approx(0.03, rel=0.1)
    assert float(written(twin_of(noise=0.03, relative_noise=0.1), 0.4)[0].std()) == pytest.approx(0.05, rel=0.1)
    assert float(written(twin_of(read_noise=0.02), 0.5)[0].std()) == pytest.approx(0.02, rel=0.1)
    ends = written(twin_of(noise=0.3), 1.0)[0]
    assert float(ends.max()) <= 1 + 1e-6
    assert float(ends.min()) >= -1e-6


def test_what_was_written_falls_as_a_power_of_time() -> None:
    device = Simulated(twin_of(2, drift=0.1, t0_s=0.5, reading_s=0.25))
    device.program(torch.full((20,), 20e-6))
    device.forward(torch.zeros(62, 2))
    assert device.held() == pytest.approx(torch.full((20,), 20e-6 * (1 + 62 * 0.5) ** -0.1), rel=1e-5)
    device.program(torch.full((20,), 21e-6))  # anew
    assert device.held() == pytest.approx(torch.full((20,), 21e-6), rel=1e-5)
    spread = twin_of(drift=0.1, drift_spread=0.3).exponents
    assert float(spread.std()) == pytest.approx(0.03, rel=0.15)


@pytest.mark.parametrize(("worn", "then"), [("stays", 0.7), ("low", 0.0), ("high", 1.0)])
def test_a_worn_channel_takes_no_further_level(worn: Any, then: float) -> None:
    level, writes = written(twin_of(endurance=3, worn=worn), 0.1, 0.9, 0.7, 0.2, 0.4)
    assert level == pytest.approx(torch.full((400,), then), abs=1e-5)
    assert bool((writes == 5).all())
    assert len(twin_of(endurance=100, endurance_spread=0.5).endurances.unique()) > 300


def test_only_channels_that_changed_are_written_and_a_reading_sees_them() -> None:
    twin = Written(
        of=OF, base={"rows": 1, "outputs": 1, "noise": 0.0, "wire_ohm": 0.0, "adc_bits": 0, "gain_spread": 0.0}, up=0.5
    )
    device, bare = Simulated(twin), Simulated(Crossbar(rows=1, outputs=1, noise=0.0, wire_ohm=0.0, adc_bits=0, gain_spread=0.0))
    x = torch.full((1, 1), 0.2)
    assert torch.equal(device.forward(x), bare.forward(x))  # nothing is written: as it was formed
    device.program(torch.tensor([25e-6, 1e-6]))
    assert float(device.forward(x)) == pytest.approx(0.2 * 12e-6, rel=1e-4)
    device.program(torch.tensor([25e-6, 25e-6]))
    assert float(device.forward(x)) == pytest.approx(0.0, abs=1e-11)  # the first one was left alone
    device.rewrite(torch.tensor([25e-6, 25e-6]), torch.tensor([True, False]))
    assert float(device.forward(x)) == pytest.approx(0.2 * 6e-6, rel=1e-4)


def test_a_saved_state_goes_on_with_the_same_chance() -> None:
    device, other = (Simulated(twin_of(2, noise=0.05, read_noise=0.01, drift=0.05), seed=3) for _ in range(2))
    params = torch.linspace(2e-6, 24e-6, 20)
    device.program(params)
    device.forward(torch.zeros(3, 2))
    device.held()
    other.restore(unpacked(json.loads(json.dumps(packed(device.snapshot())))))
    for one in (device, other):
        one.program(params)  # what it holds: nothing is written
        one.rewrite(params, params > 1e-5)
    assert torch.equal(device.held(), other.held())


def test_a_write_beyond_a_limit_or_of_nan_is_refused_and_nothing_is_written() -> None:
    device = Simulated(twin_of(2), seed=1)
    device.program(torch.full((20,), 5e-6))
    before = packed(device.snapshot())
    for wrong in (math.nan, 26e-6):
        params = torch.full((20,), 5e-6)
        params[3] = wrong
        for write in (device.program, lambda p: device.rewrite(p, torch.ones(20, dtype=torch.bool))):
            with pytest.raises(OutOfRange):
                write(params)
    assert packed(device.snapshot()) == before


def test_what_a_written_twin_is() -> None:
    twin = twin_of(2, noise=0.02)
    assert isinstance(twin, Writing)
    assert isinstance(twin, Parametric)
    assert isinstance(twin, Fittable)
    assert twin.remade({"up": 0.7}).settings() == {**twin.settings(), "up": 0.7}
    for of in ("sim_devices.mach_zehnder:MachZehnder", "sim_devices.delay_loop:DelayLoop"):
        with pytest.raises(ConfigError, match="nothing is written"):
            Written(of=of, base={"nodes": 4} if "Loop" in of else {})
    plain = Simulated(MachZehnder())
    assert readable(plain) is None
    with pytest.raises(ContractError, match="read back"):
        plain.held()
