"""The model of a mesh: it decomposes any unitary, differentiates, and is the same mesh that the twin is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calibration.mesh.clements import MeshLayout, decomposed, derivatives, haar, mirrored, unitary, wrapped
from calibration.mesh.fit import MeshModel, inverted
from calibration.mesh.phase_reading import fidelity, powers, probes, read, rows
from sim_devices.mzi_mesh import MZIMesh


def even(layout: MeshLayout) -> torch.Tensor:
    return torch.zeros(layout.heaters // 2, 2, dtype=torch.float64)


def drawn(n: int, count: int = 4) -> torch.Tensor:
    rng = torch.Generator().manual_seed(n)
    return torch.stack([haar(n, rng) for _ in range(count)])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
def test_a_unitary_is_decomposed_and_composed_again(n: int) -> None:
    layout, u = MeshLayout.rectangle(n), drawn(n)
    phases = decomposed(layout, u)
    assert phases.shape == (4, n * (n - 1))
    assert float(fidelity(unitary(layout, phases, even(layout)), u).min()) == pytest.approx(1, abs=1e-12)
    thetas = phases[:, ::2]
    assert 0 <= float(thetas.min()) <= float(thetas.max()) <= torch.pi


def nearest_branch(layout: MeshLayout, phases: Tensor, expected: Tensor) -> Tensor:
    """Of all meshes equal to `phases` but for phases of the outputs, the one nearest to `expected`, whole turns included."""
    signs = torch.ones(*phases.shape[:-1], layout.heaters // 2, dtype=phases.dtype)
    for number in range(layout.heaters // 2):  # in the order of the light: what is chosen acts on what comes behind
        here = slice(2 * number, 2 * number + 2)
        away = []
        for sign in (1.0, -1.0):
            signs[..., number] = sign
            away.append(wrapped(mirrored(layout, phases, signs)[..., here] - expected[..., here]).square().sum(-1))
        signs[..., number] = torch.where(away[0] <= away[1], 1.0, -1.0)
    found = mirrored(layout, phases, signs)
    return expected + wrapped(found - expected)


@pytest.mark.parametrize("n", [3, 6])
def test_the_other_branch_gives_the_same_powers_and_is_found_back(n: int) -> None:
    layout, u = MeshLayout.rectangle(n), drawn(n)
    phases = decomposed(layout, u)
    signs = torch.sign(torch.randn(4, layout.heaters // 2, generator=torch.Generator().manual_seed(2)).double())
    other = mirrored(layout, phases, signs)
    assert float(fidelity(unitary(layout, other, even(layout)), u).min()) == pytest.approx(1, abs=1e-12)
    assert float(wrapped(nearest_branch(layout, phases, other) - other).abs().max()) < 1e-9


def test_the_twin_is_the_mesh_that_is_modelled() -> None:
    mesh, layout = MZIMesh(modes=5, specimen=7), MeshLayout.rectangle(5)
    volts = 8 * torch.rand(20, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(mesh.unitary(volts), unitary(layout, mesh.phases(volts), mesh.couplers), atol=1e-12)


def test_derivatives_are_those_of_finite_differences() -> None:
    layout, small = MeshLayout.rectangle(4), 1e-6
    rng = torch.Generator().manual_seed(0)
    phases, couplers = torch.randn(1, 12, generator=rng).double(), 0.1 * torch.randn(6, 2, generator=rng).double()
    _, by_phase, by_coupler = derivatives(layout, phases, couplers)
    for k in range(12):
        step = torch.zeros(12, dtype=torch.float64)
        step[k] = small
        for found, ends in (
            (by_phase, [unitary(layout, phases + sign * step, couplers) for sign in (1, -1)]),
            (by_coupler, [unitary(layout, phases, couplers + sign * step.view(6, 2)) for sign in (1, -1)]),
        ):
            assert torch.allclose(found[:, k], (ends[0] - ends[1]) / (2 * small), atol=1e-8)


def test_powers_tell_a_unitary_but_for_phases_of_its_outputs() -> None:
    u = drawn(4)
    turned = torch.polar(torch.ones(4), torch.arange(4.0)).to(u)[:, None] * u
    light = probes(4)
    assert torch.allclose(powers(turned, light), powers(u, light), atol=1e-12)
    assert float(fidelity(rows(powers(u, light)), u).min()) == pytest.approx(1, abs=1e-12)
    assert float(fidelity(u[:1], u[1:2])) < 0.9


def test_phases_are_read_with_the_error_that_is_stated() -> None:
    mesh, layout = MZIMesh(modes=4, specimen=2, coupler_rad=0.0), MeshLayout.rectangle(4)
    rng = torch.Generator().manual_seed(5)
    volts = 8 * torch.rand(60, 12, generator=rng)
    true = torch.stack([mesh.phases(v) for v in volts])
    ideal = powers(unitary(layout, true, mesh.couplers), probes(4))
    sigma = torch.full_like(ideal, 1e-3)
    noisy = ideal + sigma * torch.randn(ideal.shape, generator=rng)
    start = nearest_branch(layout, decomposed(layout, rows(noisy)), true)
    found = read(layout, noisy, sigma, start, even(layout))
    pull = (found.values - true) / found.sigma
    assert float((pull.abs() < 1).double().mean()) == pytest.approx(0.683, abs=0.05)
    assert float(found.chi2.mean()) == pytest.approx(1, abs=0.05)


def test_an_ill_conditioned_matrix_is_damped_and_a_good_one_is_not() -> None:
    good = torch.eye(3, dtype=torch.float64) + 0.05
    assert torch.allclose(inverted(good) @ good, torch.eye(3, dtype=torch.float64), atol=1e-12)
    alike = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-9]], dtype=torch.float64)
    assert float(inverted(alike).abs().max()) < 1e4


def test_a_model_inverts_itself_with_crosstalk_and_self_heating() -> None:
    layout, rng = MeshLayout.rectangle(3), torch.Generator().manual_seed(1)
    k = layout.heaters
    matrix = torch.diag(torch.full((k,), 8.0)).double() + 0.4 * torch.rand(k, k, generator=rng).double()
    model = MeshModel(
        layout, torch.randn(k, generator=rng).double(), matrix, torch.full((k,), 0.03).double(), even(layout), 8.0
    )
    wanted = 6 * torch.rand(k, generator=rng).double()
    share = model.shares(wanted)
    assert 0 <= float(share.min()) <= float(share.max()) <= 1
    assert float(wrapped(model.phases(share) - wanted).abs().max()) < 1e-9
    assert float(wrapped(model.phases(model.shares(wanted, compensated=False)) - wanted).abs().max()) > 0.05
