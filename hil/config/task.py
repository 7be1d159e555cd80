"""[task] of an experiment: what is learned, where it does not follow from the data.

use     "classes" or "numbers"                      loss     a name, or "module:function": (outputs, targets) -> a scalar tensor
metric  a name, a list of names, or "module:function": (outputs, targets) -> a number; the first one chooses the epoch
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field
from torch import Tensor

from hil.config.read import Section
from hil.config.resolve import UNTOUCHED, resolve
from hil.errors import ConfigError
from hil.metric import METRICS, Kind, Metric
from hil.task import Loss, LossName, Task, task_of

BESIDES = ("loss", "epoch", "step", "split")  # in a line of metrics.jsonl, beside the metrics


class TaskTable(Section, strict=True):
    """[task]: what the targets are, and how outputs are judged.

    Args:
        use: the kind of the targets; None: as the data have them.
        loss: that training lowers; None: cross_entropy of classes, mse of numbers.
        metric: that outputs are judged by, the one that chooses the epoch first; None: accuracy of classes, nrmse of numbers.
        lower: of a metric of your own, smaller is better.
        washout: steps at the beginning of each sequence that are neither learned from nor scored.
    """

    use: Kind | None = None
    loss: str | None = None
    metric: str | list[str] | None = Field(default=None, min_length=1)
    lower: bool = False
    washout: Annotated[int, Field(ge=0)] = 0

    def settle(self, place: str) -> None:
        """Find the functions that it names, once."""
        super().settle(place)
        self.chosen_loss()
        self.chosen_metrics()

    def chosen_loss(self) -> Loss | None:
        """Return the loss. Raises: ConfigError: there is none of that name."""
        if self.loss is None or self.loss in get_args(LossName):
            return None if self.loss is None else Loss(self.loss)
        return Loss(self.loss, self._function(self.loss, "loss", get_args(LossName)))

    def chosen_metrics(self) -> tuple[Metric, ...]:
        """Return the metrics, the one that chooses first. Raises: ConfigError: none or two of a name, an idle `lower`."""
        named = dict.fromkeys([self.metric] if isinstance(self.metric, str) else self.metric or [])
        found = tuple(METRICS.get(use) or self._own(use) for use in named)
        taken = [*BESIDES, *(metric.name for metric in METRICS.values() if metric not in found)]
        for use, metric in zip(named, found, strict=True):
            if metric.name in taken:
                raise ConfigError(
                    f'there is a "{metric.name}" already, and results are named after their metrics', got=use,
                    where=f"{self.place} metric", allowed="functions of different names", outputs=UNTOUCHED,
                    todo="give the function another name",
                )  # fmt: skip
            taken.append(metric.name)
        if self.lower and all(metric.name in METRICS for metric in found):
            raise ConfigError(
                "which way hil's own metrics are better is known", where=f"{self.place} lower", got="lower = true",
                allowed='lower, with a metric "module:function"', outputs=UNTOUCHED, todo="remove lower",
            )  # fmt: skip
        return found

    def of(self, target: Tensor, classes: Sequence[str], length: int | None = None) -> Task:
        """Return the task of targets, see `hil.task.task_of`. Raises: ConfigError."""
        found = self.chosen_loss(), self.chosen_metrics()
        return task_of(target, classes, self.use, *found, self.place, self.washout, length)

    def _own(self, use: str) -> Metric:
        return Metric(use.rpartition(":")[2], self._function(use, "metric", tuple(METRICS)), self.lower)

    def _function(self, use: str, key: Literal["loss", "metric"], known: Sequence[str]) -> Any:
        where = f"{self.place} {key}"
        if ":" not in use:
            raise ConfigError(
                f'there is no {key} "{use}"', where=where, got=use, allowed=", ".join((*known, "module:function")),
                outputs=UNTOUCHED, todo="choose one of these",
            )  # fmt: skip
        found = resolve(use, where)
        if not callable(found):
            raise ConfigError(
                f'"{use}" is no function', where=where, got=type(found).__name__, allowed="(outputs, targets) -> a number",
                outputs=UNTOUCHED, todo="name another",
            )  # fmt: skip
        return found
