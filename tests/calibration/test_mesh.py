"""Meshes that nobody saw: they are calibrated and programmed, or what is wrong is said."""

from __future__ import annotations

import pytest
import torch
from small_calibration import as_record

import calibration.mesh.fit
from calibration.mesh.clements import MeshLayout, haar
from calibration.mesh.crosstalk import model_of
from calibration.mesh.fit import MeshModel, assessed, fit
from calibration.mesh.heaters import hadamard
from calibration.mesh.phase_reading import fidelity
from calibration.mesh.sequence import mesh, voltages
from calibration.sequence import Subject, calibrated
from calibration.step import Step
from hil.device import Device
from hil.report.calibration.mesh import mesh as mesh_figures
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.mzi_mesh import MZIMesh
from sim_devices.simulated import Simulated


def calibrate(device: Device) -> dict[str, Step]:
    return {step.name: step for step in calibrated(mesh(), Subject(device, seed=3))}


@pytest.fixture(scope="module")
def hidden() -> tuple[MZIMesh, dict[str, Step]]:
    chip = MZIMesh(modes=4, specimen=21)
    return chip, calibrate(Simulated(chip, seed=1))


def test_every_step_is_good(hidden: tuple[MZIMesh, dict[str, Step]]) -> None:
    _, found = hidden
    assert [name for name, step in found.items() if step.good] == ["photodiodes", "heaters", "crosstalk", "mesh"]
    assert 0.8 < found["crosstalk"].figures["chi2"] < 1.2


def test_the_steps_keep_what_the_main_figures_need(hidden: tuple[MZIMesh, dict[str, Step]]) -> None:
    _, found = hidden
    raw = found["mesh"].raw
    assert float(raw["fidelity"].min()) == found["mesh"].figures["fidelity_worst"]
    off = (raw["powers"] - raw["predicted_powers"]) / raw["powers_sigma"]
    assert float(off.square().mean()) == pytest.approx(found["mesh"].figures["chi2_unseen"])
    drawn = [figure.name for figure in mesh_figures(as_record(found))]
    assert drawn == ["fidelity", "prediction", "crosstalk", "heaters", "photodiodes"]


def test_what_was_hidden_is_found_within_its_sigmas(hidden: tuple[MZIMesh, dict[str, Step]]) -> None:
    chip, found = hidden
    raw = found["crosstalk"].raw
    off = (raw["matrix"] - chip.matrix * chip.v_max_v**2) / raw["matrix_sigma"]
    assert 0.5 < float((off.abs() < 1).double().mean()) < 0.82
    assert float(off.abs().max()) < 5
    assert float(raw["curvature"].mean()) == pytest.approx(chip.self_heating, abs=0.002)
    for n in range(12):
        estimate = found["mesh"].estimates[f"{'phi' if n % 2 else 'theta'} {n // 2} own"]
        assert estimate.away(float(chip.matrix[n, n])) < 5
        assert estimate.unit == "rad/V²"
    gains = torch.tensor([found["photodiodes"].estimates[f"gain {n}"].value for n in range(4)])
    assert torch.allclose(gains, (chip.gains * chip._throughput).float(), rtol=2e-3)


def test_the_settings_near_the_crossing_alone_tell_couplers_from_crosstalk(hidden: tuple[MZIMesh, dict[str, Step]]) -> None:
    chip, found = hidden
    before, raw = found["heaters"].raw, found["crosstalk"].raw
    nothing = torch.zeros_like(before["base"])
    straight = torch.diag(before["slope"]), nothing, nothing.view(-1, 2), chip.v_max_v
    start = MeshModel(MeshLayout.rectangle(4), before["phase"] - before["slope"] * before["base"], *straight)
    near = len(raw["share"]) // 2
    model = fit(start, *(raw[name][:near] for name in ("share", "powers", "sigma")))
    off = chip.matrix * chip.v_max_v**2 - model.matrix
    assert float(chip.couplers.std()) > 0.01 > 20 * float((model.couplers - chip.couplers).square().mean().sqrt())
    assert float((off - torch.diag(off.diagonal())).square().mean().sqrt()) < 0.01  # a neighbour's is 0.4 rad


def test_uncertainties_that_were_not_found_are_infinite(
    hidden: tuple[MZIMesh, dict[str, Step]], monkeypatch: pytest.MonkeyPatch
) -> None:
    chip, found = hidden
    raw = found["crosstalk"].raw
    monkeypatch.setattr(calibration.mesh.fit, "MOST_ITERATIONS", 1)
    settings = (raw[name][:4] for name in ("share", "powers", "sigma"))
    fitted = assessed(model_of(found, chip.v_max_v), *settings, torch.zeros(4), torch.Generator().manual_seed(0))
    assert bool(fitted.sigma.isinf().all())
    assert bool(fitted.offset_sigma.isinf().all())


def test_it_becomes_the_unitary_it_is_told_and_the_measured_fidelity_is_the_true_one(
    hidden: tuple[MZIMesh, dict[str, Step]],
) -> None:
    chip, found = hidden
    figures = found["mesh"].figures
    assert figures["fidelity_worst"] > 0.999
    assert figures["uncompensated_worst"] < 0.99
    model = model_of(found, chip.v_max_v)
    for seed in range(3):
        target = haar(4, torch.Generator().manual_seed(seed))
        assert float(fidelity(chip.unitary(voltages(model, target)), target)) > 0.999


def test_a_dead_heater_is_named_and_nothing_is_built_on_it() -> None:
    found = calibrate(Simulated(MZIMesh(modes=3, specimen=2, dead_heaters=(3,)), seed=1))
    assert [n for n, good in enumerate(found["heaters"].success) if not good] == [3]
    assert [(p.kind, p.what) for p in found["heaters"].problems] == [("stuck", "phi 1 does not turn")]
    assert found["mesh"].problems[0].kind == "skipped"


def test_a_dead_photodiode_is_named() -> None:
    found = calibrate(Simulated(MZIMesh(modes=3, dead_photodiodes=(1,)), seed=1))
    assert found["photodiodes"].success == (True, False, True)
    assert found["photodiodes"].problems[0].kind == "stuck"
    assert not found["heaters"].good


def test_heaters_that_are_too_weak_are_out_of_range() -> None:
    found = calibrate(Simulated(MZIMesh(modes=2, v_max_v=6.0), seed=1))
    assert {problem.kind for problem in found["crosstalk"].problems} == {"range"}
    assert not any(found["crosstalk"].success)
    assert not found["mesh"].good


def test_a_node_of_another_kind_is_said_to_be_one() -> None:
    found = calibrate(Simulated(MachZehnder()))
    assert found["photodiodes"].problems[0].kind == "kind"
    assert not found["mesh"].good


class Incoherent(Simulated):
    """Inputs that do not interfere: their powers add."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1] // 2
        alone = super().forward(torch.eye(2 * n)) - 2e-8
        return (x.square() @ alone + 2e-8).float()


def test_light_that_does_not_interfere_is_not_taken_for_a_mesh() -> None:
    found = calibrate(Incoherent(MZIMesh(modes=3), seed=1))
    assert "kind" in {problem.kind for problem in found["heaters"].problems}
    assert not found["heaters"].good


def test_all_at_once_is_sqrt_k_better_than_one_at_a_time() -> None:
    """As many readings, the same noise and step: the spread of the slopes is compared over many tries."""
    k, noise, step = 15, 0.1, 1.0
    rng = torch.Generator().manual_seed(0)
    true = torch.randn(k, k, generator=rng, dtype=torch.float64)
    design = hadamard(k)
    assert design.shape == (16, k)
    assert torch.equal(design.T @ design, 16 * torch.eye(k, dtype=torch.float64))
    single = torch.cat([torch.eye(k), -torch.eye(k)]).double()  # 30 readings, more than the 16
    errors: tuple[list[float], list[float]] = ([], [])
    for _ in range(40):
        together = step * design @ true.T + noise * torch.randn(16, k, generator=rng, dtype=torch.float64)
        slopes = together.T @ design / (step * 16)
        alone = step * single @ true.T + noise * torch.randn(2 * k, k, generator=rng, dtype=torch.float64)
        errors[0].append(float((slopes - true).square().mean()))
        errors[1].append(float(((alone[:k] - alone[k:]).T / (2 * step) - true).square().mean()))
    rms = [(sum(found) / len(found)) ** 0.5 for found in errors]
    assert rms[0] == pytest.approx(noise / (step * 16**0.5), rel=0.05)
    per_reading = rms[1] * (2 * k / 16) ** 0.5  # with as many readings as the design has
    assert per_reading / rms[0] == pytest.approx(k**0.5, rel=0.1)
