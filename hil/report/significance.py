"""Who is better, and is the difference more than noise?

    t = (m_a - m_b) / sqrt( s_a^2/n_a + s_b^2/n_b )        Welch's test of two learners over their seeds, two-sided
    s^2 >= q^2 / 12                                        q = 1 / test examples: an accuracy is no finer than that; else 1e-9
    p_(k) <- max over j <= k of (m - j + 1) p_(j)          Holm's correction over all m pairs of learners on a device

A winner is stated only if its mean test score (by the metric of the task) is the best and it differs from every other
learner with a corrected p < 0.05. All pairs count, because which one is best was seen in the same data. This noise is that of
the seeds; how finely a finite test set tells two networks apart is said beside it (Wilson's interval).

Source: B. L. Welch, Biometrika 34, 28 (1947); S. Holm, Scand. J. Stat. 6, 65 (1979).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.special import stdtr

from hil.metric import Metric, named

ALPHA = 0.05
SMALLEST = 1e-9  # difference of numbers that are not counts


class Band(NamedTuple):
    """Mean and standard deviation over seeds of a score, over the device passes spent."""

    passes: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """One finished run.

    Args:
        curve: (device passes, validation score) an epoch.
        angles_deg: per layer, or None.
        twin_nrmse: by how much of the swing the twin was off, where it was measured.
        warnings: of its summary.
        metric, lower: what scores are of, and whether smaller is better.
        rule: the learner, as its file names it.
        overflow: share of the drives that were folded or clipped in the last epoch.
        feedback_correlation: of g and the slope of the node, per hidden layer, or None; () of a learner without g.
    """

    seed: int
    test: float
    validation: float
    passes: float
    wall_s: float
    provenance: str
    folder: str
    curve: tuple[tuple[float, float], ...]
    angles_deg: tuple[float | None, ...] = ()
    step_passes: float | None = None
    step_bits: float | None = None
    twin_nrmse: float | None = None
    warnings: tuple[str, ...] = ()
    metric: str = "accuracy"
    lower: bool = False
    rule: str = ""
    overflow: float | None = None
    feedback_correlation: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A learner on a device, over its seeds.

    Args:
        instead: what took the place of the device's node, "wire" or "dead"; "": nothing did.
    """

    learner: str
    device: str
    runs: tuple[RunOutcome, ...]
    instead: str = ""

    @property
    def place(self) -> str:
        """The device, and what took its place, for people."""
        return on_device(self.device, self.instead)

    @property
    def rule(self) -> str:
        """The learner, as its file names it."""
        return self.runs[0].rule

    @property
    def metric(self) -> Metric:
        """What the scores are of."""
        return named(self.runs[0].metric, self.runs[0].lower)

    @property
    def tests(self) -> list[float]:
        """Test score of every run; a share is a fraction."""
        return [run.test for run in self.runs]

    @property
    def mean(self) -> float:
        """Mean test score."""
        return statistics.fmean(self.tests)

    @property
    def std(self) -> float | None:
        """Standard deviation of the sample; None with one seed."""
        return statistics.stdev(self.tests) if len(self.runs) > 1 else None

    @property
    def worst(self) -> float:
        """Worst test score."""
        return self.metric.worst(self.tests)

    @property
    def validation(self) -> float:
        """Mean validation score."""
        return statistics.fmean(run.validation for run in self.runs)

    @property
    def passes(self) -> float:
        """Mean node evaluations of a run."""
        return statistics.fmean(run.passes for run in self.runs)

    @property
    def wall_s(self) -> float:
        """Mean wall time of a run, s."""
        return statistics.fmean(run.wall_s for run in self.runs)

    @property
    def angles_deg(self) -> tuple[float | None, ...]:
        """Mean over seeds, per layer."""
        return _by_layer([run.angles_deg for run in self.runs])

    @property
    def alike(self) -> tuple[float | None, ...]:
        """|r| of g and the slope of the node, mean over seeds, per hidden layer; () of a learner without g."""
        signed = [run.feedback_correlation for run in self.runs]
        return _by_layer([tuple(None if r is None else abs(r) for r in layers) for layers in signed])

    def band(self) -> Band:
        """Band of the curves over the epochs that every seed has."""
        steps = list(zip(*(run.curve for run in self.runs), strict=False))
        values = [[score for _, score in step] for step in steps]
        return Band(
            tuple(statistics.fmean(passes for passes, _ in step) for step in steps),
            tuple(statistics.fmean(v) for v in values),
            tuple(statistics.stdev(v) if len(v) > 1 else 0.0 for v in values),
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """Two learners on a device: the difference of their means, and Holm's p."""

    one: str
    other: str
    difference: float
    p: float


@dataclass(frozen=True, slots=True)
class Contest:
    """All learners on one device.

    Args:
        winner: "" unless the difference exceeds the noise.
        told: a sentence that says so.
    """

    device: str
    winner: str
    told: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Standings:
    """The whole comparison.

    Args:
        terms: what was equal for all, a line each.
        test_examples: in the test split.
    """

    name: str
    rows: tuple[ComparisonRow, ...]
    terms: tuple[str, ...]
    test_examples: int

    @property
    def metric(self) -> Metric:
        """What the scores are of."""
        return self.rows[0].metric

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices, in order."""
        return tuple(dict.fromkeys(row.device for row in self.rows))

    def on(self, device: str) -> tuple[ComparisonRow, ...]:
        """Return the rows of one device, its node in place."""
        return tuple(row for row in self.rows if row.device == device and not row.instead)

    def contests(self) -> tuple[Contest, ...]:
        """Return for each device which learner won, if one did."""
        return tuple(contest(device, self.on(device), self.test_examples) for device in self.devices)

    def findings(self) -> tuple[str, ...]:
        """A sentence a device."""
        return tuple(found.told for found in self.contests())


def on_device(device: str, instead: str) -> str:
    """Name a device, and what took the place of its node."""
    return f"{device}: {instead}" if instead else device


def _by_layer(found: Sequence[Sequence[float | None]]) -> tuple[float | None, ...]:
    """Mean over runs, per layer, of what is known."""
    known = [[value for value in layer if value is not None] for layer in zip(*found, strict=False)]
    return tuple(statistics.fmean(layer) if layer else None for layer in known)


def ranking(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The rows, the best mean first."""
    return sorted(rows, key=lambda row: row.mean if row.metric.lower else -row.mean)


def contest(device: str, rows: Sequence[ComparisonRow], test_examples: int) -> Contest:
    """The winner on a device, if there is one."""
    ranked = ranking(rows)
    if len(ranked) < 2:
        return Contest(device, "", f"{device}: one learner only, so nothing to compare.", ())
    best, metric = ranked[0], ranked[0].metric
    finest = 1 / test_examples if metric.share else SMALLEST
    if min(len(row.runs) for row in ranked) < 2:
        return Contest(device, "", f"{device}: no winner is stated, because one seed tells nothing about the noise.", ())
    listed = list(itertools.combinations(ranked, 2))
    chances = holm([welch(a.tests, b.tests, finest) for a, b in listed])
    pairs = tuple(Pair(a.learner, b.learner, a.mean - b.mean, p) for (a, b), p in zip(listed, chances, strict=True))
    level = [pair.other for pair in pairs if pair.one == best.learner and pair.p >= ALPHA]
    if level:
        told = f"{device}: no winner. {best.learner} has the {'smallest' if metric.lower else 'largest'} mean, "
        told += f"{metric.shown(best.mean)}, but {_listed(level)} cannot be told from it"
        return Contest(device, "", f"{told} (Welch over {len(best.runs)} seeds, Holm over {len(pairs)} pairs, 5 %).", pairs)
    p = max(pair.p for pair in pairs if pair.one == best.learner)
    told = f"{device}: {best.learner} wins with {metric.shown(best.mean)}; every other one differs from it, p < {_above(p)}"
    return Contest(device, best.learner, f"{told} (Welch over {len(best.runs)} seeds, Holm over {len(pairs)} pairs).", pairs)


def welch(a: Sequence[float], b: Sequence[float], resolution: float) -> float:
    """Two-sided p that two samples have one mean; their variances are at least resolution^2 / 12.

    >>> round(welch([0.9, 0.92, 0.94], [0.8, 0.84, 0.82], 0.001), 4)
    0.0036
    """
    floor = resolution**2 / 12
    parts = [max(statistics.variance(v), floor) / len(v) for v in (a, b)]
    t = (statistics.fmean(a) - statistics.fmean(b)) / math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (a, b), strict=True))
    return float(2 * stdtr(freedom, -abs(t)))


def holm(chances: Sequence[float]) -> list[float]:
    """Corrected p of each, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    corrected, largest = [0.0] * len(chances), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[index]))
        corrected[index] = largest
    return corrected


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _above(p: float) -> str:
    """The next of 0.05, 0.01, 0.001, ... above `p`."""
    return next((f"{level:g}" for level in (1e-6, 1e-4, 0.001, 0.01) if p < level), "0.05")
