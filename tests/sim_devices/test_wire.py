"""A wire is linear over the ranges of the node whose place it takes; a dead node answers one reading."""

from __future__ import annotations

import pytest
import torch

from hil.device import Port, Spec
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated
from sim_devices.wire import Wire


def test_a_wire_takes_the_range_of_the_drive_to_that_of_the_reading() -> None:
    wire = Wire(MachZehnder(low_v=-4.0, high_v=4.0).spec, zero=0.2, scale=0.1)
    drive = torch.tensor([[-4.0, -2.0, 0.0, 4.0]])
    answer = Simulated(wire).forward(drive)
    assert answer.tolist()[0] == pytest.approx([0.1, 0.15, 0.2, 0.3])
    assert torch.equal(answer, Simulated(wire, seed=5).forward(drive))  # no noise
    assert wire.spec.provenance == "twin"


def test_a_dead_node_says_nothing_of_its_drive_and_its_slope_is_zero() -> None:
    dead = Wire(MachZehnder().spec, zero=0.2, scale=0.0)
    drive = torch.linspace(-5, 5, 11).view(1, -1).requires_grad_(True)
    answer = dead.ideal(drive)
    assert answer.tolist()[0] == pytest.approx([0.2] * 11)
    (slope,) = torch.autograd.grad(answer.sum(), drive)
    assert not slope.any()


@pytest.mark.parametrize(("readings", "drives_read"), [(2, [0, 1]), (3, [0, 1, 2]), (5, [0, 1, 2, 0, 1])])
def test_of_many_channels_each_reading_follows_one_drive(readings: int, drives_read: list[int]) -> None:
    inputs = Port("drives", (0.0, -1.0, 2.0), (1.0, 1.0, 4.0), "V", 3, max_step=0.1)
    spec = Spec(inputs, Port("readings", -9, 9, "A", readings), params=Port("heaters", 0, 1, "V", 4))
    wire = Wire(spec, zero=1.0, scale=2.0)
    assert wire.spec.params is None
    assert not wire.spec.inputs.slews
    answer = Simulated(wire).forward(torch.tensor([[0.0, 0.0, 4.0]]))
    assert answer.tolist() == [[[-1.0, 1.0, 3.0][k] for k in drives_read]]
