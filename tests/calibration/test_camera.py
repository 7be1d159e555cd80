"""A modulator, a medium and a camera that nobody saw: everything about them is found, or what is wrong is said."""

from __future__ import annotations

import math

import pytest
import torch
from small_calibration import as_record

from calibration.camera.phase_lut import levels_for
from calibration.camera.sequence import camera
from calibration.camera.transmission import retrieved
from calibration.sequence import Subject, calibrated
from calibration.step import Step
from hil.device import Device
from hil.report.calibration.camera import camera as camera_figures
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.scattering import Scattering
from sim_devices.simulated import Simulated


def calibrate(device: Device) -> dict[str, Step]:
    return {step.name: step for step in calibrated(camera(), Subject(device, seed=3))}


def bench(**settings: object) -> Scattering:
    return Scattering(macropixels=36, pixels=144, specimen=6, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def hidden() -> tuple[Scattering, dict[str, Step]]:
    twin = bench()
    return twin, calibrate(Simulated(twin, seed=1))


def test_every_step_is_good(hidden: tuple[Scattering, dict[str, Step]]) -> None:
    _, found = hidden
    assert list(found) == ["dark frame", "flat field", "phase table", "registration", "transmission"]
    assert [step.name for step in found.values() if not step.good] == []


def test_pixels_are_known(hidden: tuple[Scattering, dict[str, Step]]) -> None:
    twin, found = hidden
    assert float((found["dark frame"].raw["dark"] - twin.offset).abs().max()) < 1.5
    even = twin.sensitivity / twin.sensitivity.mean()
    assert float((found["flat field"].raw["sensitivity"] / even - 1).abs().max()) < 0.01
    assert found["flat field"].estimates["gain"].away(4000 / twin.full_well) < 4


def test_the_steps_keep_what_the_main_figures_need(hidden: tuple[Scattering, dict[str, Step]]) -> None:
    drawn = {figure.name: figure for figure in camera_figures(as_record(hidden[1]))}
    assert list(drawn) == [
        "camera-linearity", "photon-transfer", "read-noise", "phase-table", "point-spread", "transmission",
    ]  # fmt: skip
    signal, exposure = (drawn["camera-linearity"].columns[name] for name in (
        "signal, mean of pixels (counts)", "exposure (share of the longest)",
    ))  # fmt: skip
    slopes = [float(y) / float(x) for x, y in zip(exposure, signal, strict=True)][:5]
    assert max(slopes) < 1.01 * min(slopes)


def test_the_phase_table_is_right(hidden: tuple[Scattering, dict[str, Step]]) -> None:
    twin, found = hidden
    raw = found["phase table"].raw
    true = twin.phase(raw["gray"][:, None].expand(-1, 36))[:, 0]
    true = true - true[0]
    assert float((raw["phase"] - true).abs().max()) < 0.03
    assert found["phase table"].estimates["stroke"].away(float(true[-1])) < 4
    wanted = torch.linspace(0, 6.2, 50)
    made = twin.phase(levels_for(found, wanted)[:, None].expand(-1, 36))[:, 0] - twin.phase(torch.zeros(1, 36))[0, 0]
    assert float((made - wanted).abs().max()) < 0.03


def test_the_modulator_is_found_on_the_camera(hidden: tuple[Scattering, dict[str, Step]]) -> None:
    twin, found = hidden
    assert float((found["registration"].raw["affine"] - twin.affine).abs().max()) < 0.03
    assert found["registration"].residual_rms is not None
    assert found["registration"].residual_rms < 0.1


def test_the_transmission_matrix_foretells_and_focuses(hidden: tuple[Scattering, dict[str, Step]]) -> None:
    twin, found = hidden
    step = found["transmission"]
    assert step.figures["correlation_worst"] > 0.98
    measured, promised, ideal = (
        step.estimates["enhancement"].value,
        step.figures["enhancement_promised"],
        1 + math.pi / 4 * 35,
    )
    assert measured == pytest.approx(promised, rel=0.1)
    assert 0.75 * ideal < measured < 1.1 * ideal
    true = torch.complex(twin.real, twin.imaginary) * twin.illumination * torch.polar(torch.ones(36).double(), twin.flatness)
    found_matrix = torch.complex(step.raw["real"], step.raw["imaginary"])
    overlap = (found_matrix.conj() * true).sum(1).abs() / (found_matrix.norm(dim=1) * true.norm(dim=1))
    assert float(overlap.min()) > 0.99
    singular = torch.linalg.svdvals(true) / true.abs().square().mean().sqrt() / 12
    assert torch.allclose(step.raw["singular"], singular, rtol=0.05)


def test_the_optics_are_left_as_they_stood(hidden: tuple[Scattering, dict[str, Step]]) -> None:
    device = Simulated(bench(), seed=1)
    calibrate(device)
    params = device.snapshot()["params"]
    assert isinstance(params, torch.Tensor)
    assert params.tolist() == [0.0, 0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "step", "kind", "channels"),
    [
        ({"hot_pixels": (7,)}, "dark frame", "hot", [7]),
        ({"dead_pixels": (9,)}, "flat field", "stuck", [9]),
        ({"dead_macropixels": (5,)}, "registration", "region", [5]),
        ({"stroke_turns": 0.8}, "phase table", "range", [0]),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_built_on_it(
    settings: dict[str, object], step: str, kind: str, channels: list[int]
) -> None:
    found = calibrate(Simulated(bench(**settings), seed=1))
    assert {problem.kind for problem in found[step].problems} == {kind}
    assert [n for n, good in enumerate(found[step].success) if not good] == channels
    assert found["transmission"].problems[0].kind == "skipped"


class Amplitude(Simulated):
    """A modulator in amplitude mode: the halves do not interfere as phases do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.where(x > 100, 100.0, x))


def test_a_modulator_whose_phase_stands_still_is_not_believed() -> None:
    found = calibrate(Amplitude(bench(), seed=1))
    assert not found["phase table"].good
    assert not found["transmission"].good


def test_a_node_of_another_kind_is_said_to_be_one() -> None:
    found = calibrate(Simulated(MachZehnder()))
    assert found["dark frame"].problems[0].kind == "kind"


def test_phases_are_retrieved_from_intensities_without_noise() -> None:
    rng = torch.Generator().manual_seed(0)
    field = torch.polar(torch.ones(200, 25).double(), 6.3 * torch.rand(200, 25, generator=rng).double())
    true = torch.complex(*(torch.randn(40, 25, generator=rng).double() for _ in range(2)))
    found, left = retrieved(field, (field @ true.T).abs().square(), rng)
    overlap = (found.conj() * true).sum(1).abs() / (found.norm(dim=1) * true.norm(dim=1))
    assert float(overlap.min()) > 0.9999
    assert float(left.max()) < 1e-2
