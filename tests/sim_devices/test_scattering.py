from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hil.errors import ConfigError
from sim_devices.scattering import Scattering
from sim_devices.simulated import Simulated


def frames(twin: Scattering, gray: Tensor, optics: tuple[float, ...] | None = None) -> Tensor:
    device = Simulated(twin, seed=2)
    if optics is not None:
        device.program(torch.tensor(optics))
    return device.forward(gray)


def random_gray(count: int, k: int) -> Tensor:
    return (255 * torch.rand(count, k, generator=torch.Generator().manual_seed(3))).round()


def test_counts_are_whole_numbers_that_end_at_the_converters_rails() -> None:
    seen = frames(Scattering(macropixels=16, pixels=64), random_gray(8, 16), (0.0, 1.0, 1.0, 1.0))
    assert torch.equal(seen, seen.round())
    assert float(seen.max()) == 4095.0


def test_speckle_has_the_statistics_of_speckle() -> None:
    """Intensity of fully developed speckle is exponential: its standard deviation is its mean."""
    twin = Scattering(macropixels=64, pixels=1024, noise=0.0, quantised=False)
    light = (frames(twin, random_gray(64, 64), (0.0, 0.1, 1.0, 0.0)) - twin.offset) / twin.sensitivity
    assert float(light.std() / light.mean()) == pytest.approx(1.0, abs=0.05)


def test_a_phase_common_to_all_macropixels_is_not_seen() -> None:
    twin = Scattering(macropixels=16, pixels=64, noise=0.0, quantised=False)
    same = twin.ideal(torch.tensor([[40.0] * 16, [200.0] * 16]))
    assert torch.allclose(same[0], same[1], atol=1e-2)


def test_photons_come_at_random() -> None:
    twin = Scattering(macropixels=16, pixels=64)
    seen = frames(twin, torch.zeros(400, 16), (0.0, 0.5, 0.0, 1.0)).double()
    electrons = (seen.mean(0) - twin.offset) * twin.full_well / 4000
    wanted = (electrons + twin.read_electrons**2) * (4000 / twin.full_well) ** 2 + 1 / 12
    assert float((seen.var(0) / wanted).mean()) == pytest.approx(1.0, abs=0.03)


def test_behind_the_mirror_is_an_image() -> None:
    """A macropixel at phase 0 on a ground of pi is bright where the adjustment says."""
    twin = Scattering(macropixels=16, pixels=256, specimen=5, noise=0.0, quantised=False)
    twin.flatness.zero_()
    share = torch.linspace(0, 255, 5001).view(-1, 1).expand(-1, 16)
    ground = float(share[(twin.phase(share)[:, 0] - math.pi).abs().argmin(), 0])
    gray = torch.full((1, 16), ground)
    gray[0, 6] = 0.0
    seen = frames(twin, gray, (1.0, 0.5, 1.0, 0.0))[0] - twin.offset
    row, column = divmod(int(seen.argmax()), 16)
    x, y = -1 + 2 * (6 % 4) / 3, -1 + 2 * (6 // 4) / 3
    place = twin.affine[:, :2] @ torch.tensor([x, y], dtype=torch.float64) + twin.affine[:, 2]
    assert abs(column - float(place[0])) < 1
    assert abs(row - float(place[1])) < 1


@pytest.mark.parametrize("settings", [{"macropixels": 15}, {"pixels": 0}, {"full_well": 0.0}, {"hot_pixels": [256]}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="Scattering"):
        Scattering(**settings)  # type: ignore[arg-type]
