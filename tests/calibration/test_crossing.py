"""Interferometers of a mesh are set to cross, from heaters that nobody knows."""

from __future__ import annotations

import pytest
import torch

from calibration.mesh.clements import MeshLayout, unitary
from calibration.mesh.crossing import crossed, lines
from calibration.mesh.light import Lit
from calibration.mesh.photodiodes import photodiodes
from calibration.sequence import Subject
from sim_devices.mzi_mesh import MZIMesh
from sim_devices.simulated import Simulated


class Counting(Simulated):
    """A mesh that knows how much it was asked."""

    asked = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return super().forward(x)


@pytest.mark.parametrize("modes", [2, 3, 4, 7])
def test_every_two_lines_meet_once_and_light_keeps_to_them(modes: int) -> None:
    layout = MeshLayout.rectangle(modes)
    met = lines(layout)
    assert sorted(met) == [(a, b) for a in range(modes) for b in range(a + 1, modes)]
    phases = torch.zeros(layout.heaters, dtype=torch.float64)
    phases[1::2] = torch.rand(layout.heaters // 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    power = unitary(layout, phases, torch.zeros(layout.heaters // 2, 2, dtype=torch.float64)).abs().square()
    assert torch.allclose(power, torch.eye(modes, dtype=torch.float64).flip(0))
    number = met.index((0, modes - 1))  # half of the light of its two lines goes astray, and that of no other
    phases[2 * number] = torch.pi / 2
    power = unitary(layout, phases, torch.zeros(layout.heaters // 2, 2, dtype=torch.float64)).abs().square()
    straight = power.flip(0).diagonal()
    assert straight[[0, -1]].tolist() == pytest.approx([0.5, 0.5])
    assert torch.allclose(straight[1:-1], torch.ones(modes - 2, dtype=torch.float64))


def test_all_cross_and_the_slope_is_that_of_a_heater() -> None:
    chip = MZIMesh(modes=4, specimen=33, crosstalk=0.05)
    device = Counting(chip, seed=2)
    lit = Lit.of(device, {"photodiodes": photodiodes(Subject(device, seed=0), {})})
    before = device.asked
    share, slope = crossed(lit, torch.Generator().manual_seed(0))
    power = chip.unitary(lit.full_v * share.sqrt().float()).abs().square()
    assert float(power.flip(0).diagonal().min()) > 0.93
    own = chip.matrix.diagonal() * chip.v_max_v**2
    assert slope == pytest.approx(float(own.mean()), rel=0.08)  # and what it heats itself by
    assert 0 < float(share.min()) < float(share.max()) < 1
    assert device.asked - before < 500  # 18 sweeps of 12 points, and the settings drawn
