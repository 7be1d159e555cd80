"""A steered device follows its offset, and nothing out of limits reaches the node, whatever it is asked."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calibration.drift.steering import Steered, SteeredStream, Steering, steered
from hil.device import Port, Spec
from hil.errors import ContractError, OutOfRange
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated


class Watched:
    """Answers with its drive; remembers the extremes."""

    spec = Spec(Port("node", -4.0, 4.0, "V"), Port("reading", -10.0, 10.0, "V"), provenance="twin")

    def __init__(self) -> None:
        self.seen: list[float] = []

    def program(self, params: Tensor) -> None: ...

    def reset(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.flatten().tolist()
        return x.clone()

    def close(self) -> None: ...


values = st.lists(st.floats(-6, 6, width=32) | st.just(math.nan), min_size=1, max_size=20)


@settings(max_examples=300, deadline=None)
@given(values, st.floats(-50, 50), st.sampled_from([7.0, 8.0, 2.5, None]), st.floats(0, 3.9))
def test_nothing_out_of_limits_is_sent(drive: list[float], offset: float, period: float | None, margin: float) -> None:
    node = Watched()
    device = Steered(node, period, margin)
    if device.reaches(offset):
        device.steer(Steering(offset))
    else:
        with pytest.raises(ContractError, match="cannot be moved so far"):
            device.steer(Steering(offset))
    x = torch.tensor([drive])
    port = device.spec.inputs
    inside = all(port.low <= value <= port.high for value in drive)
    if inside:
        device.forward(x)
    else:
        with pytest.raises(OutOfRange):
            device.forward(x)
        assert not node.seen
    assert all(-4.0 <= value <= 4.0 for value in node.seen)


@settings(max_examples=100, deadline=None)
@given(st.floats(-30, 30), st.integers(-3, 3))
def test_a_period_more_is_the_same_physics(offset: float, turns: int) -> None:
    twin = MachZehnder(noise=0.0)
    device = Steered(Simulated(twin), period=7.0)
    device.steer(Steering(offset + 7.0 * turns))
    x = torch.linspace(-4, 4, 41).unsqueeze(0)
    torch.testing.assert_close(device.forward(x), twin.ideal(x + offset), atol=2e-5, rtol=0)
    assert abs(device.steering.offset) <= 3.5 + 1e-9


def test_readings_are_scaled_back_also_of_a_stream() -> None:
    x = torch.linspace(-1, 1, 9).unsqueeze(0)
    for device in (Steered(Watched()), steered(Simulated(MachZehnder(noise=0.0)))):
        plain = device.forward(x)
        device.steer(Steering(0.0, gain=1.25, bias=0.1))
        torch.testing.assert_close(device.forward(x), (plain - 0.1) / 1.25)
    assert not isinstance(device, SteeredStream)


def test_steering_is_saved_with_the_node() -> None:
    def made() -> Steered:
        return Steered(Simulated(MachZehnder(drift_rad_per_s=0.5), seed=3), period=7.0)

    x, one = torch.linspace(-3, 3, 50).unsqueeze(0), made()
    one.forward(x)
    one.steer(Steering(0.7, 1.1, 0.02))
    saved, other = one.snapshot(), made()
    other.restore(saved)
    assert other.steering == one.steering
    assert torch.equal(other.forward(x), one.forward(x))
    assert Steered(Watched()).snapshot() == {}
    with pytest.raises(ContractError):
        other.restore({"calls": 3})


@pytest.mark.parametrize(("period", "margin"), [(8.5, 0.0), (0.0, 0.0), (None, 4.0), (None, -0.1)])
def test_what_leaves_no_room_is_refused(period: float | None, margin: float) -> None:
    with pytest.raises(ContractError):
        Steered(Watched(), period, margin)


@pytest.mark.parametrize("wrong", [(math.nan, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 1.0, math.inf)])
def test_steering_is_finite(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ContractError):
        Steering(*wrong)
