"""Structure in residuals, the network on top of a grey box, and faults as findings."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from calibration.fault import problem_of
from calibration.residual_net import gained, trained
from calibration.residuals import correlation_ratio, lag_one, runs, undigitised
from calibration.shots import of_steps
from hil.device import Port
from hil.errors import Flat, Jumped, Late, MeasurementError, Misaligned, Saturated
from hil.seeding import generator

PORT = Port("drive", -4.0, 4.0, "V")
SIGMA = 0.01


def white(count: int, step: int = 0) -> Tensor:
    return torch.randn(count, generator=generator(0, step, "test"), dtype=torch.float64)


def test_noise_is_white_and_a_wave_is_not() -> None:
    noise = white(2000)
    wave = noise + 0.3 * torch.sin(torch.arange(2000) / 40)
    assert abs(lag_one(noise)) < 3
    assert abs(runs(noise)) < 3
    assert lag_one(wave) > 1
    assert lag_one(noise.cumsum(0)) > 30
    assert runs(noise.cumsum(0)) < -30


def test_alternating_signs_have_too_many_stretches() -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(100)
    assert runs(signs) > 10
    assert lag_one(signs) < -10


def swept(bend_v: float, noise_v: float, grain_v: float) -> tuple[Tensor, Tensor]:
    """Readings of a curve in order of the drive, less what was predicted, and their noise, in V; `bend_v` was not predicted."""
    x = torch.linspace(0, 1, 4000, dtype=torch.float64)
    predicted = torch.sin(2 * x)
    truth = predicted + bend_v * torch.sin(20 * x) + noise_v * white(4000)
    reading = grain_v * (truth / grain_v).round() if grain_v else truth
    sigma = max(noise_v**2 + grain_v**2 / 12, 1e-12) ** 0.5
    return reading - predicted, torch.full_like(x, sigma)


@pytest.mark.parametrize("noise_v", [0.0, 3e-4, 1e-3, 1e-2])
def test_the_steps_of_a_coarse_converter_are_no_structure_and_a_bend_still_is(noise_v: float) -> None:
    grain_v = 5e-3
    off, sigma = swept(0.0, noise_v, grain_v)
    if noise_v < grain_v / 10:
        assert lag_one(off / sigma) > 10, "the pattern of the steps"
    assert abs(lag_one(undigitised(off, sigma, grain_v))) < 4
    assert abs(runs(undigitised(off, sigma, grain_v))) < 4
    off, sigma = swept(max(3e-3, noise_v / 2), noise_v, grain_v)
    assert lag_one(undigitised(off, sigma, grain_v)) > 5


def test_with_noise_of_many_steps_nothing_is_changed() -> None:
    off, sigma = swept(0.0, 1e-2, 1e-5)
    assert torch.allclose(undigitised(off, sigma, 1e-5), off / sigma, atol=2e-3)
    assert torch.equal(undigitised(off, sigma, 0.0), off / sigma)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.4, 0.8, 3.0])
def test_noise_below_a_step_is_found_in_readings_that_repeat(share: float) -> None:
    """share: noise over a step. Every level is read many times, as the step `noise` does."""
    grain_v, levels, repeats = 2.5e-3, 4000, 64
    rng = generator(0, 0, "levels")
    level = torch.rand(levels, 1, generator=rng, dtype=torch.float64)
    reading = level + share * grain_v * torch.randn(levels, repeats, generator=rng, dtype=torch.float64)
    total = float((grain_v * (reading / grain_v).round()).var(1).mean())
    assert math.sqrt(total - of_steps(total, grain_v)) == pytest.approx(share * grain_v, rel=0.05)
    if share >= 0.8:
        assert of_steps(total, grain_v) == pytest.approx(grain_v**2 / 12, rel=0.02)
    assert of_steps(total, 0.0) == 0.0


def test_the_share_that_groups_explain() -> None:
    group = torch.arange(4).repeat(500)
    assert correlation_ratio(group.double(), group, 4) == pytest.approx(1.0)
    assert correlation_ratio(white(2000), group, 4) < 0.01
    assert correlation_ratio(torch.zeros(2000, dtype=torch.float64), group, 4) == 0.0


def samples(bend: float, step: int) -> tuple[Tensor, Tensor]:
    x = 8 * torch.rand(2000, generator=generator(1, step, "x"), dtype=torch.float64) - 4
    return x, bend * torch.sin(2 * x) + SIGMA * white(2000, step)


@pytest.mark.parametrize(("bend", "keep"), [(0.0, False), (0.03, True)])
def test_a_network_is_kept_only_where_it_foretells_what_it_has_not_seen(bend: float, keep: bool) -> None:
    x, residual = samples(bend, 0)
    net = trained(x, residual, torch.full_like(x, SIGMA), PORT, generator(0, 0, "net"))
    unseen, left = samples(bend, 1)
    z, kept = gained(left / SIGMA, (left - net(unseen)) / SIGMA)
    assert kept is keep, z
    if keep:
        assert float(((left - net(unseen)) / SIGMA).square().mean()) < 1.3
        assert float((net(unseen) - bend * torch.sin(2 * unseen)).square().mean().sqrt()) < 0.3 * bend


def test_a_network_is_a_correction_in_the_unit_of_the_reading() -> None:
    x, residual = samples(0.03, 0)
    net = trained(x, residual, torch.full_like(x, SIGMA), PORT, generator(0, 0, "net"))
    assert net(x.view(40, 50)).shape == (40, 50)
    assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Saturated, "clipped"), (Flat, "stuck"), (Late, "delay"), (Misaligned, "misaligned"), (Jumped, "jumped")],
)
def test_a_fault_is_called_as_a_step_would_call_it(error: type[MeasurementError], kind: str) -> None:
    problem = problem_of(error("what happened", where="scope", got="this", allowed="that", todo="do it"))
    assert (problem.kind, problem.todo) == (kind, "do it")
    assert problem.evidence == "this; allowed: that"
