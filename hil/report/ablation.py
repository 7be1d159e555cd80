"""What the physics is worth: the same network with the node, a wire, a dead node, and with its last layer trained alone.

    d     = m_node - m_other          of the mean test scores over seeds; the sign is turned where smaller is better
    u(d)  = sqrt( s_node^2/n_node + s_other^2/n_other )       standard error, s^2 >= q^2 / 12 as in hil/report/significance.py

A difference is stated only if |d| > 2 u(d). The noise is that of the seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hil.metric import Metric
from hil.report.significance import SMALLEST, ComparisonRow, Standings
from hil.report.tables import TextTable

LEVEL = 2.0  # standard errors
LAST_LAYER = "last_layer"
HEAD = ("learner", "with the node", "with a wire", "with a dead node", "node − wire", "learner − last layer")


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better one mean is than another.

    Args:
        value: positive: the first one is better; a share is a fraction.
        error: its standard error; None: one seed does not tell.
    """

    value: float
    error: float | None

    @property
    def known(self) -> bool:
        """True if it is more than noise."""
        return self.error is not None and abs(self.value) > LEVEL * self.error

    def said(self, metric: Metric) -> str:
        """Write it, "3.1 ± 0.4 points", the sign only where it is negative."""
        factor, unit, digits = (100, " points", "{:.1f}") if metric.share else (1, "", "{:.3g}")
        text = digits.format(factor * self.value)
        return f"{text}{unit}" if self.error is None else f"{text} ± {digits.format(factor * self.error)}{unit}"


@dataclass(frozen=True, slots=True)
class Worth:
    """A learner on a device, beside the same one without the device's physics.

    Args:
        node, wire, dead: the learner with the node, and with what takes its place; None: no such runs.
        last: the learner that trains the last layer alone, with the node; None: no such runs, or this is the one.
        test_examples: in the test split.
    """

    node: ComparisonRow
    wire: ComparisonRow | None
    dead: ComparisonRow | None
    last: ComparisonRow | None
    test_examples: int

    def over(self, other: ComparisonRow | None) -> Gain | None:
        """How much better the learner with the node is than `other`."""
        return None if other is None else gain(self.node, other, self.test_examples)

    @property
    def told(self) -> str:
        """A sentence that says what the node adds."""
        metric, wire, last = self.node.metric, self.over(self.wire), self.over(self.last)
        parts = []
        if wire is not None and self.wire is not None:
            parts.append(f"the node {_worth(wire, metric, 'a wire')}{_clipped(self.wire)}")
        if last is not None:
            parts.append(f"training the hidden layers {_worth(last, metric, 'the last layer alone')}")
        told = f"{self.node.device}, {self.node.learner}: {'; '.join(parts)}."
        return told if self.dead is None else f"{told} With a dead node: {metric.shown(self.dead.mean)}."

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON values; shares, such as accuracies, are fractions."""
        gains = {"over_wire": self.over(self.wire), "over_last_layer": self.over(self.last)}
        means = {"wire": self.wire, "dead": self.dead, "last_layer": self.last}
        return {
            "learner": self.node.learner,
            "device": self.node.device,
            "node": self.node.mean,
            **{name: None if row is None else row.mean for name, row in means.items()},
            **{name: None if found is None else asdict(found) for name, found in gains.items()},
            "told": self.told,
        }


def gain(row: ComparisonRow, other: ComparisonRow, test_examples: int) -> Gain:
    """How much better `row` is than `other`."""
    metric = row.metric
    finest = 1 / test_examples if metric.share else SMALLEST
    value = (other.mean - row.mean) if metric.lower else (row.mean - other.mean)
    if min(len(row.runs), len(other.runs)) < 2:
        return Gain(value, None)
    parts = [max(statistics.variance(one.tests), finest**2 / 12) / len(one.runs) for one in (row, other)]
    return Gain(value, math.sqrt(sum(parts)))


def ablation(standings: Standings) -> Iterator[Worth]:
    """Yield what each learner's node is worth, where there are runs that say it, device by device."""
    found = {(row.device, row.learner, row.instead): row for row in standings.rows}
    for row in standings.rows:
        wire, dead = (found.get((row.device, row.learner, kind)) for kind in ("wire", "dead"))
        if row.instead or (wire is None and dead is None):
            continue
        lasts = [one for one in standings.on(row.device) if one.rule == LAST_LAYER]
        yield Worth(row, wire, dead, None if row.rule == LAST_LAYER or not lasts else lasts[0], standings.test_examples)


def table(worths: Sequence[Worth]) -> TextTable:
    """A row a learner: mean and standard deviation over seeds, then differences and their standard errors."""
    rows = []
    for one in worths:
        gains = [one.over(other) for other in (one.wire, one.last)]
        cells = ["-" if found is None else found.said(one.node.metric) for found in gains]
        rows.append((one.node.learner, *(_score(row) for row in (one.node, one.wire, one.dead)), *cells))
    return TextTable(HEAD, tuple(rows))


def _worth(found: Gain, metric: Metric, other: str) -> str:
    size = Gain(abs(found.value), found.error).said(metric)
    if found.error is None:
        better = "better" if found.value > 0 else "worse"
        return f"gives a score {size} {better} than {other}, but one seed tells nothing about the noise"
    if not found.known:
        return f"adds nothing over {other} within two standard errors ({found.said(metric)})"
    return f"adds {size} over {other}" if found.value > 0 else f"costs {size} against {other}"


def _clipped(wire: ComparisonRow) -> str:
    """Say so if a wire was driven out of its range, where it is no longer linear."""
    found = [run.overflow for run in wire.runs if run.overflow is not None]
    share = statistics.fmean(found) if found else 0.0
    return f" ({share:.1%} of the wire's drives were clipped, so it is not quite linear)" if share >= 0.01 else ""


def _score(row: ComparisonRow | None) -> str:
    if row is None:
        return "-"
    return row.metric.shown(row.mean, 2) + ("" if row.std is None else f" ± {row.metric.shown(row.std, 2)}")
