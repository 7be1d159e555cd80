"""A port whose channels have limits, steps and scales of their own, against plain loops over the channels."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hil
from hil.device import Port, Spec
from hil.errors import ContractError, OutOfRange
from hil.port import Limit, each
from hil.slew import Held, Slew, slew_of

LOW, HIGH = (-1.2,) * 5 + (-0.7,) * 2, (0.6,) * 5 + (0.3,) * 2
GATES = Port("gates", LOW, HIGH, "V", 7)
NAN, INF = math.nan, math.inf
NUMBERS = st.floats(-3, 3, width=32)
DRIVEN = st.one_of(NUMBERS, st.sampled_from([NAN, INF, -INF, *(np.float32(x).item() for x in {*LOW, *HIGH})]))


@st.composite
def ports(draw: st.DrawFn) -> Port:
    size = draw(st.integers(1, 5))
    pairs = [sorted(draw(st.tuples(st.floats(-2, 2), st.floats(-2, 2)))) for _ in range(size)]
    low: Limit = tuple(pair[0] for pair in pairs)
    high: Limit = tuple(pair[1] for pair in pairs)
    shared = draw(st.sampled_from(["neither", "low", "high"]))
    low, high = min(low) if shared == "low" else low, max(high) if shared == "high" else high
    return Port("p", low, high, "V", size)


def allowed(port: Port, values: np.ndarray) -> bool:
    """The rule as a loop: float32 limits, inclusive; NaN is not."""
    lows, highs = each(port.low, port.size), each(port.high, port.size)
    rows = values.reshape(-1, port.size or 1)
    return all(np.float32(lows[k]) <= row[k] <= np.float32(highs[k]) for row in rows for k in range(len(lows)))


@given(ports(), st.data())
def test_the_check_is_the_loop_over_channels(port: Port, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(port.size,), (3, port.size), (2, 3, port.size)]))
    limits = [np.float32(x).item() for x in (*each(port.low, port.size), *each(port.high, port.size))]
    one = st.one_of(NUMBERS, st.sampled_from([*limits, NAN, INF, -INF]))
    count = math.prod(n for n in shape if n)
    values = np.array(data.draw(st.lists(one, min_size=count, max_size=count)), np.float32).reshape(shape)
    tensor = torch.from_numpy(values)
    if allowed(port, values):
        assert port.check(tensor) is tensor
    else:
        with pytest.raises(OutOfRange, match="nothing was sent"):
            port.check(tensor)


@given(ports())
def test_shares_cover_the_range_of_each_channel(port: Port) -> None:
    low, high = (torch.tensor(each(limit, port.size)) for limit in (port.low, port.high))
    for share, end in ((0.0, low), (1.0, high)):
        assert torch.equal(port.within(torch.full((2, port.size or 1), share))[1], end)
    port.check(port.within(torch.rand(50, port.size or 1)))


def test_one_electrode_is_named_with_its_own_limits() -> None:
    values = torch.zeros(2, 7)
    values[1, 5] = 0.5  # which electrodes 1 to 5 would bear
    with pytest.raises(OutOfRange) as refusal:
        GATES.check(values)
    text = str(refusal.value)
    assert "port gates, channel 6: 1 of 14 values out of range" in text
    assert "allowed: -0.7 to 0.3 V, NaN never" in text
    assert "got 0 to 0.5 V" in text
    values[0, 0], values[1, 6] = -1.3, NAN
    with pytest.raises(OutOfRange) as refusal:
        GATES.check(values)
    text = str(refusal.value)
    assert "port gates, channels 1, 6, 7: 3 of 14 values out of range" in text
    assert "channel 1: -1.2 to 0.6 V; channel 6: -0.7 to 0.3 V; channel 7: -0.7 to 0.3 V, NaN never" in text
    assert "1 NaN" in text
    with pytest.raises(OutOfRange, match="channels 1, 2, 3, 4 and 3 more: 7 of 7"):
        GATES.check(torch.full((7,), 9.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_any_kind_of_number_is_checked(dtype: torch.dtype) -> None:
    port = Port("codes", (0, -2), (5, 2), size=2)
    assert port.check(torch.tensor([[5, -2]], dtype=dtype)).dtype == dtype
    with pytest.raises(OutOfRange, match="channel 2"):
        port.check(torch.tensor([[5, -3]], dtype=dtype))
    assert port.check(torch.zeros(0, 2, dtype=dtype)).shape == (0, 2)


def test_a_port_is_a_value() -> None:
    again = Port("gates", list(LOW), np.array(HIGH), "V", 7)  # type: ignore[arg-type]
    assert again == GATES
    assert hash(again) == hash(GATES)
    assert isinstance(again.high, tuple)
    assert Port("gates", -1.2, HIGH, "V", 7) != GATES
    assert Port("p", 0, (1, 2), size=2).per_channel
    assert not Port("p", 0, 1, size=2).per_channel
    assert dataclasses.replace(GATES, name="others").low == LOW


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"low": (0.0, 0.0), "high": 1.0}, "low of 2 numbers, size None"),
        ({"low": (0.0, 0.0), "high": 1.0, "size": 3}, "low of 2 numbers, size 3; allowed: size = 2"),
        (
            {"low": 0.0, "high": (1.0, -1.0), "size": 2},
            "port p, channel 2: limits are the wrong way round; got low 0.0, high -1.0",
        ),
        ({"low": (0.0, NAN), "high": 1.0, "size": 2}, "port p, channel 2"),
        ({"low": (0.0, "1"), "high": 1.0, "size": 2}, "a limit is a number"),
        ({"low": (0.0, True), "high": 1.0, "size": 2}, "a limit is a number"),
        ({"low": 0.0, "high": 1.0, "max_step": 0.0}, "a largest step is above 0"),
        ({"low": 0.0, "high": 1.0, "size": 2, "slew_per_s": (1.0, NAN)}, "channel 2: a largest rate is above 0"),
        ({"low": 0.0, "high": 1.0, "scale": 0.0}, "a scale is finite, and not 0"),
        ({"low": 0.0, "high": 1.0, "scale": INF}, "a scale is finite"),
        ({"low": 0.0, "high": 1.0, "rest": 2.0}, "rest is inside the limits"),
    ],
)
def test_limits_that_make_no_sense_are_refused(made: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError) as refusal:
        Port("p", **made)
    assert said in str(refusal.value)


@given(ports(), st.floats(-2, 2), st.floats(-2, 2))
def test_narrowing_is_for_each_channel_and_never_widens(port: Port, low: float, high: float) -> None:
    fits = all(a <= low <= high <= b for a, b in zip(each(port.low, port.size), each(port.high, port.size), strict=True))
    if fits:
        assert port.narrowed(low, high) == dataclasses.replace(port, low=low, high=high)
    else:
        with pytest.raises(OutOfRange, match="narrowed, never widened"):
            port.narrowed(low, high)


def test_a_channel_that_would_be_widened_is_named() -> None:
    inner = (-0.5,) * 7
    assert GATES.narrowed(inner, HIGH).low == inner
    with pytest.raises(OutOfRange) as refusal:
        GATES.narrowed(-1.0, (0.3,) * 7)
    assert "port gates, channel 6" in str(refusal.value)
    assert "inside -0.7 to 0.3 V" in str(refusal.value)
    with pytest.raises(ContractError, match="6 numbers, size 7"):
        GATES.narrowed((-0.5,) * 6, 0.0)
    assert Port("p", 0, 5, "V", 2).narrowed((0, 1), (5, 4)) == Port("p", (0, 1), (5, 4), "V", 2)
    kept = Port("p", 0, 5, "V", 2, max_step=0.1, scale=(1.0, 1000.0)).narrowed(1, 2)
    assert (kept.max_step, kept.scale) == (0.1, (1.0, 1000.0))


def test_what_wants_shared_limits_says_so() -> None:
    assert Port("p", (1, 1), (2, 2), size=2).shared_low == 1.0
    assert GATES.span == pytest.approx(1.0)
    with pytest.raises(ContractError, match="channels that share their limits"):
        _ = GATES.shared_high


def test_a_table_says_no_more_than_it_must() -> None:
    assert Port("p", 0, 1).table() == {"name": "p", "low": 0.0, "high": 1.0, "unit": "1", "size": None}
    full = dataclasses.replace(GATES, max_step=0.1, slew_per_s=LOW and (1.0,) * 7, scale=1e-3, rest=-0.1)
    assert Port(**full.table()) == full
    assert Port(**GATES.table()) == GATES
    assert Spec(GATES, GATES).table()["params"] is None


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6), st.sampled_from([0.5, (0.25, 1.0)]))
def test_steps_are_the_loop_over_rows(rows: list[tuple[float, float]], most: Limit) -> None:
    port = Port("p", -3, 3, "V", 2, max_step=most)
    path = [(0.0, 0.0), *rows]
    fits = all(
        abs(b - a) <= limit + np.finfo(np.float32).eps * max(abs(a), abs(b))
        for before, now in itertools.pairwise(path)
        for a, b, limit in zip(before, now, each(most, 2), strict=True)
    )
    values = torch.tensor(rows)
    if fits:
        assert port.check_steps(values, port.resting()) is values
    else:
        with pytest.raises(OutOfRange, match="a step that is too large"):
            port.check_steps(values, port.resting())


def test_a_step_is_named_by_channel_and_rows() -> None:
    port = dataclasses.replace(GATES, max_step=(0.5,) * 6 + (0.1,))
    drive = torch.zeros(3, 7)
    drive[2, 6] = 0.2
    with pytest.raises(OutOfRange) as refusal:
        port.check_steps(drive, port.resting())
    text = str(refusal.value)
    assert "port gates, channel 7: a step that is too large, from row 2 to row 3; got 0.2 V; allowed: up to 0.1 V" in text
    with pytest.raises(OutOfRange, match="from what the channels hold to the first row"):
        port.check_steps(torch.zeros(1, 7), torch.full((7,), 0.3))
    with pytest.raises(OutOfRange):
        port.check_steps(torch.full((1, 7), NAN), port.resting())
    with pytest.raises(ContractError, match="a time axis"):
        port.check_steps(torch.zeros(1, 1, 7), port.resting())


@pytest.mark.parametrize("step", [0.1, 0.3, 0.7])
def test_a_largest_step_itself_is_allowed_although_float32_rounds_it(step: float) -> None:
    port = Port("p", 0, 10, size=1, max_step=step)
    path = torch.tensor([[step * k] for k in range(1, 10)])
    assert port.check_steps(path, port.resting()) is path
    with pytest.raises(OutOfRange):
        port.check_steps(path + 1e-4, port.resting())


def test_a_rate_is_a_step_once_the_time_between_rows_is_known() -> None:
    port = Port("p", -1, 1, size=2, slew_per_s=(1.0, 10.0), max_step=0.5)
    assert port.step_limit(0.2) == (0.2, 0.5)
    with pytest.raises(ContractError, match="time between rows is not known"):
        port.step_limit()
    with pytest.raises(ContractError, match="time between rows"):
        Held(port)


def test_any_width_is_one_channel_in_time() -> None:
    port = Port("p", -1, 1, max_step=0.5)
    port.check_steps(torch.tensor([[0.5, 1.0], [0.5, 0.0]]), port.resting())
    with pytest.raises(OutOfRange, match="from row 2 to row 3"):
        port.check_steps(torch.tensor([[0.5, 1.0], [0.0, 0.0]]), port.resting())


def test_what_the_channels_hold_is_kept() -> None:
    port = Port("p", -1, 1, size=1, max_step=0.5, rest=0.5)
    held = Held(port)
    held.check(torch.tensor([[1.0]]))
    held.sent(torch.tensor([[0.5], [1.0]]))
    with pytest.raises(OutOfRange):
        held.check(torch.tensor([[0.4]]))
    held.lost(torch.tensor([[0.6]]))  # 1.0, 0.6 or rest, 0.5: near to all of them is 0.5 to 1.0
    held.check(torch.tensor([[0.75]]))
    for bad in (0.4, -0.1):
        with pytest.raises(OutOfRange):
            held.check(torch.tensor([[bad]]))
    held.at_rest()
    held.check(torch.tensor([[0.0]]))


def test_a_scale_is_for_each_channel_and_goes_both_ways() -> None:
    port = Port("p", -1, 1, "V", 2, scale=(1000.0, -0.1))
    values = torch.tensor([[0.6, 0.5]])
    assert torch.equal(port.own(values), torch.tensor([[600.0, -0.05]]))
    assert torch.equal(port.of_own(port.own(values)), values)
    plain = Port("p", -1, 1)
    assert plain.own(values) is values
    assert plain.of_own(values) is values


def test_a_device_that_says_nothing_of_its_steps_keeps_none() -> None:
    assert slew_of(object()) == Slew("nobody")


def test_the_face_has_the_port() -> None:
    assert hil.Port is Port
