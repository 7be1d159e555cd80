"""Records: cutting a batch, markers, and finding them again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.record import (
    BARKER,
    OVERHEAD,
    Axis,
    Memory,
    accepted,
    blank,
    cut,
    fill,
    find,
    window,
)
from hil.errors import ConfigError, Misaligned

BIG = Memory(32, 4_000_000)


@given(st.integers(1, 5000), st.integers(OVERHEAD + 1, 3000), st.integers(1, 4), st.integers(1, 4), st.integers(1, 16))
@settings(max_examples=200, deadline=None)
def test_a_plan_holds_every_value_once_and_fits_both_memories(values: int, most: int, out: int, back: int, step: int) -> None:
    drive, read = Memory(32, most * out, step), Memory(1, most * back)
    if most * out // step * step // out <= OVERHEAD:
        return
    plan = cut(values, drive, read, out, back)
    assert (plan.records - 1) * plan.symbols < values <= plan.records * plan.symbols
    assert plan.total * out <= plan.sent <= drive.most
    assert plan.sent % step == 0
    assert plan.total * back <= read.most


def test_one_record_if_it_fits() -> None:
    plan = cut(128 * 800, BIG, BIG, 1, 1)
    assert (plan.records, plan.symbols) == (1, 102_400)


def test_a_memory_too_small_for_the_markers_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        cut(10, Memory(1, OVERHEAD), BIG, 1, 1)


@pytest.mark.parametrize("per_symbol", [1, 3])
def test_values_come_back_from_where_they_were_put(per_symbol: int) -> None:
    values = np.arange(1, 101, dtype=np.int16)
    plan = cut(100, Memory(8, (OVERHEAD + 40) * per_symbol), BIG, per_symbol, 1)
    records = fill(plan, blank(plan, rest=7, low=-500, high=500), 7, values)
    first, last = plan.data * per_symbol, (plan.data + plan.symbols) * per_symbol
    assert plan.records == 3
    assert records[:, first:last:per_symbol].reshape(-1)[:100].tolist() == values.tolist()
    assert set(records[-1, first:last][(100 - 2 * plan.symbols) * per_symbol :].tolist()) == {7}
    for start in (plan.head, plan.tail):
        chips = records[:, start * per_symbol : (start + len(BARKER)) * per_symbol : per_symbol]
        assert (chips == np.where(BARKER > 0, 500, -500)).all()


@pytest.mark.parametrize("period", [1, 2, 8])
@pytest.mark.parametrize("gain", [1.0, -0.3])
@pytest.mark.parametrize("late", [-3, 0, 2])
def test_a_marker_is_found_wherever_it_went_and_if_the_node_inverts(period: int, gain: float, late: int) -> None:
    plan = cut(50, BIG, BIG, 1, period)
    sent = np.repeat(blank(plan, 0, -1000, 1000), period) * gain + np.random.default_rng(0).normal(size=plan.sent * period)
    peak = accepted(find(np.roll(sent, late * period), plan.head * period, period, 4 * period), 0.8, 0.8, "test")
    assert peak.lag == late * period
    assert peak.contrast == pytest.approx(2000 * gain, rel=0.05)


def test_noise_and_a_flat_line_are_no_markers() -> None:
    noise = np.random.default_rng(1).normal(size=400)
    for samples in (noise, np.full(400, 123, dtype=np.uint16)):
        with pytest.raises(Misaligned, match="not found"):
            accepted(find(samples, 100, 4, 16), 0.8, 0.8, "test")


def test_two_markers_are_ambiguous() -> None:
    samples = np.zeros(100)
    samples[20:33] = samples[50:63] = BARKER
    with pytest.raises(Misaligned, match="two places"):
        accepted(find(samples, 20, 1, 40), 0.8, 0.8, "test")


def test_a_record_that_ends_before_its_marker_is_misaligned() -> None:
    with pytest.raises(Misaligned):
        accepted(find(np.zeros(10), 20, 1, 4), 0.8, 0.8, "test")


@given(st.floats(-5e-9, 5e-9), st.integers(1, 8), st.floats(0, 0.7))
def test_samples_kept_lie_inside_their_symbol_and_past_settling(start_s: float, period: int, settle: float) -> None:
    symbol_s = 10e-9
    axis = Axis(start_s, symbol_s / period)
    try:
        place = window(axis, symbol_s, 0.0, settle, "test")
    except ConfigError:
        assert period < 4
        return
    for k in range(place.skip, period):
        phase = (axis.start_s + (place.origin + k) * axis.step_s) / symbol_s
        assert settle - 0.01 <= phase < 1.0


def test_a_rate_that_does_not_divide_names_one_that_does() -> None:
    with pytest.raises(ConfigError) as caught:
        window(Axis(0.0, 3e-9), 10e-9, 0.0, 0.5, "scope")
    assert "1.11111e+08" in caught.value.todo
