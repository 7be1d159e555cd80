"""What moves the weights, from the tables [optimizer], [schedule], [augment] and [train] of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hil.config.experiment import Experiment
from hil.config.resolve import UNTOUCHED, Choice, blaming
from hil.data.augment import Augment
from hil.data.dataset import Dataset
from hil.errors import ConfigError, ForeignError, RunError
from hil.foreign import foreign
from hil.learner import Learner
from hil.learners.parts.loss import Mixed
from hil.task import Loss, LossName, Metric, Task
from hil.training.schedule import Constant, Stepped
from hil.training.state import TrainingPlan

FUSED = ("Adam", "AdamW", "SGD")  # torch's optimisers with a fused step on CPU


def plan_of(experiment: Experiment) -> TrainingPlan:
    """How long is trained, and what a step is made of."""
    table = experiment.train
    return TrainingPlan(
        experiment.seed, table.epochs, table.batch, table.budget_passes, Augment(**experiment.augment.model_dump()),
        table.accumulate, table.clip_norm, table.patience, table.min_delta,
    )  # fmt: skip


def optimiser(parameters: Sequence[nn.Parameter] | Sequence[dict[str, Any]], experiment: Experiment) -> Optimizer:
    """The optimiser of [optimizer] for parameters, or groups of them, each with an "lr" of its own.

    Raises:
        ConfigError: it refuses its settings, or cannot make a plain step from dense gradients.
    """
    table = experiment.optimizer
    chosen = table.choice
    if table.use in FUSED and not {"foreach", "capturable", "differentiable"} & set(chosen.settings):
        chosen = chosen.changed(
            **{"fused": True, **chosen.settings}
        )  # one pass over the parameters in place of one an operation
    optimizer = chosen.build(params=parameters, lr=table.lr)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f'"{table.use}" is not an optimiser', where=table.place, got=type(optimizer).__name__, outputs=UNTOUCHED,
            allowed="a torch.optim.Optimizer", todo="choose Adam, or another of torch.optim",
        )  # fmt: skip
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ConfigError(
            "this optimiser takes sparse gradients alone", where=f"{table.place} {table.use}", got="dense ones",
            allowed="one that takes dense gradients", outputs=UNTOUCHED, todo="choose Adam",
        )  # fmt: skip
    return optimizer


def schedule_of(optimizer: Optimizer, experiment: Experiment, batches: int, metric: Metric) -> Constant:
    """The schedule of [schedule] for the rates of an optimiser, tried over the whole training.

    Args:
        optimizer: as it was made.
        experiment: as it was read.
        batches: of an epoch.
        metric: whose value on the validation split it may follow.

    Raises:
        ConfigError: it refuses its settings, or does not last as long as the training.
    """
    table, train = experiment.schedule, experiment.train
    if isinstance(table.choice.made, type) and issubclass(table.choice.made, Constant):
        made: Constant = table.choice.build(optimizer=optimizer)
        return made
    settings = table.model_dump(mode="json", exclude_none=True)
    refused = partial(
        ConfigError, f"{table.use} cannot be followed for {train.epochs:,} epochs of {batches:,} batches", where=table.place,
        outputs=UNTOUCHED, todo="correct the settings of [schedule]",
    )  # fmt: skip
    try:
        with foreign(f"{table.place} {table.use}"), blaming(table.place):
            made = Stepped(optimizer, partial(scheduler_of, table.choice, metric), table.by_step, table.scored, settings)
            made.tried(train.epochs, -(-batches // train.accumulate))
    except ForeignError as error:
        raise refused(got=f"{type(error.__cause__).__name__}: {error.got}") from error.__cause__
    except RunError as error:
        raise refused(got=f"{error.what}: {error.got}, {error.where}") from None
    return made


def scheduler_of(chosen: Choice, metric: Metric, optimizer: Optimizer) -> Any:
    """A scheduler of torch, and those that it is made of."""
    parts = chosen.settings.get("schedulers")
    if parts is not None:
        chosen = chosen.changed(schedulers=[scheduler_of(part, metric, optimizer) for part in parts])
    if chosen.made is torch.optim.lr_scheduler.ReduceLROnPlateau:
        chosen = chosen.changed(mode="min" if metric.lower else "max")
    return chosen.build(optimizer=optimizer)


def fits_moves(experiment: Experiment, data: Dataset, task: Task) -> None:
    """Refuse, before anything is opened, what [augment] and [train] ask of a learner or of data that cannot be.

    Raises:
        ConfigError.
    """
    plan, learner = plan_of(experiment), experiment.learner
    with blaming(experiment.place):
        plan.augment.fits(data.shape)
    online = hasattr(learner.rule, "updates") and getattr(learner.options, "update", "per_step") == "per_step"
    if plan.accumulate > 1 and online:
        raise ConfigError(
            f"{learner.use} moves the weights at every time step, so there is nothing to accumulate over batches",
            where=f"{experiment.train.place} accumulate", got=str(plan.accumulate), outputs=UNTOUCHED,
            allowed='1; or update = "accumulated" in [learner], where the learner has it', todo="remove accumulate",
        )  # fmt: skip
    named = getattr(learner.options, "loss", "") or task.loss.name
    known = task.kind == "classes" and (named in get_args(LossName) or hasattr(learner.options, "mse_share"))
    if experiment.train.class_weights is not None and not known:
        raise _no_loss(experiment, UNTOUCHED)
    class_weights(experiment, data)


def class_weights(experiment: Experiment, data: Dataset) -> Tensor | None:
    """The weight of each class in the loss, (classes,), their mean over the training examples 1; None: all alike.

    Raises:
        ConfigError: not one a class, or there are no classes.
    """
    told, classes = experiment.train.class_weights, len(data.classes)
    if told is None:
        return None
    where = f"{experiment.train.place} class_weights"
    if not classes or data.train.y.is_floating_point():
        raise ConfigError(
            "these targets are no classes", where=where, got=data.name, outputs=UNTOUCHED, todo="remove class_weights"
        )
    counts = torch.bincount(data.train.y, minlength=classes).double()
    if told == "balanced":
        weights = torch.where(counts > 0, 1 / counts, 0.0)
    elif len(told) != classes:
        raise ConfigError(
            "not one weight a class", where=where, got=f"{len(told)} of them", allowed=f"{classes}, or \"balanced\"",
            outputs=UNTOUCHED, todo=f"give one for each of {', '.join(data.classes)}"[:200],
        )  # fmt: skip
    else:
        weights = torch.tensor(told, dtype=torch.float64)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def weigh(learner: Learner, weights: Tensor | None, experiment: Experiment) -> None:
    """Let a learner's loss weigh the classes.

    Raises:
        ConfigError: it has no loss that does.
    """
    if weights is None:
        return
    loss = getattr(learner, "loss", None)
    if not isinstance(loss, Loss | Mixed):
        raise _no_loss(experiment, "safe; whatever was opened is closed again")
    learner.loss = replace(loss, weights=tuple(weights.tolist()))  # type: ignore[attr-defined]


def _no_loss(experiment: Experiment, outputs: str) -> ConfigError:
    return ConfigError(
        "this learner has no loss over classes that could be weighed", where=f"{experiment.train.place} class_weights",
        got=experiment.learner.use, allowed="a learner with a loss of cross_entropy or mse", outputs=outputs,
        todo="remove class_weights",
    )  # fmt: skip
