"""Evaluators: have jobs trained here, in processes or on a cluster. Chunks of jobs go out, chunks of outcomes come back.

    chunks     of the whole list, alike jobs (seed, epochs, split) together, at most `size` of them, in order

What is in a chunk depends on the list and the size alone, never on who is free: products of many candidates are rounded as a
whole, so the same chunks give the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from hil.errors import Interrupted
from hil.files import loads
from hil.search.jobs import Job, Outcome, Trainer

Chunk = tuple[Job, ...]
Work = Callable[[str, str], str]  # (what describes the trainer, jobs as JSON) -> outcomes as JSON; importable by name


Stop = Callable[[], str]  # why one should stop, or ""
LOOK_S = 0.3  # how often a waiting evaluator asks that


class Evaluator(Protocol):
    """A place where chunks of jobs are trained, here or elsewhere."""

    def evaluate(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[Outcome]]]:
        """Train every chunk once, in whatever order they are finished.

        Raises:
            Interrupted: asked to stop; what has not come back is begun anew another time.
        """

    def close(self) -> None:
        """Stop whatever still runs. May be called twice."""


def chunked(jobs: Sequence[Job], size: int) -> list[Chunk]:
    """The jobs in chunks."""
    alike: dict[tuple[int, int, str], list[Job]] = {}
    for job in jobs:
        alike.setdefault((job.seed, job.epochs, job.split), []).append(job)
    return [tuple(group[at : at + size]) for group in alike.values() for at in range(0, len(group), size)]


def missing(chunks: Sequence[Chunk], done: Collection[str]) -> list[Chunk]:
    """Those with a job that is not done; they are done again as a whole."""
    return [chunk for chunk in chunks if any(job.key not in done for job in chunk)]


def written(chunk: Chunk) -> str:
    """Write a chunk of jobs as JSON."""
    return json.dumps([job.table() for job in chunk])


def read_jobs(text: str) -> list[Job]:
    """Read jobs from JSON, as `written` wrote them."""
    return [Job.of(table) for table in loads(text, "jobs of a worker")]


def said(outcomes: Sequence[Outcome]) -> str:
    """Write outcomes as JSON."""
    return json.dumps([found.table() for found in outcomes])


def read_outcomes(text: str) -> list[Outcome]:
    """Read outcomes from JSON, as `said` wrote them."""
    return [Outcome.of(table) for table in loads(text, "outcomes of a worker")]


class Here:
    """An Evaluator: in this process, one chunk after the other."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def evaluate(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[Outcome]]]:
        """Train the chunks here, one after another."""
        for chunk in chunks:
            yield chunk, self._trainer.train(chunk)

    def close(self) -> None:
        """Do nothing: nothing runs."""


def interrupted(stop: Stop, waiting: int) -> None:
    """Raise Interrupted if asked to stop. Nothing is waited for: a twin has no outputs, and a resume does the rest."""
    if stop():
        raise Interrupted(f"stopped by {stop()} with {waiting} chunks on their way")
