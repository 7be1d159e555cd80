"""Banks of microrings that nobody saw are locked, or what is wrong is said."""

from __future__ import annotations

import torch

from calibration.rings.lock import rings
from calibration.sequence import Subject, calibrated
from calibration.step import Step
from hil.device import Device
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.microring_bank import MicroringBank
from sim_devices.simulated import Simulated


def locked(device: Device) -> Step:
    (found,) = calibrated(rings(), Subject(device, seed=0))
    return found


def test_each_ring_is_found_where_it_meets_its_laser_with_all_others_at_theirs() -> None:
    twin = MicroringBank(channels=3, banks=2, specimen=7, crosstalk=0.06)
    device = Simulated(twin, seed=1)
    found = locked(device)
    assert found.good
    params = device.snapshot()["params"]
    assert isinstance(params, torch.Tensor)
    assert params.tolist() == [0.0] * 6  # left cold
    assert found.figures["moved"] < 0.05
    squares = found.raw["volts"].square()
    shift = (twin.matrix @ squares).view(2, 3)
    assert float((shift - twin.cold).abs().max()) < 0.1  # half linewidths
    assert float(twin.weights(found.raw["volts"]).min()) > 0.85
    assert found.estimates["ring 1 2"].unit == "V"
    alone = (twin.cold / twin.matrix.diagonal().view(2, 3)).flatten()  # as if no other ring were warm
    assert float(((squares - alone) * twin.matrix.diagonal()).abs().max()) > 0.3


def test_a_ring_beyond_its_range_is_named() -> None:
    twin = MicroringBank(channels=3, banks=2, specimen=7)
    twin.cold[1, 2] = 30.0
    found = locked(Simulated(twin, seed=1))
    assert [number for number, good in enumerate(found.success) if not good] == [5]
    assert [problem.kind for problem in found.problems] == ["dark"]
    assert "ring 2 of bank 1" in found.problems[0].what
    assert float(found.raw["volts"][5]) == 0


def test_a_dead_heater_and_rings_that_are_not_yet_where_they_belong_are_named() -> None:
    dead = MicroringBank(channels=3, banks=2, specimen=1, crosstalk=0.0)
    dead.matrix[:, 5] = 0.0
    found = locked(Simulated(dead, seed=1))
    assert [(problem.kind, problem.what) for problem in found.problems] == [
        ("dark", "ring 2 of bank 1 does not meet its laser")
    ]
    assert found.figures["moved"] < 0.05  # of those that are locked
    warm = locked(Simulated(MicroringBank(channels=3, banks=2, specimen=2, crosstalk=0.4), seed=1))
    assert {problem.kind for problem in warm.problems} == {"moving"}
    assert warm.success.count(False) == len(warm.problems)


def test_another_node_is_said_to_be_one() -> None:
    assert [problem.kind for problem in locked(Simulated(MachZehnder())).problems] == ["kind"]
    assert not torch.tensor(locked(Simulated(MachZehnder())).success).any()
