"""Jobs of an evaluator and their outcomes; values that go through JSON.

Recipe            a feedback and a learning rate
OperatingPoint    settings of the experiment and of its bench
Job               one of these, trained with a seed for some epochs, scored on a split
Outcome           what came of it; a candidate that diverged is an outcome too, the worst
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from hil.feedback.feedback import Feedback

Scored = Literal["score", "held"]
ObjectiveName = Literal["accuracy", "loss", "robustness", "passes", "steps"]
COSTS = ("loss", "passes", "steps")  # less is better, so that their fitness is negative
WORST = -1e15  # finite, as crowding distances divide by the width of a front


@dataclass(frozen=True, slots=True)
class Recipe:
    """The way in which a candidate learns: g, B and learning rate."""

    feedback: Feedback
    lr: float

    def table(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"feedback": self.feedback.to_table(), "lr": self.lr}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Recipe:
        """Make a recipe from JSON values."""
        return cls(Feedback.from_table(table["feedback"]), float(table["lr"]))

    def digest(self) -> str:
        """Eight hexadecimal digits that stand for the recipe."""
        return _digest(self.table())


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The settings with which a candidate differs from the base.

    Args:
        settings: "table.key" -> value as a file has it; keys that begin with "bench." are of the bench file.
    """

    settings: Mapping[str, Any]

    def table(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"settings": dict(self.settings)}

    def digest(self) -> str:
        """Eight hexadecimal digits that stand for the settings."""
        return _digest(self.table())


AnyRecipe = Recipe | OperatingPoint


def recipe_of(table: Mapping[str, Any]) -> AnyRecipe:
    """Make a recipe of either kind from JSON values."""
    return OperatingPoint(dict(table["settings"])) if "settings" in table else Recipe.of(table)


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(table, sort_keys=True).encode(), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class Job:
    """A training of a candidate.

    Args:
        key: unique in a search.
        seed: of weights, order, noise and B.
        split: what the merit is measured on.
        races: it may be stopped early, see racing.py.
    """

    key: str
    recipe: AnyRecipe
    seed: int
    epochs: int
    split: Scored = "score"
    races: bool = False

    @property
    def learned(self) -> Recipe:
        """The recipe, of a job that searches a feedback."""
        assert isinstance(self.recipe, Recipe)  # a population is of such jobs
        return self.recipe

    def table(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "key": self.key, "recipe": self.recipe.table(), "seed": self.seed, "epochs": self.epochs, "split": self.split,
            "races": self.races,
        }  # fmt: skip

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Job:
        """Make a job from JSON values."""
        return cls(table["key"], recipe_of(table["recipe"]), table["seed"], table["epochs"], table["split"], table["races"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a training.

    Args:
        accuracy: merit by the metric of the task after the last epoch, 0 to 1, which is accuracy of classes; 0 if it diverged.
        curve: after each epoch.
        passes: node evaluations until the target was reached, or of the whole training.
        steps: until the target, or None.
        robustness: mean merit on the other devices, or None.
        died_at: the step that was not finite, or out of limits.
        wall_s: its share of the time.
        where: who trained it.
        loss: mean loss of the task over the scored examples after the last epoch; None if it is not known.
        stopped_at: the epochs after which a race ended the training, or None.
    """

    accuracy: float
    curve: tuple[float, ...] = ()
    passes: int = 0
    steps: int | None = None
    robustness: float | None = None
    died_at: int | None = None
    wall_s: float = 0.0
    where: str = ""
    loss: float | None = None
    stopped_at: int | None = None

    def table(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Outcome:
        """Make an outcome from JSON values."""
        return cls(**{**table, "curve": tuple(table["curve"])})


class Trainer(Protocol):
    """Trains jobs, all of them, in this process."""

    def train(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Train every job; return the outcomes in the same order."""


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective of the search: a number of an outcome, larger is better.

    Args:
        name: "accuracy" (the merit, whatever the metric is); "loss" (of the task, lower is better); "robustness";
            "passes" or "steps", fewer are better, all of them if the target was not reached.
        worst: largest loss that counts. A candidate that diverged counts as one of this loss, and an outlier moves the
            estimated luck of its seed no further.
    """

    name: ObjectiveName
    worst: float = math.inf

    @property
    def sign(self) -> int:
        """-1 of a cost, whose value is negative; 1 of the others."""
        return -1 if self.name in COSTS else 1

    def value(self, outcome: Outcome, most_steps: int) -> float:
        """Return its value, larger is better, never NaN; a candidate that diverged has the worst."""
        dead = outcome.died_at is not None
        if self.name == "accuracy":
            return 0.0 if dead else outcome.accuracy
        if self.name == "loss":
            return -self.worst if dead or outcome.loss is None or not outcome.loss <= self.worst else -outcome.loss
        if self.name == "robustness":
            return 0.0 if dead or outcome.robustness is None else outcome.robustness
        if self.name == "steps":
            return -float(2 * most_steps if dead else most_steps if outcome.steps is None else outcome.steps)
        return WORST if dead else -float(outcome.passes)
