"""A search's run folder. What stands in it is the whole state of the search: a resume replays it.

    config.toml         the experiment that every candidate is trained by, complete
    search.toml         the search
    evaluations.jsonl   a line a finished job: its key, seed, epochs, outcome
    generations.jsonl   a line a finished generation: genomes, fitness, seeds, time, where
    stages.jsonl        a line a finished stage after the generations
    feedback/           what was found

A chunk of jobs is one write. A killed process leaves at most one torn line, the last; it is dropped on opening, and its chunk
is done again with the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hil.errors import RunError
from hil.files import append, loads, read_text, there, write_atomic
from hil.run.folder import RunFolder
from hil.search.jobs import Job, Outcome

SEARCH = "search.toml"
EVALUATIONS, GENERATIONS, STAGES = "evaluations.jsonl", "generations.jsonl", "stages.jsonl"
KEYS = {EVALUATIONS: "key", GENERATIONS: "genomes", STAGES: "stage"}  # what a line of each file is known by
KINDS: Mapping[str, type] = {EVALUATIONS: str, GENERATIONS: list, STAGES: str}
MOST_BYTES = 1 << 32
TIMES = ("wall_s", "where", "evaluations_per_s")  # what two equal searches may differ in


class History:
    """The history of a search on disk: outcomes, generations, stages.

    Args:
        folder: of the run; what it holds is read once, here.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.outcomes: dict[str, Outcome] = {}
        self._recipes: dict[str, str] = {}
        for line in self._mended(EVALUATIONS):
            try:
                self._recipes[line["key"]] = line["recipe"]
                self.outcomes[line["key"]] = Outcome.of(line["outcome"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise RunError(
                    "a damaged line", where=str(folder.path / EVALUATIONS), got=f"{line['key'][:60]}: {error!r}",
                    allowed="an outcome as hil writes it", todo="restore the file, or remove this line and all after it",
                ) from error  # fmt: skip
        self.generations = self._mended(GENERATIONS)
        self.stages = {str(line["stage"]): line for line in self._mended(STAGES)}

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuse jobs of which an outcome is here that is another recipe's. Raises: RunError."""
        for job in jobs:
            if self._recipes.get(job.key, "") not in ("", job.recipe.digest()):
                raise RunError(
                    "this history belongs to another search", where=str(self.folder.path),
                    got=f"another recipe in job {job.key}",
                    allowed="the search.toml and the version of hil that it was made with, and a generator that suggests the "
                    "same points again", outputs="untouched; nothing was opened",
                    todo="undo the change, or start a new run: hil search",
                )  # fmt: skip

    def add(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """Finished jobs; what is known already is not written again."""
        fresh = [(job, found) for job, found in zip(jobs, outcomes, strict=True) if job.key not in self.outcomes]
        self._append(EVALUATIONS, ({**_said(job), "outcome": found.table()} for job, found in fresh))
        self.outcomes |= {job.key: found for job, found in fresh}

    def add_generation(self, record: Mapping[str, Any]) -> None:
        """Append a generation, and keep it."""
        self._append(GENERATIONS, [record])
        self.generations.append(dict(record))

    def add_stage(self, record: Mapping[str, Any]) -> None:
        """Append a finished stage, and keep it."""
        self._append(STAGES, [record])
        self.stages[str(record["stage"])] = dict(record)

    def _append(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        path = self.folder.path / name
        try:
            append(path, text.encode())
        except OSError as error:
            raise RunError(f"cannot write: {error.strerror}", where=str(path), todo="free space, then hil resume") from error

    def _mended(self, name: str) -> list[dict[str, Any]]:
        """The lines of a file; a torn last one is cut off.

        Raises:
            RunError: a line before the last is damaged.
        """
        path = self.folder.path / name
        if not there(path):
            return []
        lines = read_text(path, MOST_BYTES).split("\n")
        found: list[dict[str, Any]] = []
        for number, line in enumerate(lines[:-1], 1):
            place = f"{path}, line {number}"
            try:
                value = loads(line, place)
                if not isinstance(value, dict) or not isinstance(value.get(KEYS[name]), KINDS[name]):
                    raise RunError("a damaged line", where=place)
                found.append(value)
            except RunError as error:
                raise RunError(
                    "a damaged line", where=place, got=line[:60], allowed="a JSON object as hil writes it",
                    todo="restore the file, or remove this line and all after it",
                ) from error  # fmt: skip
        if lines[-1]:
            write_atomic(path, "".join(f"{line}\n" for line in lines[:-1]).encode())
        return found


def same(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without its times: what must be equal however the work was spread."""
    return {key: _without_times(value) for key, value in record.items() if key not in TIMES}


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        return same(value)
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _said(job: Job) -> dict[str, Any]:
    return {"key": job.key, "recipe": job.recipe.digest(), "seed": job.seed, "epochs": job.epochs, "split": job.split}
