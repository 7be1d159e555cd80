"""The parts of an experiment that need no device: data, task, synapses, optimiser. What can be refused is refused here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hil import torch_device
from hil.build import drift_sentinel, projection, stand_in
from hil.build.learner import class_weights, fits_learner, fits_node, known_kind, widened
from hil.build.network import Chain, chain_of
from hil.build.optimizing import optimiser, plan_of, schedule_of
from hil.build.task import as_examples, task_for
from hil.build.trained_params import groups, with_params
from hil.build.warm_start import Start, start_of
from hil.config.data import Data
from hil.config.experiment import Experiment
from hil.config.resolve import UNTOUCHED, construct
from hil.data.dataset import Dataset, subset, usable
from hil.errors import ContractError, DataError, ForeignError, Refused
from hil.foreign import foreign
from hil.task import Task
from hil.training.schedule import Constant
from hil.training.state import TrainingPlan


@dataclass(frozen=True)
class Prepared:
    """The parts of an experiment that need no device.

    Args:
        data: the splits; sequences already as the network learns them.
        task: what is learned.
        chain: the synapses, where the host computes.
        plan: how long is trained, and what a step is made of.
        weights: of the classes in the loss, (classes,); None: all alike.
        optimizer: over the parameters of the synapses.
        schedule: of its rates.
        first: the weights of another run to begin with, by name; None: those that were drawn.
        on: where the host computes.
    """

    data: Dataset
    task: Task
    chain: Chain
    plan: TrainingPlan
    weights: Tensor | None
    optimizer: torch.optim.Optimizer
    schedule: Constant
    first: Start | None
    on: torch.device


def prepared(experiment: Experiment, given: Dataset | None = None, begins: bool = False) -> Prepared:
    """Make what needs no device, and so refuse what can be refused without one.

    Args:
        experiment: as it was read.
        given: instead of the data of [data].
        begins: training begins at step 0, so with the weights that [train] from names.

    Raises:
        DataError, ConfigError.
    """
    with building(experiment.place), nothing_open():
        on = torch_device.named(experiment.train.on, experiment.place)
        stand_in.check(experiment)
        projection.check(experiment)
        kind = known_kind(experiment)
        fits_node(experiment.learner, kind)
        whole = dataset(experiment.data) if given is None else given
        data = as_examples(usable(whole), experiment.learner)
        task = task_for(experiment.task, experiment.learner, data)
        chain = chain_of(experiment.network, experiment.seed, data)
        chain = replace(chain, synapses=widened(experiment, chain.synapses, task.outputs))
        chain = with_params(chain, experiment)
        fits_learner(experiment, chain, data, task)
        weights = class_weights(experiment, data, task)
        plan = plan_of(experiment, data.shape)
        if experiment.device.kind in ("chip", "layers") or kind == "memory":
            drift_sentinel.static(experiment.sentinel)
        modules, table = chain.modules.to(on), experiment.optimizer  # moved before the optimiser makes its slots
        optimizer = optimiser(table, groups(modules, chain, experiment))
        construct(optimizer.step, {}, f"{table.place} {table.use}")  # no gradients yet: it moves nothing without a closure
        schedule = schedule_of(experiment.schedule, optimizer, plan, len(data.train), task.metric)
        first = start_of(experiment, chain.synapses, chain.feedback, chain.programmed) if begins else None
        return Prepared(data, task, chain, plan, weights, optimizer, schedule, first, on)


def dataset(table: Data) -> Dataset:
    """Read the data of [data]. Raises: DataError, ConfigError."""
    data = table.named.dataset(table.reading())
    if table.checksum not in (None, data.checksum):
        raise DataError(
            "these are other data than the run was begun with", where=f"{table.place} {table.use}", outputs=UNTOUCHED,
            got=f"checksum {data.checksum}", allowed=table.checksum or "",
            todo="put the data back; or start a new run, with checksum taken out of [data] if it stands there",
        )  # fmt: skip
    return data if table.train_examples is None else subset(data, table.train_examples)


@contextmanager
def building(place: str) -> Iterator[None]:
    """Turn errors of foreign code into refusals of `place`, the experiment: nothing is trained yet."""
    try:
        with foreign(f"{place}: building the network, its node and its learner"):
            yield
    except ForeignError as error:
        todo = error.todo.partition(", then")[0]
        raise ContractError(
            error.what, where=error.where, got=error.got, at=error.at, outputs="safe; whatever was opened is closed again",
            todo=todo,
        ) from error.__cause__  # fmt: skip


@contextmanager
def nothing_open() -> Iterator[None]:
    """Add to refusals that say nothing of the outputs that these are untouched."""
    try:
        yield
    except Refused as error:
        error.outputs = error.outputs or UNTOUCHED
        raise
