"""What the node adds is stated only where it exceeds two standard errors."""

from __future__ import annotations

import pytest

from hil.report.ablation import ablation, gain, table
from hil.report.comparison import contents
from hil.report.significance import ComparisonRow, RunOutcome, Standings


def row(
    learner: str, *tests: float, instead: str = "", rule: str = "adfa", lower: bool = False, over: float = 0.0
) -> ComparisonRow:
    metric = "nrmse" if lower else "accuracy"
    runs = [
        RunOutcome(
            n, t, t, 100.0, 1.0, "twin", "", ((50.0, t), (100.0, t)), metric=metric, lower=lower, rule=rule, overflow=over
        )
        for n, t in enumerate(tests)
    ]
    return ComparisonRow(learner, "node", tuple(runs), instead)


LAST = row("last layer", 0.88, 0.87, 0.89, rule="last_layer")


def told(*rows: ComparisonRow) -> list[str]:
    return [worth.told for worth in ablation(Standings("s", rows, (), 1000))]


def test_a_gain_has_the_standard_error_of_the_difference() -> None:
    found = gain(row("a", 0.95, 0.97), row("a", 0.90, 0.92), 1000)
    assert found.value == pytest.approx(0.05)
    assert found.error == pytest.approx((0.0002 / 2 + 0.0002 / 2) ** 0.5)
    assert found.said(LAST.metric) == "5.0 ± 1.4 points"
    alike = gain(row("a", 0.9, 0.9, 0.9), row("a", 0.9, 0.9, 0.9), 100)
    assert alike.error == pytest.approx((2 * 0.01**2 / 12 / 3) ** 0.5)  # no finer than the test set


def test_each_learner_has_a_sentence() -> None:
    node, wire, dead = (
        row("a", 0.95, 0.96, 0.97),
        row("a", 0.93, 0.92, 0.94, instead="wire"),
        row("a", 0.1, 0.1, instead="dead"),
    )
    (first,) = told(node, wire, dead, LAST)
    assert first == (
        "node, a: the node adds 3.0 ± 0.8 points over a wire; training the hidden layers adds 8.0 ± 0.8 points over the last "
        "layer alone. With a dead node: 10.0%."
    )
    assert (
        "adds nothing over a wire within two standard errors (1.0 ± 0.8 points)"
        in told(node, row("a", 0.95, 0.96, 0.94, instead="wire"))[0]
    )
    assert "costs 2.0 ± 0.8 points against a wire" in told(node, row("a", 0.98, 0.97, 0.99, instead="wire"))[0]
    assert "one seed tells nothing" in told(row("a", 0.9), row("a", 0.8, instead="wire"))[0]
    assert "5.0% of the wire's drives were clipped" in told(node, row("a", 0.93, 0.92, 0.94, instead="wire", over=0.05))[0]


def test_where_smaller_is_better_the_sign_is_turned() -> None:
    (said,) = told(row("a", 0.10, 0.11, lower=True), row("a", 0.50, 0.51, instead="wire", lower=True))
    assert "the node adds 0.4 ± 0.00707 over a wire" in said


def test_what_took_the_place_of_the_node_neither_wins_nor_gives_the_provenance() -> None:
    node, wire = row("a", 0.95, 0.96, 0.97), row("a", 0.99, 0.99, 0.99, instead="wire")
    standings = Standings("s", (node, wire, LAST), (), 1000)
    assert [one.learner for one in standings.on("node")] == ["a", "last layer"]
    assert standings.contests()[0].winner == "a"
    assert len(contents(standings)["runs"]) == 9  # type: ignore[arg-type]
    assert table(list(ablation(standings))).rows == (
        ("a", "96.00% ± 1.00%", "99.00% ± 0.00%", "-", "-3.0 ± 0.6 points", "8.0 ± 0.8 points"),
    )


def test_without_ablation_nothing_is_said() -> None:
    assert told(row("a", 0.95, 0.96), LAST) == []
