"""The IQ modulator: its limits, and that its receivers are those of the Mach-Zehnder modulator."""

from __future__ import annotations

import math

import pytest
import torch

from hil.seeding import generator
from sim_devices.iq_modulator import IqModulator
from sim_devices.mach_zehnder import MachZehnder

QUIET = {"noise": 0.0, "dark_a": 0.0}


def drives(rows: int) -> torch.Tensor:
    return torch.rand(rows, 2, generator=generator(1, 0, "test"), dtype=torch.float64) * 10 - 5


def test_with_one_modulator_dark_each_port_has_a_quarter_of_what_the_other_lets_through() -> None:
    twin = IqModulator(**QUIET, phase2_rad=0.0, v_pi_v=3.5)
    x = drives(200)
    x[:, 1] = 3.5  # the field of the second is 0
    alone = MachZehnder(**QUIET, extinction_db=300.0, v_pi_v=3.5).ideal(x[:, 0])
    assert torch.allclose(twin.ideal(x), 0.25 * alone.unsqueeze(1).expand(-1, 2), atol=1e-9)


def test_both_ports_together_have_half_the_sum_of_the_powers_whatever_the_phase_between() -> None:
    x = drives(200)
    sums = [IqModulator(**QUIET, combiner_rad=phase).ideal(x).sum(1) for phase in (0.0, 1.0, math.pi / 2)]
    alone = MachZehnder(**QUIET, extinction_db=300.0)
    assert torch.allclose(sums[0], 0.5 * (alone.ideal(x[:, 0]) + alone.ideal(x[:, 1])), atol=1e-9)
    assert torch.allclose(sums[0], sums[1])
    assert torch.allclose(sums[0], sums[2])


def test_it_has_the_period_of_its_fields() -> None:
    twin = IqModulator(**QUIET)
    x = drives(50)
    assert torch.allclose(twin.ideal(x + torch.tensor([twin.period, 0.0])), twin.ideal(x), atol=1e-9)
    assert not torch.allclose(twin.ideal(x + torch.tensor([twin.period / 2, 0.0])), twin.ideal(x), atol=1e-3)


def test_a_slow_receiver_remembers_the_row_before_at_either_port() -> None:
    twin = IqModulator(**QUIET, bandwidth_hz=2e7, step_s=10e-9)
    rng = generator(0, 0, "noise")
    rows = torch.tensor([[0.0, 0.0], [2.0, -1.0], [2.0, -1.0]])
    first, state = twin.respond(twin.rest(1, rng), None, rows[:2], rng)
    last, _ = twin.respond(state, None, rows[2:], rng)
    whole, _ = twin.respond(twin.rest(1, rng), None, rows, rng)
    assert torch.allclose(torch.cat([first, last]), whole, atol=1e-7)
    keep = math.exp(-2 * math.pi * 2e7 * 10e-9)
    assert torch.allclose(whole[1], keep * whole[0] + (1 - keep) * twin.ideal(rows[1]), atol=1e-7)


def test_it_is_made_again_of_its_settings() -> None:
    twin = IqModulator(phase2_rad=0.3, combiner_rad=0.7)
    assert twin.remade({}).settings() == twin.settings()
    assert twin.sampled(1e-9).step_s == pytest.approx(1e-9)
    assert set(twin.unknowns()) <= set(twin.settings())
