"""Optimiser, schedule and plan of a training, from [optimizer], [schedule], [augment] and [train] of an experiment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from hil.config.experiment import Experiment
from hil.config.resolve import UNTOUCHED, Choice, blaming
from hil.config.training import OptimizerTable, ScheduleTable
from hil.data.augment import Augment
from hil.errors import ConfigError, ForeignError, RunError
from hil.foreign import foreign
from hil.metric import Metric
from hil.training.schedule import Constant, Stepped
from hil.training.state import TrainingPlan

FUSED = ("Adam", "AdamW", "SGD")  # torch's optimisers with a fused step on CPU


def plan_of(experiment: Experiment, shape: Sequence[int]) -> TrainingPlan:
    """Make the plan of the training from [train] and [augment]: how long it is, and what a step is made of.

    Args:
        experiment: as it was read.
        shape: of an example.

    Raises:
        ConfigError: [augment] does not fit the examples, the learner cannot accumulate, or it needs another optimiser.
    """
    table, learner = experiment.train, experiment.learner
    augment = Augment(**experiment.augment.model_dump())
    with blaming(experiment.place):
        augment.fits(shape)
    _moved_by_its_own(experiment)
    online = hasattr(learner.rule, "updates") and getattr(learner.options, "update", "per_step") == "per_step"
    if table.accumulate > 1 and online:
        raise ConfigError(
            f"{learner.use} moves the weights at every time step, so there is nothing to accumulate over batches",
            where=f"{table.place} accumulate", got=str(table.accumulate), outputs=UNTOUCHED,
            allowed='1; or update = "accumulated" in [learner], where the learner has it', todo="remove accumulate",
        )  # fmt: skip
    return TrainingPlan(
        experiment.seed, table.epochs, table.batch, table.budget_passes, augment, table.accumulate, table.clip_norm,
        table.patience, table.min_delta, table.budget_writes,
    )  # fmt: skip


def _moved_by_its_own(experiment: Experiment) -> None:
    """Refuse every optimiser but the one that a rule names in `moved_by`: its step is part of the rule."""
    wanted, table = getattr(experiment.learner.rule, "moved_by", None), experiment.optimizer
    found = {"use": table.use, "lr": table.lr, **table.settings()}
    devices = [one.params for one in experiment.device.layers] or [experiment.params]
    rates = [one.lr for one in devices if one is not None and one.lr]  # of lr = 0 nothing moves, as the file asks for
    if rates:
        found["[params] lr"] = rates[0]
    if wanted is None or (found == wanted and experiment.schedule.use == "constant"):
        return
    told, due = (", ".join(f"{name} = {value}" for name, value in one.items()) for one in (found, wanted))
    without, out = ("", "") if not rates else (", and without [params] lr", ", and lr out of [params]")
    raise ConfigError(
        f"{experiment.learner.use} says itself how far the weights move", where=table.place, outputs=UNTOUCHED,
        got=told if found != wanted else f"a schedule, {experiment.schedule.use}",
        allowed=f"{due}, without [schedule]{without}",
        todo=f'write [optimizer] with use = "SGD" and lr = 1.0, and take [schedule] out{out}',
    )  # fmt: skip


def optimiser(table: OptimizerTable, parameters: Sequence[nn.Parameter] | Sequence[dict[str, Any]]) -> Optimizer:
    """The optimiser of [optimizer] for parameters, or groups of them, each with an "lr" of its own.

    Raises:
        ConfigError: it refuses its settings, or cannot make a plain step from dense gradients.
    """
    chosen = table.choice
    if table.use in FUSED and not {"foreach", "capturable", "differentiable"} & set(chosen.settings):
        chosen = chosen.changed(**{"fused": True, **chosen.settings})  # one pass over the parameters, not one an operation
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


def schedule_of(table: ScheduleTable, optimizer: Optimizer, plan: TrainingPlan, examples: int, metric: Metric) -> Constant:
    """The schedule of [schedule] for the rates of an optimiser, tried over the whole training.

    Args:
        table: [schedule].
        optimizer: as it was made.
        plan: of the training.
        examples: of the training split.
        metric: whose value on the validation split it may follow.

    Raises:
        ConfigError: it refuses its settings, or does not last as long as the training.
    """
    if isinstance(table.choice.made, type) and issubclass(table.choice.made, Constant):
        made: Constant = table.choice.build(optimizer=optimizer)
        return made
    batches = math.ceil(examples / plan.batch)
    settings = table.model_dump(mode="json", exclude_none=True)
    refused = partial(
        ConfigError, f"{table.use} cannot be followed for {plan.epochs:,} epochs of {batches:,} batches", where=table.place,
        outputs=UNTOUCHED, todo="correct the settings of [schedule]",
    )  # fmt: skip
    try:
        with foreign(f"{table.place} {table.use}"), blaming(table.place):
            made = Stepped(optimizer, partial(scheduler_of, table.choice, metric), table.by_step, table.scored, settings)
            made.tried(plan.epochs, math.ceil(batches / plan.accumulate))
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
