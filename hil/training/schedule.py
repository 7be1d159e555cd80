"""Schedules of the learning rate while a network is trained.

    constant    lr
    cosine      lr (1 + cos(pi step / steps)) / 2: zero at the end of the last epoch
    Stepped     a scheduler of torch, told after each epoch or after each move of the optimiser

A schedule is a function of how often it was told and of the scores that it was told, so a checkpoint holds these, and the rates
that came of them. A resume begins the schedule anew and tells it the same again: that gives the same rates to the last bit, and
a schedule whose settings were changed goes on where it would be, had it been so from the beginning.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from hil.errors import RunError


class Constant:
    """The rates of the optimiser as they are; what the other schedules are made from.

    Args:
        optimizer: whose rates these are.
    """

    scored = False  # its rates depend on scores

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def begin(self, step: int, steps: int) -> None:
        """Set the rates for a step: number `step`, from 0, of `steps` in all."""

    def moved(self) -> None:
        """Note that the optimiser has moved the weights."""

    def epoch_done(self, score: float) -> None:
        """Note that an epoch is done, and its score on the validation split."""

    def state(self) -> dict[str, Any]:
        """Return what a resume needs besides the scores, JSON values."""
        return {}

    def restore(self, state: Mapping[str, Any], scores: Sequence[float]) -> None:
        """Take a state back.

        Args:
            state: as of `state`; of another schedule, if the settings were changed.
            scores: of the epochs so far.

        Raises:
            ValueError: it is damaged, or does not lead to the same rates.
        """

    def tried(self, epochs: int, moves: int) -> None:
        """Go through a whole training, and begin anew: whatever the schedule cannot do is found before it begins.

        Args:
            epochs: how many there are.
            moves: of the optimiser in each of them.

        Raises:
            RunError: a rate is negative or not finite. Whatever the scheduler raises.
        """


class Cosine(Constant):
    """The schedule from the rate of the optimiser down to zero, along half a cosine."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self._first = [float(group["lr"]) for group in optimizer.param_groups]

    def begin(self, step: int, steps: int) -> None:
        """Set the rates for a step: number `step`, from 0, of `steps` in all."""
        factor = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, rate in zip(self.optimizer.param_groups, self._first, strict=True):
            group["lr"] = rate * factor


class Stepped(Constant):
    """A scheduler of torch.

    Args:
        optimizer: whose rates these are.
        make: makes the scheduler for it.
        by_step: it is told after each move of the optimiser, not after each epoch.
        scored: it is told the score, too.
        settings: what it is made from, for a resume: JSON values.
    """

    def __init__(
        self, optimizer: Optimizer, make: Callable[[Optimizer], Any], by_step: bool, scored: bool, settings: Mapping[str, Any]
    ) -> None:
        super().__init__(optimizer)
        self.scored = scored
        self._make, self._by_step = make, by_step
        self._first = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        self._settings = {**settings, "lr": [group["lr"] for group in self._first]}
        self._begun()

    def _begun(self) -> None:
        """As before the first step: schedulers keep what they need in the optimiser's groups, too."""
        for group, first in zip(self.optimizer.param_groups, self._first, strict=True):
            for key in group.keys() - first.keys() - {"params"}:
                del group[key]
            group.update(first)
        self.told = 0
        self._scheduler = self._make(self.optimizer)

    def moved(self) -> None:
        """Tell it, if it counts moves."""
        if self._by_step:
            self._tell()

    def epoch_done(self, score: float) -> None:
        """Tell it, if it counts epochs."""
        if not self._by_step:
            self._tell(score)

    def _tell(self, score: float = math.nan) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)  # told again, without steps
            warnings.filterwarnings("ignore", "The epoch parameter in `scheduler.step", UserWarning)  # SequentialLR's own call
            self._scheduler.step(*([score] if self.scored else []))
        self.told += 1
        wrong = [rate for rate in self._rates() if not 0 <= rate < math.inf]
        if wrong:
            raise RunError(
                "a learning rate is not a number from 0 up", where=f"[schedule] after {self.told:,} {self._counted}",
                got=str(wrong[0]), outputs="as after the last shot; they are made safe now",
                todo="correct the settings of [schedule]",
            )  # fmt: skip

    @property
    def _counted(self) -> str:
        return "steps" if self._by_step else "epochs"

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state(self) -> dict[str, Any]:
        """Return what it was made from, how often it was told, and the rates that came of it."""
        return {"settings": self._settings, "told": self.told, "rates": self._rates()}

    def restore(self, state: Mapping[str, Any], scores: Sequence[float]) -> None:
        """Begin anew, and tell it the same again."""
        told = state.get("told") if self._by_step else len(scores)
        if type(told) is not int or told < 0:
            raise ValueError(f"a schedule that was told {told!r} times")
        self._begun()
        for number in range(told):
            self._tell(scores[number] if self.scored else math.nan)
        if state.get("settings") == self._settings and state.get("rates") != self._rates():
            raise ValueError(f"learning rates {state.get('rates')}, where the schedule comes to {self._rates()}")

    def tried(self, epochs: int, moves: int) -> None:
        """Go through a whole training, and begin anew."""
        for _ in range(epochs * (moves if self._by_step else 1)):
            self._tell(0.0)
        self._begun()
