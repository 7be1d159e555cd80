"""The twin of a phase mask in front of a scattering medium: mask and data add, zero order, a medium that decorrelates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hil.seeding import generator
from sim_devices.phase_mask_camera import PhaseMaskCamera
from sim_devices.scattering import Scattering
from sim_devices.simulated import Simulated

SMALL = {"macropixels": 16, "pixels": 36, "specimen": 3, "noise": 0.0, "quantised": False}


def gray(count: int = 4) -> Tensor:
    return 255 * torch.rand(count, 16, generator=generator(0, 0, "gray"))


def test_without_mask_and_zero_order_it_is_the_scattering_medium() -> None:
    twin, medium = PhaseMaskCamera(**SMALL, zero_order=0.0), Scattering(**SMALL)  # type: ignore[arg-type]
    assert torch.allclose(twin.ideal(gray()), medium.ideal(gray()), rtol=1e-5)
    assert torch.allclose(Simulated(twin).forward(gray()), medium.ideal(gray()), rtol=1e-5)


def test_the_same_mask_everywhere_is_seen_against_the_zero_order_alone() -> None:
    same = torch.full((16,), 1.3)
    for share, seen in ((0.0, False), (0.2, True)):
        twin = PhaseMaskCamera(**SMALL, zero_order=share)  # type: ignore[arg-type]
        moved = float((twin.settled(gray(), same) - twin.ideal(gray())).abs().max())
        assert (moved > 10) is seen, (share, moved)
    turn = twin.settled(gray(), torch.full((16,), 2 * math.pi))
    assert torch.allclose(turn, twin.ideal(gray()), atol=0.1)


def test_gray_levels_and_counts_are_whole_numbers_and_photons_come_at_random() -> None:
    quiet = Simulated(PhaseMaskCamera(**{**SMALL, "quantised": True}))  # type: ignore[arg-type]
    counts = quiet.forward(gray())
    assert torch.equal(counts, counts.round())
    assert torch.equal(counts, quiet.forward(gray().round()))
    loud = Simulated(PhaseMaskCamera(**{**SMALL, "noise": 1.0}))  # type: ignore[arg-type]
    x = gray(1)
    frames = loud.forward(x.expand(2000, -1))
    electrons = (quiet.twin.ideal(x) - 100).clamp(min=0) * 10_000 / 4000  # about: offsets of pixels differ
    assert frames.std(0).mean() == pytest.approx(float((electrons + 9).sqrt().mean()) * 0.4, rel=0.1)


def test_the_mask_has_the_slope_of_the_counts() -> None:
    twin = PhaseMaskCamera(**SMALL).double()  # type: ignore[arg-type]
    mask = torch.rand(16, generator=generator(0, 0, "mask"), dtype=torch.float64, requires_grad=True)
    x = gray(1).double()
    (slope,) = torch.autograd.grad(twin.settled(x, mask)[0, 5], mask)
    step = torch.zeros(16, dtype=torch.float64)
    step[7] = 1e-5
    both = [float(twin.settled(x, mask.detach() + sign * step)[0, 5].detach()) for sign in (1, -1)]
    assert float(slope[7]) == pytest.approx((both[0] - both[1]) / 2e-5, rel=1e-4)


def test_the_medium_decorrelates_as_it_says_and_keeps_its_brightness() -> None:
    device = Simulated(PhaseMaskCamera(**{**SMALL, "pixels": 900}, memory_frames=100.0))  # type: ignore[arg-type]
    x = gray(1)
    first = device.forward(x) - 100
    device.forward(x.expand(34, -1))
    later = device.forward(x) - 100  # 35 frames later: <T' T*> = e^-0.35, of intensities its square, 0.50
    both = torch.corrcoef(torch.cat([first, later]))[0, 1]
    assert float(both) == pytest.approx(math.exp(-0.7), abs=0.12)
    assert float(later.mean() / first.mean()) == pytest.approx(1, abs=0.1)
