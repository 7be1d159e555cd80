from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from hil.device import Port, Restorable, Spec
from hil.errors import ContractError, OutOfRange
from hil.wrappers import Averaged, Guarded
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated


class Counting:
    """Answers its drive plus the number of the call."""

    def __init__(self, temporal: bool = False) -> None:
        params = Port("weights", -1, 1, size=2)
        self.spec = Spec(Port("dac", -2.0, 2.0, "V"), Port("adc", -100, 100, "V"), params, temporal)
        self.calls = self.closed = self.resets = 0
        self.programmed: Tensor | None = None

    def program(self, params: Tensor) -> None:
        self.programmed = params

    def reset(self) -> None:
        self.resets += 1

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls

    def close(self) -> None:
        self.closed += 1


def column(*values: float) -> Tensor:
    return torch.tensor(values).unsqueeze(1)


def test_guard_narrows_and_says_so_in_its_spec() -> None:
    inner = Counting()
    device = Guarded(inner, -1.0, 0.5)
    assert device.spec.inputs == Port("dac", -1.0, 0.5, "V")
    assert device.spec.outputs == inner.spec.outputs
    for bad in (-1.5, 0.6, math.nan):
        with pytest.raises(OutOfRange):
            device.forward(column(0.0, bad))
    assert inner.calls == 0
    assert device.forward(column(-1.0, 0.5)).flatten().tolist() == [0.0, 1.5]


def test_guard_keeps_the_ports_own_limits_where_none_are_given() -> None:
    assert Guarded(Counting(), high=1.0).spec.inputs == Port("dac", -2.0, 1.0, "V")
    with pytest.raises(OutOfRange, match="never widened"):
        Guarded(Counting(), high=2.5)


def test_guard_bounds_the_slew_inside_a_batch_and_between_batches() -> None:
    inner = Counting()
    device = Guarded(inner, max_step=0.5)
    device.forward(column(0.0, 0.5, 1.0))
    with pytest.raises(OutOfRange, match=r"a step of 1 V; allowed: at most 0.5 V"):
        device.forward(column(1.0, 0.0))
    with pytest.raises(OutOfRange):
        device.forward(column(0.25))  # from 1.0, the last value that was sent: a refused batch does not count
    assert inner.calls == 1
    device.forward(column(0.75, 0.25))
    assert inner.calls == 2


def test_guard_takes_a_first_value_and_another_width_as_a_new_start() -> None:
    device = Guarded(Counting(), max_step=0.1)
    device.forward(column(2.0))
    device.forward(torch.full((1, 2), -2.0))


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan])
def test_guard_refuses_a_senseless_step(step: float) -> None:
    with pytest.raises(ContractError, match="max_step"):
        Guarded(Counting(), max_step=step)


def test_guard_checks_what_is_programmed() -> None:
    inner = Counting()
    device = Guarded(inner)
    for bad in (torch.tensor([0.0, 1.5]), torch.tensor([0.0, math.nan]), torch.zeros(3)):
        with pytest.raises(OutOfRange):
            device.program(bad)
    assert inner.programmed is None
    device.program(torch.ones(2))
    assert inner.programmed is not None


def test_average_is_the_mean_of_the_passes() -> None:
    inner = Counting()
    assert Averaged(inner, 4).forward(column(0.0, 1.0)).flatten().tolist() == [2.5, 3.5]
    assert inner.calls == 4


def test_average_lowers_noise_by_the_square_root() -> None:
    x = torch.zeros(2000, 1)

    def noise(repeats: int) -> float:
        twin = MachZehnder(thermal_a_per_rthz=1e-9)
        return float(Averaged(Simulated(twin, seed=1), repeats).forward(x).std())

    assert noise(1) / noise(16) == pytest.approx(4.0, rel=0.1)


def test_average_refuses_what_it_cannot_repeat() -> None:
    with pytest.raises(ContractError, match="at least 1"):
        Averaged(Counting(), 0)
    with pytest.raises(ContractError, match="temporal"):
        Averaged(Counting(temporal=True), 2)


@pytest.mark.parametrize("wrap", [Guarded, lambda inner: Averaged(inner, 2)])
def test_wrappers_pass_on_what_is_not_theirs(wrap: type[Guarded]) -> None:
    inner = Counting()
    device = wrap(inner)
    device.reset()
    device.program(torch.zeros(2))
    device.close()
    device.close()
    assert (inner.resets, inner.closed) == (1, 2)
    assert inner.programmed is not None


def test_guard_and_average_save_and_restore_all_below() -> None:
    def make() -> Guarded:
        return Guarded(Averaged(Simulated(MachZehnder(drift_rad_per_rts=0.1), seed=5), 2), max_step=0.5)

    device, other = make(), make()
    assert isinstance(device, Restorable)
    device.forward(column(0.0, 0.5))
    saved = json.loads(json.dumps(device.snapshot()))
    wanted = device.forward(column(0.75, 1.0))
    other.restore(saved)
    with pytest.raises(OutOfRange):
        other.forward(column(1.2))  # the last value sent is part of the state
    assert torch.equal(other.forward(column(0.75, 1.0)), wanted)
