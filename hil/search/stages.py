"""Stages after the generations: longer trainings for fewer, fresh seeds for the best, the bench for the very best.

    halving        rung by rung: train for epochs_r, keep the best keep_{r+1}           (Jamieson & Talwalkar, AISTATS 2016)
    choice         the candidates that are left on seeds that none was selected by: the best mean is chosen
    bench          the top, and some spread over the rest, each on the bench and on the twin with the same seeds:
                   Spearman's rank correlation of the two says whether the twin predicts the bench
    confirmation   the winner on fresh seeds and the held examples, beside rivals: hand-made and random functions

Every stage is a generator of points that returns what it found; its record is one line of the history.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import spearmanr

from hil.errors import BudgetSpent
from hil.search.budget import Bounded, Budget
from hil.search.evaluator import Evaluator, chunked
from hil.search.history import History
from hil.search.jobs import AnyRecipe, Job, Outcome, Scored
from hil.search.loop import Notice, Point, answered, seed_of

Recipes = Mapping[str, AnyRecipe]


@dataclass(frozen=True)
class Trial:
    """Recipes by name, all on the same seeds.

    Args:
        stage: also the beginning of the jobs' keys.
    """

    stage: str
    recipes: Recipes
    seeds: tuple[int, ...]
    epochs: int
    split: Scored = "score"

    @property
    def jobs(self) -> list[Job]:
        """The jobs of the trial: every recipe with every seed."""
        return [
            Job(f"{self.stage}/{name}/{seed}", recipe, seed, self.epochs, self.split)
            for seed in self.seeds
            for name, recipe in self.recipes.items()
        ]


@dataclass(frozen=True)
class StageRow:
    """A recipe's accuracies, one a seed; of one that diverged 0."""

    name: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return mean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds; None for one seed."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def error(self) -> float | None:
        """Standard error of the mean."""
        return None if self.std is None else self.std / math.sqrt(len(self.accuracies))

    def table(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"name": self.name, "mean": self.mean, "std": self.std, "error": self.error, "accuracies": list(self.accuracies)}


def seeds(seed: int, count: int, stream: str) -> tuple[int, ...]:
    """Seeds of a stage, different from those of every other."""
    return tuple(seed_of(seed, number, stream) for number in range(count))


def tried(trial: Trial, evaluator: Evaluator, chunk: int, history: History) -> Generator[Point, None, list[StageRow]]:
    """Train a trial; returns a row for every recipe, in their order."""
    jobs = trial.jobs
    yield from answered(evaluator, chunked(jobs, chunk), history, trial.stage)
    found: dict[str, list[float]] = {name: [] for name in trial.recipes}
    for job in jobs:
        outcome = history.outcomes[job.key]
        found[job.key.split("/")[1]].append(0.0 if outcome.died_at is not None else outcome.accuracy)
    return [StageRow(name, tuple(values)) for name, values in found.items()]


def noted(trial: Trial, rows: Sequence[StageRow], history: History, **more: Any) -> None:
    """Write a line of the history for a finished trial, unless it is there."""
    if trial.stage not in history.stages:
        place = {"seeds": list(trial.seeds), "epochs": trial.epochs, "split": trial.split}
        history.add_stage({"stage": trial.stage, **place, "rows": [row.table() for row in rows], **more})


def halving(
    recipes: Recipes,
    rungs: Sequence[tuple[int, int]],
    repeats: int,
    seed: int,
    evaluator: Evaluator,
    chunk: int,
    history: History,
) -> Generator[Point, None, list[str]]:
    """Train fewer and fewer recipes for longer and longer (successive halving).

    Args:
        recipes: by name.
        rungs: (epochs, recipes that enter) of each.
        repeats: seeds a recipe and rung.
        seed: of the search.
        evaluator: has them trained.
        chunk: jobs that go out together.
        history: keeps the outcomes.

    Returns:
        the names that entered the last rung, best first.
    """
    names = list(recipes)
    for number, (epochs, keep) in enumerate(rungs, 1):
        names = names[:keep]
        entering = {name: recipes[name] for name in names}
        trial = Trial(f"halving {number}", entering, seeds(seed, repeats, f"halving {number}"), epochs)
        rows = yield from tried(trial, evaluator, chunk, history)
        noted(trial, rows, history)
        rows = sorted(rows, key=lambda row: -row.mean)
        names = [row.name for row in rows]
        yield Notice(f"halving    {len(rows)} candidates, {epochs} epochs: best {rows[0].mean:.2%}, last {rows[-1].mean:.2%}")
    return names


@dataclass(frozen=True)
class Claim:
    """The winner beside its rivals, over the same seeds: difference of means, and the standard error of that difference."""

    over: str
    difference: float
    error: float

    @property
    def holds(self) -> bool:
        """Larger than two standard errors."""
        return self.difference > 2 * self.error


def claims(winner: StageRow, best_of: tuple[str, Sequence[StageRow]], median_of: tuple[str, Sequence[StageRow]]) -> list[Claim]:
    """Compare seed by seed, so that what all share of a seed falls out.

    Args:
        winner: what was found.
        best_of: what they are called, and rivals of which the best counts.
        median_of: the same, of which the median counts, seed by seed.
    """
    found = []
    called, rows = median_of
    if rows:
        middle = tuple(median(values) for values in zip(*(row.accuracies for row in rows), strict=True))
        found.append(_claim(f"the median {called}", winner, middle))
    called, rows = best_of
    if rows:
        best = max(rows, key=lambda row: row.mean)
        found.append(_claim(f"{called} ({best.name})" if len(rows) > 1 else called, winner, best.accuracies))
    return found


def _claim(over: str, winner: StageRow, other: Sequence[float]) -> Claim:
    differences = [mine - theirs for mine, theirs in zip(winner.accuracies, other, strict=True)]
    return Claim(over, mean(differences), stdev(differences) / math.sqrt(len(differences)))


def told(claim: Claim) -> str:
    """A claim in words that do not say more than is known."""
    size = f"{100 * claim.difference:+.2f} ± {100 * claim.error:.2f} points"
    return f"{size} over {claim.over}" + (
        "" if claim.holds else ": cannot be told apart" if claim.difference > -2 * claim.error else ": worse"
    )


def on_bench(
    trial: Trial, bench: Evaluator, budget: Budget, history: History
) -> Generator[Point, None, tuple[list[StageRow], str]]:
    """Train one candidate after the other; return rows of those that were done, and why it ended early, or ""."""
    jobs = trial.jobs

    def done() -> list[Outcome]:
        return [history.outcomes[job.key] for job in jobs if job.key in history.outcomes]

    try:
        yield from answered(Bounded(bench, budget, done), chunked(jobs, 1), history, trial.stage)
    except BudgetSpent as error:
        return _rows(trial, history), error.what
    return _rows(trial, history), ""


def _rows(trial: Trial, history: History) -> list[StageRow]:
    """Return the rows of those that were trained with at least one seed."""
    found: dict[str, list[float]] = {}
    for job in trial.jobs:
        if job.key in history.outcomes:
            found.setdefault(job.key.split("/")[1], []).append(history.outcomes[job.key].accuracy)
    return [StageRow(name, tuple(values)) for name, values in found.items()]


def rank_correlation(twin: Sequence[StageRow], bench: Sequence[StageRow]) -> float | None:
    """Spearman's, over the recipes that both have; None for fewer than three, or if all are equal."""
    of_twin = {row.name: row.mean for row in twin}
    pairs = [(of_twin[row.name], row.mean) for row in bench if row.name in of_twin]
    if len(pairs) < 3 or len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
        return None
    return float(spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic)
