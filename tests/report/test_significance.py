"""A winner is stated only where the difference exceeds the noise."""

from __future__ import annotations

import pytest
from scipy import stats

from hil.report.significance import ComparisonRow, RunOutcome, contest, holm, welch


def row(learner: str, *tests: float) -> ComparisonRow:
    runs = [RunOutcome(n, t, t, 100.0, 1.0, "twin", "", ((50.0, t / 2), (100.0, t))) for n, t in enumerate(tests)]
    return ComparisonRow(learner, "node", tuple(runs))


def test_welch_is_scipys() -> None:
    a, b = [0.91, 0.93, 0.92, 0.95], [0.90, 0.89, 0.93]
    assert welch(a, b, 1e-4) == pytest.approx(float(stats.ttest_ind(a, b, equal_var=False).pvalue))


def test_two_samples_without_spread_are_as_fine_as_the_test_set() -> None:
    assert welch([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], 0.01) == 1
    assert welch([0.9, 0.9, 0.9], [0.899, 0.899, 0.899], 0.01) > 0.05  # a tenth of one example
    assert welch([0.9, 0.9, 0.9], [0.7, 0.7, 0.7], 0.01) < 1e-3


def test_holm_keeps_order_and_never_exceeds_one() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_clear_winner_is_named_and_a_close_one_is_not() -> None:
    clear = contest("node", [row("bad", 0.80, 0.81, 0.79), row("good", 0.95, 0.951, 0.949)], 1000)
    assert clear.winner == "good"
    assert "good wins" in clear.told
    close = contest("node", [row("a", 0.95, 0.93, 0.96), row("b", 0.94, 0.95, 0.93), row("c", 0.5, 0.51, 0.52)], 1000)
    assert close.winner == ""
    assert "b cannot be told from it" in close.told
    assert len(close.pairs) == 3


def test_one_seed_names_nobody() -> None:
    alone = contest("node", [row("a", 0.99), row("b", 0.1)], 1000)
    assert alone.winner == ""
    assert "one seed" in alone.told


def test_band_is_over_seeds() -> None:
    band = row("a", 0.8, 0.9).band()
    assert band.passes == (50.0, 100.0)
    assert band.mean == pytest.approx((0.425, 0.85))
    assert band.std[1] == pytest.approx(0.0707, abs=1e-3)
