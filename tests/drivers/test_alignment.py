"""Finding a marker again, and which samples belong to which symbol."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.waveform.alignment import Acceptance, accepted, find, window
from drivers.waveform.record import BARKER, Axis, Memory, blank, cut
from hil.errors import ConfigError, Misaligned

BIG = Memory(32, 4_000_000)


@pytest.mark.parametrize("period", [1, 2, 8])
@pytest.mark.parametrize("gain", [1.0, -0.3])
@pytest.mark.parametrize("late", [-3, 0, 2])
def test_a_marker_is_found_wherever_it_went_and_if_the_node_inverts(period: int, gain: float, late: int) -> None:
    plan = cut(50, BIG, BIG, 1, period)
    sent = np.repeat(blank(plan, 0, -1000, 1000), period) * gain + np.random.default_rng(0).normal(size=plan.sent * period)
    peak = accepted(find(np.roll(sent, late * period), plan.head * period, period, 4 * period), Acceptance(), "test")
    assert peak.lag == late * period
    assert peak.contrast == pytest.approx(2000 * gain, rel=0.05)


def test_noise_and_a_flat_line_are_no_markers() -> None:
    noise = np.random.default_rng(1).normal(size=400)
    for samples in (noise, np.full(400, 123, dtype=np.uint16)):
        with pytest.raises(Misaligned, match="not found"):
            accepted(find(samples, 100, 4, 16), Acceptance(), "test")


def test_two_markers_are_ambiguous() -> None:
    samples = np.zeros(100)
    samples[20:33] = samples[50:63] = BARKER
    with pytest.raises(Misaligned, match="two places"):
        accepted(find(samples, 20, 1, 40), Acceptance(), "test")


def test_a_record_that_ends_before_its_marker_is_misaligned() -> None:
    with pytest.raises(Misaligned):
        accepted(find(np.zeros(10), 20, 1, 4), Acceptance(), "test")


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
