from __future__ import annotations

import math

import pytest
import torch

from hil.errors import ConfigError, OutOfRange
from sim_devices.mzi_mesh import MZIMesh
from sim_devices.simulated import Simulated


def test_light_is_neither_made_nor_lost() -> None:
    mesh = MZIMesh(modes=5, specimen=4, noise=0.0, gain_spread=0.0, dark_w=0.0, loss_db=0.0)
    x = 2 * torch.rand(7, 10, generator=torch.Generator().manual_seed(1)) - 1
    volts = torch.linspace(0, 8, 20)
    power, _ = mesh.respond(mesh.rest(7, torch.Generator()), volts, x, torch.Generator())
    assert torch.allclose(power.sum(1), x.square().sum(1) * mesh.input_w, rtol=1e-5)


def test_one_interferometer_follows_its_equation() -> None:
    """|M_00|^2 = sin^2(theta / 2) for even couplers."""
    mesh = MZIMesh(modes=2, specimen=-1, noise=0.0, self_heating=0.0, dark_w=0.0, loss_db=0.0)
    device = Simulated(mesh)
    for volts in (0.0, 2.5, 5.0):
        device.program(torch.tensor([volts, 3.0]))
        straight, across = device.forward(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))[0].tolist()
        theta = math.pi * (volts / 5.0) ** 2
        assert straight == pytest.approx(mesh.input_w * math.sin(theta / 2) ** 2, abs=1e-10)
        assert across == pytest.approx(mesh.input_w * math.cos(theta / 2) ** 2, abs=1e-10)


def test_q_is_a_quarter_turn_behind_i() -> None:
    mesh = MZIMesh(modes=3, specimen=1, noise=0.0)
    u, (a, b) = mesh.unitary(), (0.6, -0.8)
    seen = mesh.ideal(torch.tensor([[a, 0.0, 0.0, 0.0, b, 0.0]]))[0]
    wanted = (u @ torch.tensor([a, 1j * b, 0.0], dtype=u.dtype)).abs().square() * mesh.gains * mesh._throughput + mesh.dark_w
    assert torch.allclose(seen.double(), wanted, rtol=1e-5)


def test_a_heater_warms_its_neighbours_more_than_who_is_far() -> None:
    mesh = MZIMesh(modes=6, specimen=3)
    share = (mesh.matrix / mesh.matrix.diagonal()).fill_diagonal_(0)
    distances = torch.cdist(mesh._places(), mesh._places())
    near, far = distances <= 1.5, distances > 4
    near.fill_diagonal_(False)
    assert float(share[near].mean()) > 0.02
    assert float(share[far].mean()) < 0.005
    assert not bool(MZIMesh(modes=6, specimen=-1).matrix.fill_diagonal_(0).any())


def test_each_interferometer_loses_its_share() -> None:
    """Two waveguides: one interferometer. Three: a path along an edge passes fewer of them than one through the middle."""
    x = torch.eye(2, 4)
    kept = [float(MZIMesh(modes=2, specimen=-1, mzi_loss_db=lost, dark_w=0.0).ideal(x).sum()) for lost in (0.0, 0.23)]
    assert kept[1] / kept[0] == pytest.approx(10**-0.023, rel=1e-6)
    mesh = MZIMesh(modes=3, specimen=2, mzi_loss_db=0.23)
    assert mesh.passes.square().log10().mul(-10).tolist() == pytest.approx([0.23] * 3, rel=0.3)
    assert len(set(mesh.passes.tolist())) == 3
    values = torch.linalg.svdvals(mesh.unitary(torch.full((6,), 4.0)))
    assert float(values.min()) < float(values.max()) < 1


def test_heat_settles_at_its_rate_and_is_cold_before_anything_is_programmed() -> None:
    """In tau ln 2, which settle_s and a row are, half of what is missing of the heat comes; settle_s passes once a program."""
    tau = 2e-3
    mesh = MZIMesh(modes=3, specimen=2, noise=0.0, thermal_s=tau, settle_s=tau * math.log(2), row_s=tau * math.log(2))
    x, rng = torch.rand(1, 6, generator=torch.Generator().manual_seed(0)), torch.Generator()
    state, volts = mesh.rest(1, rng), torch.full((6,), 3.0)
    rows, state = mesh.respond(state, volts, x.expand(3, -1), rng)
    for row, missing in zip(rows, (0.25, 0.125, 0.0625), strict=True):
        there = mesh.matrix_at(mesh.phase0 + (1 - missing) * mesh.matrix @ mesh.heat(volts))
        assert torch.allclose(row, mesh._power(x, there)[0], rtol=1e-5)
    more, state = mesh.respond(state, volts, x, rng)  # the state goes on from call to call
    there = mesh.matrix_at(mesh.phase0 + (1 - 1 / 32) * mesh.matrix @ mesh.heat(volts))
    assert torch.allclose(more[0], mesh._power(x, there)[0], rtol=1e-5)
    cold, _ = mesh.respond(mesh.rest(1, rng), None, x, rng)
    assert torch.equal(cold, mesh.ideal(x))
    waited = MZIMesh(modes=3, specimen=2, noise=0.0, thermal_s=tau, settle_s=20 * tau)
    assert torch.allclose(waited.respond(waited.rest(1, rng), volts, x, rng)[0], waited.settled(x, volts), rtol=1e-6)


def test_matrices_of_several_settings_come_at_once_and_are_differentiable() -> None:
    mesh = MZIMesh(modes=4, specimen=2, mzi_loss_db=0.23)
    phases = (7 * torch.rand(3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    whole = mesh.matrix_at(phases)
    assert torch.equal(whole[1], mesh.matrix_at(phases[1]))
    assert torch.autograd.gradcheck(lambda at: torch.view_as_real(mesh.matrix_at(at)), phases[:1])


def test_specimens_differ_and_are_the_same_again() -> None:
    one, same, other = (MZIMesh(specimen=s) for s in (1, 1, 2))
    assert torch.equal(one.phase0, same.phase0)
    assert not torch.equal(one.phase0, other.phase0)


def test_voltages_outside_of_the_limits_are_refused() -> None:
    with pytest.raises(OutOfRange, match="heaters"):
        Simulated(MZIMesh()).program(torch.full((12,), 8.1))


@pytest.mark.parametrize(
    "settings",
    [
        {"modes": 1},
        {"dead_heaters": [12]},
        {"dead_photodiodes": [-1]},
        {"v_pi_v": 0.0},
        {"reach": math.nan},
        {"mzi_loss_db": -0.1},
        {"thermal_s": math.nan},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="MZIMesh"):
        MZIMesh(**settings)  # type: ignore[arg-type]
