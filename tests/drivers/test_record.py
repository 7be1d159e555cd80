"""Records: cutting a batch, and where values and markers go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.waveform.record import BARKER, OVERHEAD, Memory, blank, cut, fill
from hil.errors import ConfigError

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
