"""Tasks of a network: the kind of its targets, the loss that training lowers, the metrics (hil/metric.py).

    classes    y int64 (n,), the number of a class              cross_entropy, chosen by accuracy
    numbers    y float32 (n, k), k numbers an example           mse, chosen by nrmse
    sequences  x float32 (n, time, features), with one target a sequence or a step; hil/build/task.py makes examples of them, or
               they stay whole: outputs (n, time, k), of which the first `washout` steps are not scored

    cross_entropy    L = - mean_n w_n log softmax(o_n)[y_n]     dL/do = w_n ( softmax(o) - onehot(y) ) / batch
    mse              L = mean_n w_n 1/2 |o_n - y_n|^2           dL/do = w_n ( o - y ) / batch        y = onehot(y) for classes
                     w_n = 1, or the weight of the class y_n

The first metric chooses the epoch, on the validation split. Reports, comparisons and searches follow it, and its direction.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from hil.errors import UNTOUCHED, ConfigError, ContractError, DataError
from hil.metric import METRICS, Judge, Kind, Metric

LossName = Literal["cross_entropy", "mse"]


class Verdict(NamedTuple):
    """The loss of a batch: its gradient at the output, and its metrics.

    Args:
        error: dL/do (batch, outputs).
        metrics: "loss", and of classes "accuracy".
    """

    error: Tensor
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss: one of LossName, with its exact gradient written out, or a function of yours, differentiated.

    Args:
        name: of LossName, or "module:function".
        function: (outputs (batch, k), targets) -> the loss of the batch, a scalar with a graph; None: `name` says it.
        weights: of each class; none: all alike.
    """

    name: str = "cross_entropy"
    function: Judge | None = None
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.function is None and self.name not in get_args(LossName):
            raise ConfigError(
                "no such loss", where="[learner] loss", got=repr(self.name), allowed=", ".join(get_args(LossName)),
                outputs=UNTOUCHED,
            )  # fmt: skip

    def judge(self, scores: Tensor, label: Tensor) -> Verdict:
        """Outputs (batch, k) against targets, (batch,) of classes or (batch, k) of numbers, without a graph."""
        numbers = label.is_floating_point()
        if self.function is not None:
            error, loss = self._differentiated(scores, label)
        elif self.name == "mse" and numbers:
            error = scores - label
            loss, error = error.square().sum() * (0.5 / len(label)), error.mul_(1 / len(label))
        elif self.weights:
            error, loss = self._weighed(scores, label)
        else:
            error, loss = self._of_classes(scores, label)
        if numbers:
            return Verdict(error, {"loss": float(loss)})
        right = scores.argmax(1).eq(label).to(scores.dtype).mean()
        loss_value, accuracy = torch.stack([loss, right]).tolist()  # one transfer, should the host's tensors be on a GPU
        return Verdict(error, {"loss": loss_value, "accuracy": accuracy})

    def _of_classes(self, scores: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        if label.is_floating_point():
            raise ContractError(
                "cross entropy is a loss of classes", where="loss", got="targets that are numbers", allowed="mse",
                todo='write loss = "mse", or leave it out',
            )  # fmt: skip
        index, one = label.unsqueeze(1), torch.ones((), dtype=scores.dtype, device=scores.device)
        share = 1 / len(label)
        if self.name == "mse":
            error = scores.scatter_add(1, index, -one.expand_as(index))
            loss = error.square().sum().mul_(0.5 * share)
        else:
            logp = scores.log_softmax(1)
            loss = logp.gather(1, index).sum().mul_(-share)
            error = logp.exp_().scatter_add_(1, index, -one.expand_as(index))
        return error.mul_(share), loss

    def _weighed(self, scores: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        wanted = functional.one_hot(label, scores.shape[1]).to(scores.dtype)
        share = self._weight(scores, label) / len(label)
        error = (scores if self.name == "mse" else scores.softmax(1)) - wanted
        return error * share.unsqueeze(1), (self._each(scores, label) * share).sum()

    def _weight(self, scores: Tensor, label: Tensor) -> Tensor:
        return scores.new_tensor(self.weights)[label]

    def _each(self, scores: Tensor, label: Tensor) -> Tensor:
        """(batch,): the loss of each example, all classes alike."""
        if self.name == "mse":
            wanted = label if label.is_floating_point() else functional.one_hot(label, scores.shape[1])
            return 0.5 * (scores - wanted).square().sum(1)
        return functional.cross_entropy(scores, label, reduction="none")

    def each(self, scores: Tensor, label: Tensor) -> Tensor:
        """(batch,): the loss of each example, whose mean is that of the batch."""
        if self.function is not None:
            return torch.stack([self.of(scores[n : n + 1], label[n : n + 1]) for n in range(len(label))])
        return self._each(scores, label) * (self._weight(scores, label) if self.weights else 1.0)

    def _differentiated(self, scores: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = scores.detach().requires_grad_(True)
            loss = self.of(point, label)
            (error,) = torch.autograd.grad(loss, point, allow_unused=True) if loss.requires_grad else (None,)
        if error is None:
            raise ContractError("this loss does not depend on the outputs", where=f"loss {self.name}", got="no gradient",
                                allowed="torch operations from the outputs to a scalar")  # fmt: skip
        return error, loss.detach()

    def of(self, scores: Tensor, label: Tensor) -> Tensor:
        """The same loss as a graph, for a learner that differentiates."""
        if self.function is not None:
            found = self.function(scores, label)
            if not isinstance(found, Tensor) or found.ndim:
                got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
                raise ContractError(
                    "a loss is one number a batch", where=f"loss {self.name}", got=got, allowed="a scalar tensor"
                )
            return found
        if self.weights:
            return (self._each(scores, label) * self._weight(scores, label)).sum() / len(label)
        if self.name == "mse":
            return self._each(scores, label).sum() / len(label)
        return functional.cross_entropy(scores, label)


def as_loss(loss: Loss | str) -> Loss:
    """Return `loss`, or the one of that name."""
    return Loss(loss) if isinstance(loss, str) else loss


DEFAULTS: Mapping[Kind, tuple[LossName, str]] = {"classes": ("cross_entropy", "accuracy"), "numbers": ("mse", "nrmse")}


# ---- the task -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """A task: what the targets are, and how outputs are judged.

    Args:
        kind: "classes" or "numbers".
        outputs: classes, or numbers an example.
        loss: that training lowers.
        metrics: that are reported; the first one chooses the epoch.
        washout: steps at the beginning of a sequence that are not scored.
        steps: of sequences, there is a target a step; False: one a sequence, or no axis of time.
    """

    kind: Kind
    outputs: int
    loss: Loss
    metrics: tuple[Metric, ...]
    washout: int = 0
    steps: bool = False

    @property
    def metric(self) -> Metric:
        """The one that chooses."""
        return self.metrics[0]

    def lowered(self, named: str | None) -> Loss:
        """Return the loss of that name, or that of the task for None."""
        return self.loss if named is None else Loss(named)

    @torch.no_grad()
    def score(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Judge outputs (n, k), or (n, time, k), by their targets: "loss", and every metric by its name."""
        outputs, target = self.scored(outputs, outputs.ndim == 3), self.targets(target)
        if outputs.shape[:1] != target.shape[:1] or outputs.shape[1:] != (self.outputs,):
            raise ContractError(
                "these outputs do not fit the targets", where="task", got=f"shape {tuple(outputs.shape)}",
                allowed=f"({len(target)}, {self.outputs})", todo="let predict() give one row an example",
            )  # fmt: skip
        found = {metric.name: float(metric.of(outputs, target)) for metric in self.metrics}
        return {"loss": float(self.loss.of(outputs, target)), **found}

    def scored(self, values: Tensor, steps: bool = True) -> Tensor:
        """Return what counts of outputs or targets: of sequences (n, time, ...) the steps behind the washout, in a row.

        Args:
            values: (n, time, ...), or of examples without time (n, ...).
            steps: there is an axis of time; values come back as they are otherwise.
        """
        return values[:, self.washout :].flatten(0, 1) if steps else values

    def targets(self, target: Tensor) -> Tensor:
        """Return the targets that are scored, (n,) of classes or (n, k) of numbers."""
        return self.scored(target, target.ndim == (3 if self.kind == "numbers" else 2))

    def guess(self, target: Tensor) -> dict[str, float]:
        """Return the score of the best constant answer: the most frequent class, or the mean of the numbers."""
        target = self.targets(target)
        if self.kind == "numbers":
            return self.score(target.mean(0).expand_as(target), target)
        scores = torch.zeros(len(target), self.outputs, device=target.device)
        scores[:, torch.bincount(target).argmax()] = 1.0
        return self.score(scores, target)

    def fits(self, name: str, target: Tensor) -> None:
        """Refuse targets that the metrics cannot judge, as a constant has no NRMSE.

        Args:
            name: of the split.
            target: of all of it.

        Raises:
            DataError.
        """
        for metric, value in self.guess(target).items():
            if not math.isfinite(value):
                raise DataError(
                    f"the {name} targets cannot be judged by {metric}", where="[task]", outputs=UNTOUCHED,
                    got=f"{metric} = {value} for the best constant answer", todo="choose another metric, or other targets",
                    allowed="targets that vary; two levels for bit_error_rate, 256 for symbol_error_rate",
                )  # fmt: skip


def task_of(
    target: Tensor, classes: Sequence[str], kind: str | None = None, loss: Loss | None = None, metrics: Sequence[Metric] = (),
    where: str = "[task]", washout: int = 0, length: int | None = None,
) -> Task:  # fmt: skip
    """The task of these targets; what is left out follows from them.

    Args:
        target: y of the training split: int64 (n,), or float32 (n, k); of sequences (n, time), or (n, time, k).
        classes: the names of the classes, none for numbers.
        kind: "classes" or "numbers".
        loss: that training lowers.
        metrics: that are reported, the one that chooses first.
        where: for messages.
        washout: steps at the beginning of a sequence that are not scored.
        length: of the sequences, where one target a sequence may have a washout; None: it may not.

    Raises:
        ConfigError: the targets are of another kind, or the loss or a metric is not for them; or the washout leaves nothing.
    """
    found: Kind = "numbers" if target.is_floating_point() else "classes"
    if kind not in (None, found):
        raise ConfigError(
            "the data have other targets", where=where, got=f'use = "{kind}", and targets {target.dtype}', outputs=UNTOUCHED,
            allowed=f'"{found}"', todo="leave use out, or read other data",
        )  # fmt: skip
    loss_name, metric_name = DEFAULTS[found]
    chosen = tuple(metrics) or (METRICS[metric_name],)
    wrong = [metric.name for metric in chosen if found not in metric.kinds]
    if found == "numbers" and loss is not None and loss.name == "cross_entropy":
        wrong = [loss.name]
    if wrong:
        known = ", ".join(name for name, metric in METRICS.items() if found in metric.kinds)
        losses = "mse" if found == "numbers" else ", ".join(get_args(LossName))
        raise ConfigError(
            f"{wrong[0]} is not for {found}", where=where, got=wrong[0], outputs=UNTOUCHED,
            allowed=f"metrics {known}; losses {losses}; module:function", todo="choose another, or leave it out",
        )  # fmt: skip
    each = target.ndim == (3 if found == "numbers" else 2)
    steps = target.shape[1] if each else length
    if washout and (steps is None or washout >= steps):
        raise ConfigError(
            "this washout leaves nothing to score", where=f"{where} washout", got=str(washout), outputs=UNTOUCHED,
            allowed="0, as these examples have no target a step" if steps is None else f"0 to {steps - 1}, below the length",
            todo="make it smaller, or the sequences longer",
        )  # fmt: skip
    outputs = target.shape[-1] if found == "numbers" else len(classes)
    return Task(found, outputs, loss or Loss(loss_name), chosen, washout, each)


def as_task(task: Task | int) -> Task:
    """Return `task`, or for a number the task of so many classes."""
    return task if isinstance(task, Task) else task_of(torch.zeros(0, dtype=torch.int64), [""] * task)


def takes_task(build: Callable[..., Any]) -> bool:
    """True of a `build` whose third argument is called task; one that takes `classes` needs classes."""
    return "task" in inspect.signature(build).parameters


def lowers_loss(rule: Any) -> bool:
    """True of a class whose `build` takes any task, and lowers the loss of that."""
    return takes_task(rule.build) and not getattr(rule, "needs_classes", False)


def asked_for(build: Callable[..., Any], task: Task) -> Task | int:
    """Return what `build` takes: the task, or the number of classes."""
    return task if takes_task(build) else task.outputs
