"""Levels that a device adds by itself follow a bias that is followed, inside of the limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drivers.waveform.layouts import _within
from hil.device import Port

PORT = Port("awg", -4.0, 4.0, "V")


@given(st.floats(-100, 100), st.floats(0.5, 8.0) | st.none())
def test_a_level_stays_inside_and_means_the_same(level: float, period: float | None) -> None:
    found = _within(PORT, level, period)
    assert -4.0 <= found <= 4.0
    if period is not None:
        turns = (found - level) / period
        assert abs(turns - round(turns)) < 1e-6
    elif -4.0 <= level <= 4.0:
        assert found == level
