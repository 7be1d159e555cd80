"""A finished run in use: its device opened, its best weights frozen, and how well they do round after round."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from hil.build.training import Built, built
from hil.config.experiment import read_experiment
from hil.errors import Interrupted, RunError
from hil.files import there
from hil.hints import quoted
from hil.run import checkpoint
from hil.run.checkpoint import under
from hil.run.folder import RunFolder
from hil.run.signals import Stopping
from hil.training.loop import settle
from hil.training.progress import telling
from hil.training.state import fitting
from hil.training.use import Round, use

SplitName = Literal["validation", "test"]


def in_use(path: Path, rounds: int, watched: bool, split: SplitName, console: Console) -> Iterator[Round]:
    """The best weights of the run, through its device; nothing in the run folder changes.

    Raises:
        RunError: no such run, or one without weights. Interrupted: asked to stop. Drifted, and whatever the device raises.
    """
    folder = RunFolder.open(path)
    best = path / "checkpoints" / "best.json"
    if not there(best):
        raise RunError(
            "this run has no best weights yet", where=str(path), got=f"no {best.name}", outputs="untouched; nothing was opened",
            todo=f"finish it: hil resume {quoted(path)}",
        )  # fmt: skip
    experiment = read_experiment(folder.config, bench=path / "bench.toml")
    projects = experiment.projection is not None
    experiment = experiment.model_copy(update={"projection": None})  # nothing is learned, so it is not opened
    if not watched:
        experiment = experiment.model_copy(update={"sentinel": None})
    saved = checkpoint.load(best)
    newest = checkpoint.load(checkpoint.latest(folder.checkpoints))

    def told(kind: str, **facts: object) -> None:
        for line in telling(kind, facts):
            console.print(line, markup=False, soft_wrap=True)

    with Stopping(attended=True) as stopping, built(experiment, told=told) as made, stopping.working():
        learner = under("best_learner", newest.tensors) or under("learner", newest.tensors)
        if projects:  # the state of the device is not that of the matrices which stand in its place here
            own = {name: value for name, value in learner.items() if not name.startswith("projection.")}
            learner = {**made.training.learner.state_dict(), **own}
        _load(made, saved, learner)
        for line in made.introduction():
            console.print(line, markup=False, soft_wrap=True)
        examples = made.training.data.validation if split == "validation" else made.training.data.test
        for found in islice(use(made.training, examples), rounds):
            yield found
            if stopping.asked:
                raise Interrupted(f"stopped by {stopping.asked} after round {found.number}", where=str(path))


def _load(made: Built, saved: checkpoint.Checkpoint, learner: dict[str, Any]) -> None:
    training = made.training
    with fitting():
        checkpoint.check_tensors(saved.tensors, training.net.state_dict(), "best weights")
        training.net.load_state_dict(dict(saved.tensors))
        training.learner.load_state_dict(learner)
        if training.sentinel is not None and saved.facts.get("sentinel"):
            training.sentinel.restore(saved.facts["sentinel"])
    settle(training)
