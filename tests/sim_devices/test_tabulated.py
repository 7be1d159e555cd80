from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline

from hil.conformance import check_device, check_twin
from hil.errors import ConfigError, OutOfRange
from sim_devices.simulated import Simulated
from sim_devices.tabulated import Tabulated

DRIVE, READING = [-2.0, -1.2, 0.0, 0.5, 2.0], [0.1, 1.0, -0.4, 0.3, 0.2]


def node(noise: float = 0.0) -> Tabulated:
    return Tabulated(drive=DRIVE, reading=READING, noise=noise)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_it_keeps_the_contract(noise: float) -> None:
    assert check_twin(lambda: node(noise)).passed
    assert check_device(lambda: Simulated(node(noise), seed=1)).passed


def test_it_is_the_hermite_spline_through_the_points() -> None:
    x = torch.linspace(-2, 2, 301, dtype=torch.float64)
    slopes = np.gradient(READING, DRIVE)  # second order inside, the chord at the ends
    expected = CubicHermiteSpline(DRIVE, READING, slopes)(x.numpy())
    assert node().ideal(x).tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert node().ideal(torch.tensor(DRIVE)).tolist() == pytest.approx(READING, abs=1e-6)


def test_the_ends_of_the_curve_are_limits() -> None:
    with pytest.raises(OutOfRange):
        Simulated(node()).forward(torch.tensor([[2.1]]))


def test_settings_make_it_again() -> None:
    twin = node(0.1)
    assert Tabulated(**twin.settings()).settings() == twin.settings()


@pytest.mark.parametrize(
    ("drive", "reading"),
    [([0.0, 1.0], [0.0, 1.0]), ([0.0, 1.0, 0.5], [0.0] * 3), ([0.0, 1.0, 2.0], [0.0] * 2), ([0, 1, 2], [0, float("nan"), 1])],
)
def test_what_is_no_curve_is_refused(drive: list[float], reading: list[float]) -> None:
    with pytest.raises(ConfigError, match="not a curve"):
        Tabulated(drive=drive, reading=reading)


def test_the_same_curve_is_made_again_with_another_noise() -> None:
    """A virtual bench does so when its state is restored."""
    curve = Tabulated(drive=[-4.0, 0.0, 4.0], reading=[0.0, 0.1, 0.3])
    assert curve.remade({**curve.settings(), "noise": 0.01}).settings() == {**curve.settings(), "noise": 0.01}
