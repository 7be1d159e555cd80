"""Drift of a node of several channels: apart or mixed is measured, each is put right by itself, the worst one decides."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from calibration.drift.curves import Curves, places
from calibration.drift.sentinel import DriftSentinel
from calibration.drift.settings import SentinelSettings
from calibration.drift.steering import Steered, Steering
from hil.device import Port, Spec
from hil.errors import ContractError, MeasurementError, OutOfRange
from hil.sentinel import Look

V_PI = (3.0, 3.5, 4.0)
CALM = {"walk": (0.0, 0.0, 0.0), "gain": (1.0, 1.0, 1.0), "bend": 0.0, "dead": ()}


class Modulators:
    """Three modulators, each with its own half-wave voltage; `crosstalk`: their readings answer to all drives."""

    def __init__(self, crosstalk: float = 0.0, params: bool = False, **state: Any) -> None:
        inputs = Port("drives", (-3.5, -4.0, -4.5), (3.5, 4.0, 4.5), "V", 3)
        heaters = Port("heaters", 0.0, 1.0, "W", 2) if params else None
        self.spec = Spec(inputs, Port("readings", -1.0, 3.0, "V", 3), params=heaters, provenance="twin")
        self.crosstalk, self.state, self.sent = crosstalk, {**CALM, **state}, 0
        self.noise = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        self.sent += 1
        walk, gain = torch.tensor(self.state["walk"]), torch.tensor(self.state["gain"])
        y = 0.5 + 0.5 * torch.sin(math.pi * (x - walk) / torch.tensor(V_PI)) + self.state["bend"] * torch.sin(2.2 * x)
        y = gain * (y + self.crosstalk * y.roll(1, -1))
        for dead in self.state["dead"]:
            y[:, dead] = 0.0
        return y + 2e-4 * torch.randn(y.shape, generator=self.noise)

    def close(self) -> None: ...


class Many(Modulators):
    """Two readings of five drives."""

    def __init__(self, **state: Any) -> None:
        self.spec = Spec(Port("drives", 0.0, 1.0, "V", 5), Port("readings", -9.0, 9.0, "V", 2), provenance="twin")
        self.state, self.noise, self.sent = {**CALM, **state}, torch.Generator().manual_seed(3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        weights = torch.linspace(-1, 1, 10).reshape(5, 2)
        y = torch.tanh(x @ weights) * self.state["gain"][0] + self.state["bend"] * torch.sin(9 * x[:, :2])
        return y + 1e-4 * torch.randn(y.shape, generator=self.noise)


def watched(
    node: Modulators, period: Any = tuple(2 * v for v in V_PI), **settings: Any
) -> tuple[DriftSentinel, Steered, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    steered = Steered(node, period)
    sentinel = DriftSentinel(steered, steered, SentinelSettings(every=1, **settings), lambda kind, **facts: told.append(facts))
    sentinel.begin()
    return sentinel, steered, told


def looked(sentinel: DriftSentinel, step: int = 1) -> Look:
    look = sentinel.after(step, 10_000, 10_000_000)
    assert look is not None
    return look


def kept(sentinel: DriftSentinel) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(json.dumps(sentinel.state()))
    return found


def test_each_channel_is_followed_by_itself_and_the_worst_one_is_told() -> None:
    node = Modulators()
    sentinel, steered, told = watched(node)
    assert "3 channels, apart" in told[-1]["message"]
    assert looked(sentinel).state == "quiet"
    node.state["walk"] = (0.0, 0.4, -0.15)
    look = looked(sentinel, 2)
    assert look.did == ("servo",)
    assert look.state == "quiet"
    assert steered.steering.offset == pytest.approx((0.0, 0.4, -0.15), abs=3e-3)
    assert told[-1]["channel"] == 2
    assert "channel 2: walk" in told[-1]["message"]
    x = torch.tensor([[0.3, 0.3, 0.3], [-3.5, 4.0, -4.5]])
    calm = Modulators()
    assert torch.allclose(steered.forward(x), calm.forward(x), atol=0.01)


def test_a_walk_beyond_a_rail_comes_back_by_the_period_of_its_channel() -> None:
    node = Modulators()
    sentinel, steered, _ = watched(node)
    for step in range(1, 26):
        node.state["walk"] = (-0.2 * step, 0.0, 0.25 * step)
        assert looked(sentinel, step).state == "quiet"
    walked: Any = sentinel.summary()["walked"]
    assert walked == pytest.approx([-5.0, 0.0, 6.25], abs=0.02)
    assert steered.steering.offset == pytest.approx((1.0, 0.0, -1.75), abs=0.02)  # 6 V and 8 V further on


def test_a_channel_that_loses_light_is_scaled_back_alone() -> None:
    node = Modulators()
    sentinel, steered, _ = watched(node)
    node.state["gain"] = (1.0, 1.0, 0.8)
    look = looked(sentinel)
    assert look.did == ("rescale",)
    assert steered.steering.gain == pytest.approx((1.0, 1.0, 0.8), abs=5e-3)
    assert not any(torch.tensor(steered.steering.offset))


def test_channels_that_mix_are_found_out_and_no_servo_applies() -> None:
    node = Modulators(crosstalk=0.3)
    sentinel, steered, told = watched(node)
    assert "3 channels, mixed" in told[-1]["message"]
    assert "no servo applies" in told[-1]["message"]
    node.state["gain"] = (1.0, 0.7, 1.0)
    assert looked(sentinel).did == ("rescale",)
    node.state["walk"] = (0.0, 0.3, 0.0)
    look = looked(sentinel, 2)
    assert look.did[-1] == "recalibrate"
    assert look.state == "quiet"
    assert not any(torch.tensor(steered.steering.offset))
    assert looked(sentinel, 3).state == "quiet"


@pytest.mark.parametrize(("policy", "did"), [(("log",), ("log",)), (("stop",), ("stop",))])
def test_other_numbers_of_drives_and_readings(policy: Sequence[Any], did: tuple[str, ...]) -> None:
    node = Many()
    sentinel, _, told = watched(node, None, policy=tuple(policy))
    assert "2 channels, mixed" in told[-1]["message"]
    assert looked(sentinel).state == "quiet"
    node.state["bend"] = 0.1
    look = looked(sentinel, 2)
    assert (look.state, look.did) == ("act", did)
    assert (look.fault is not None) == (did == ("stop",))


def test_a_policy_of_a_servo_alone_is_refused_where_channels_mix() -> None:
    with pytest.raises(ContractError, match="each answer to their own drive"):
        watched(Many(), None, policy=("servo", "stop"))
    with pytest.raises(ContractError, match="parameters"):
        watched(Modulators(params=True))


def test_readings_that_do_not_answer_are_told_and_left_out() -> None:
    sentinel, _, told = watched(Modulators(dead=(1,)))
    assert "1 of 3 readings are not watched" in told[-1]["message"]
    assert looked(sentinel).state == "quiet"
    with pytest.raises(MeasurementError, match="does not answer"):
        watched(Modulators(dead=(0, 1, 2)))


def test_it_goes_on_from_its_state() -> None:
    node = Modulators()
    sentinel, _, _ = watched(node)
    node.state["walk"] = (0.2, 0.0, 0.0)
    looked(sentinel)
    state = kept(sentinel)
    again, steered, told = watched(node)
    again.restore(state)
    assert kept(again) == state
    assert steered.steering.offset == pytest.approx((0.2, 0.0, 0.0), abs=3e-3)
    before = node.sent
    again.begin()
    assert node.sent == before
    wrong = {**state["reference"], "outputs": [0, 1, 7]}
    with pytest.raises(ValueError, match="readings of 3"):
        Curves.read(wrong)
    del told


def test_the_probe_of_mixed_channels_has_other_drives_on_each_and_small_steps() -> None:
    at = places(6, 32)
    way = [min(int(k), 63 - int(k)) for k in at.flatten()]  # the level, of 32
    levels = torch.tensor(way).reshape(at.shape)
    assert levels.diff(dim=1).abs().max() <= 2
    for k in range(6):
        assert len(set(levels[k].tolist())) == 32
        for other in range(k):
            assert abs(float(torch.corrcoef(levels[[k, other]].double())[0, 1])) < 0.99


def test_steering_of_several_channels_keeps_each_in_its_range() -> None:
    node = Modulators()
    steered = Steered(node, (6.0, 7.0, 8.0))
    steered.steer(Steering((2.9, -3.4, 1.0), (1.0, 2.0, 1.0), (0.0, 0.1, 0.0)))
    extremes = torch.tensor([[3.5, 4.0, 4.5], [-3.5, -4.0, -4.5]])
    steered.forward(extremes)  # the node refuses what is out of its range
    with pytest.raises(OutOfRange, match="channel 1"):
        steered.forward(torch.tensor([[3.6, 0.0, 0.0]]))
    assert Steering.read(json.loads(json.dumps(steered.steering.table()))) == steered.steering
    for wrong in ((6.0, 7.0), (6.0, 7.0, 9.5)):
        with pytest.raises(ContractError):
            Steered(node, wrong)
    with pytest.raises(ContractError, match="cannot be moved"):
        Steered(node, None, 0.5).steer(Steering((0.0, 0.6, 0.0)))
