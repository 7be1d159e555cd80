"""The search is a generator: `for point in search(...)`. The caller shows, plots, stops; between two points all is committed.

    for each generation:  suggest -> jobs under seeds that all its genomes share -> outcomes -> archive -> ingest -> one record

The last generation is cut to what the budget of trainings leaves, so generators with populations of other sizes take the same
number. No generation begins once the device passes or the hours are spent; hours are those that the trainings took, so that a
resume counts as the search did. A bench breaks a generation off where its budget ends: what was trained of it counts.

A generation that is recorded already is told from the record, its jobs are not done again; one that was cut short goes on with
the jobs that are missing. Seeds come from (seed, generation, repeat), or from (seed, repeat) where all trials have the same, so
the history does not depend on when or where.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, pstdev
from typing import Any

from hil.errors import BudgetSpent, RunError
from hil.search.archive import Archive
from hil.search.evaluator import Chunk, Evaluator, chunked, missing
from hil.search.generator import Generator
from hil.search.history import History
from hil.search.jobs import Job, Outcome
from hil.search.space import Genome, Problem, Shares, Space, shares_of
from hil.seeding import key

SEED_BITS = 31


@dataclass(frozen=True)
class SearchPlan:
    """The size of a search.

    Args:
        seed: of everything.
        genomes: evaluated in all, each with `repeats` seeds.
        epochs: of a training.
        repeats: seeds a genome and generation.
        chunk: jobs that go out together.
        passes: device passes after which no generation begins; None: no limit.
        hours: of training, after which no generation begins; None: no limit.
        races: the worst of a generation are stopped early, as the trainer was told.
        fresh: each generation has seeds of its own; else all have those of the first.
    """

    seed: int
    genomes: int
    epochs: int
    repeats: int = 1
    chunk: int = 16
    passes: int | None = None
    hours: float | None = None
    races: bool = False
    fresh: bool = True

    def spent(self, outcomes: Sequence[Outcome]) -> bool:
        """Return True if no other generation may begin after these outcomes."""
        return (self.passes is not None and sum(found.passes for found in outcomes) >= self.passes) or (
            self.hours is not None and sum(found.wall_s for found in outcomes) >= 3600 * self.hours
        )


@dataclass(frozen=True)
class Progress:
    """A message that jobs of a stage came back: done of total.

    Args:
        task: what it belongs to.
    """

    task: str
    done: int
    total: int


@dataclass(frozen=True)
class Generation:
    """A finished generation; fitness of the first objective.

    Args:
        fresh: evaluated now, not read from the record.
    """

    number: int
    of: int
    best: float
    median: float
    diversity: float
    evaluations: int
    wall_s: float
    died: int
    fresh: bool


@dataclass(frozen=True)
class Notice:
    """A line for people: what a stage found."""

    line: str


Point = Progress | Generation | Notice


def seed_of(seed: int, step: int, stream: str) -> int:
    """A seed for a training."""
    return key(seed, step, stream) >> (63 - SEED_BITS)


def answered(evaluator: Evaluator, chunks: Sequence[Chunk], history: History, task: str) -> Iterator[Progress]:
    """Train what is missing of `chunks`; afterwards `history.outcomes` holds all of it.

    Raises:
        RunError: an outcome of the history is of something else.
    """
    total = sum(map(len, chunks))
    history.check([job for chunk in chunks for job in chunk])
    left = missing(chunks, history.outcomes)
    done = total - sum(map(len, left))
    for chunk, outcomes in evaluator.evaluate(left):
        history.add(chunk, outcomes)
        done += len(chunk)
        yield Progress(task, done, total)


def search(
    plan: SearchPlan, space: Space, problem: Problem, generator: Generator, evaluator: Evaluator, archive: Archive,
    history: History, check: Callable[[Genome, str], None] = lambda genome, name: None,
) -> Iterator[Point]:  # fmt: skip
    """Go on from what `history` holds; fills `archive`.

    Args:
        plan: how much is trained.
        space: what the points mean.
        problem: what the generator was told at its beginning.
        generator: suggests the points.
        evaluator: has them trained.
        archive: is filled.
        history: of the run folder.
        check: refuses a point, called by its name in messages, before any of its generation is trained.

    Raises:
        RunError: the history is that of another search. ConfigError: a point is refused. BudgetSpent: that of a bench; what was
            trained of the generation is in the archive.
    """
    left, number, known = plan.genomes, 0, list[Outcome]()
    while left > 0 and not plan.spent(known):
        begin = time.perf_counter()
        points = generator.suggest(None)[:left]
        genomes = [problem.genome(point) for point in points]
        first = plan.genomes - left
        left -= len(genomes)
        of = number + 1 + math.ceil(left / len(genomes))
        recorded = history.generations[number] if number < len(history.generations) else None
        _same(recorded, [space.values(genome) for genome in genomes], history)
        if recorded is None:
            for place, genome in enumerate(genomes, first + 1):
                check(genome, f"trial {place}")
        seeds = [seed_of(plan.seed, number if plan.fresh else 0, f"train {repeat}") for repeat in range(plan.repeats)]
        jobs = _jobs(plan, space, genomes, number, seeds, archive)
        spent: BudgetSpent | None = None
        try:
            yield from answered(evaluator, chunked(jobs, plan.chunk), history, f"generation {number + 1}/{of}")
        except BudgetSpent as error:
            spent = error
        trained = [job for job in jobs if job.key in history.outcomes]
        outcomes = [history.outcomes[job.key] for job in trained]
        known += outcomes
        for job, outcome in zip(trained, outcomes, strict=True):
            archive.add(genomes[_place(job)], job.seed, outcome)
        if spent is not None:
            raise spent
        generator.ingest([
            {**point, **archive.results(genome)} for point, genome in zip(points, genomes, strict=True)
        ])  # fmt: skip
        wall_s = time.perf_counter() - begin
        if recorded is None:
            recorded = _record(space, archive, genomes, seeds, outcomes, number, wall_s)
            history.add_generation(recorded)
            fresh = True
        else:
            fresh = False
        yield Generation(
            number + 1, of, recorded["best"], recorded["median"], recorded["diversity"], len(jobs),
            recorded["wall_s"], sum(outcome.died_at is not None for outcome in outcomes), fresh,
        )  # fmt: skip
        number += 1


def _jobs(
    plan: SearchPlan, space: Space, genomes: Sequence[Genome], number: int, seeds: Sequence[int], archive: Archive
) -> list[Job]:
    """Return the jobs of a generation. A genome that was trained to the end before is so again, as its mean is compared."""
    recipes = [(space.recipe(genome), plan.races and not archive.completed(genome)) for genome in genomes]
    return [
        Job(f"g{number}/{place}/{repeat}", recipe, seed, plan.epochs, races=races)
        for repeat, seed in enumerate(seeds)
        for place, (recipe, races) in enumerate(recipes)
    ]


def _place(job: Job) -> int:
    return int(job.key.split("/")[1])


def _record(
    space: Space,
    archive: Archive,
    genomes: Sequence[Genome],
    seeds: Sequence[int],
    outcomes: Sequence[Outcome],
    number: int,
    wall_s: float,
) -> dict[str, Any]:
    """A generation as a line of the history."""
    values = [archive.fitness(genome) for genome in genomes]
    rows = [
        {
            "name": genome.digest(),
            "values": space.values(genome),
            "fitness": list(fitness),
            "evaluations": len(archive.outcomes(genome)),
            "accuracy": [found.accuracy for found in outcomes[place :: len(genomes)]],
            "loss": [found.loss for found in outcomes[place :: len(genomes)]],
            "stopped_at": [found.stopped_at for found in outcomes[place :: len(genomes)]],
            "died_at": [found.died_at for found in outcomes[place :: len(genomes)]],
            "wall_s": sum(found.wall_s for found in outcomes[place :: len(genomes)]),
            "where": outcomes[place].where,
        }
        for place, (genome, fitness) in enumerate(zip(genomes, values, strict=True))
    ]
    first = [fitness[0] for fitness in values]
    return {
        "generation": number,
        "seeds": list(seeds),
        "best": max(first),
        "median": median(first),
        "diversity": diversity([shares_of(space, genome) for genome in genomes]),
        "wall_s": wall_s,
        "evaluations_per_s": len(outcomes) / wall_s,
        "genomes": rows,
    }


def diversity(points: Sequence[Shares]) -> float:
    """0 to 1: spread of the shares over that of uniform ones."""
    columns = zip(*points, strict=True)
    spreads: list[float] = [pstdev(column) for column in columns]
    return min(1.0, sum(spreads) / len(spreads) * math.sqrt(12))


def _same(recorded: dict[str, Any] | None, values: Sequence[dict[str, Any]], history: History) -> None:
    if recorded is not None and [row["values"] for row in recorded["genomes"]] != list(values):
        raise RunError(
            "this history belongs to another search", where=str(history.folder.path),
            got=f"other genomes in generation {recorded['generation'] + 1}",
            allowed="the search.toml and the version of hil that it was made with", outputs="untouched; nothing was opened",
            todo="undo the change in search.toml, resume it with that version (summary.json), or start a new run: hil search",
        )  # fmt: skip
