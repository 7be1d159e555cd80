"""The Task of an experiment, from [task], the data and the learner; refused before anything is opened if they do not fit."""

from __future__ import annotations

from dataclasses import replace

from hil.config.experiment import LearnerTable
from hil.config.resolve import UNTOUCHED
from hil.config.task import TaskTable
from hil.data.dataset import Dataset, Split
from hil.errors import ConfigError
from hil.task import Task, lowers_loss, task_of

TAKE_A_TASK = "adfa, dfa, pat, backprop, spsa, pepg, cma_es, genetic, node_perturbation, host_and_device, last_layer"


def as_examples(data: Dataset, learner: LearnerTable) -> Dataset:
    """Sequences as the learner takes them; other data as they are.

    A learner of spiking networks shows a sequence step by step, and one of nodes with memory plays it as a whole: (n, time,
    features) stays. For a network without state in time:
    one target a sequence (many to one): all of it is one input, (n, time, features) -> (n, time x features); one target a step
    (many to many): every step is an example, (n, time, features) -> (n x time, features).

    Raises:
        ConfigError: sequences, or a target a step, that the learner cannot take.
    """
    if data.train.x.ndim != 3:
        return data
    taken = getattr(learner.rule, "sequences", None)
    each_step = data.train.y.ndim == (2 if data.classes else 3)
    if taken == "whole":
        return replace(data, shape=data.shape[1:])
    if taken is False or (taken and each_step):
        raise ConfigError(
            f"the learner {learner.use} does not take these sequences", where=learner.place, outputs=UNTOUCHED,
            got=f"{data.name}, one target a {'step' if each_step else 'sequence'}",
            allowed="one target a sequence" if taken else "examples without a time axis",
            todo="give one target a sequence" if taken else "leave out sequence in [data]: all steps are one input then",
        )  # fmt: skip
    if taken:
        return replace(data, shape=data.shape[1:])
    first = (0, 1) if each_step else (1, 2)

    def split(part: Split) -> Split:
        return Split(part.x.flatten(*first), part.y.flatten(0, 1) if each_step else part.y)

    shape = data.shape[1:] if each_step else data.shape
    return replace(data, train=split(data.train), validation=split(data.validation), test=split(data.test), shape=shape)


def _whole_sequences(data: Dataset, learner: LearnerTable) -> None:
    """Raises: ConfigError: the data are no sequences, and the learner takes nothing else."""
    if getattr(learner.rule, "sequences", None) == "whole" and data.train.x.ndim != 3:
        raise ConfigError(
            f"the learner {learner.use} takes sequences", where=learner.place, outputs=UNTOUCHED,
            got=f"{data.name}, examples without time", allowed="x (n, time, features), a target a step or a sequence",
            todo="write sequence = true in [data]; sets made from a formula have steps for it, images rows",
        )  # fmt: skip


def task_for(table: TaskTable | None, learner: LearnerTable, data: Dataset) -> Task:
    """Return the task that the data, [task] and the learner ask for.

    Args:
        table: [task], or None.
        learner: [learner].
        data: what is learned from.

    Raises:
        ConfigError: [task] does not fit the data, or the learner is not for such a task.
        DataError: targets that its metrics cannot judge.
    """
    _whole_sequences(data, learner)
    target, rule = data.train.y, learner.rule
    length = data.train.x.shape[1] if getattr(rule, "sequences", None) == "whole" else None
    task = task_of(target, data.classes) if table is None else table.of(target, data.classes, length)
    if length is not None and hasattr(learner.options, "fits"):
        learner.options.fits(task, length)
    if task.kind == "numbers" or table is not None:
        for name in ("train", "validation", "test"):
            task.fits(name, getattr(data, name).y)
    if learner.refit:
        _can_refit(learner)
    if not hasattr(rule, "build") or lowers_loss(rule):  # an object that a script made already may have none
        if task.kind == "numbers" and getattr(learner.options, "loss", None) == "cross_entropy":
            raise ConfigError(
                "cross entropy is a loss of classes", where=f"{learner.place} loss",
                got=f"{data.name}, whose targets are numbers", allowed="mse", outputs=UNTOUCHED, todo="leave loss out",
            )  # fmt: skip
        return task
    if task.kind != "classes":
        raise ConfigError(
            f"the learner {learner.use} needs classes, and the targets of {data.name} are numbers", where=learner.place,
            got=f"y float32, {task.outputs} an example", outputs=UNTOUCHED, todo="choose one of these, or data with classes",
            allowed=f"{TAKE_A_TASK}, ridge, or one whose build() takes a task",
        )  # fmt: skip
    if table is not None and table.loss is not None:
        raise ConfigError(
            f"the learner {learner.use} lowers losses of its own", where=f"{table.place} loss", got=table.loss,
            allowed="no loss for this learner", outputs=UNTOUCHED, todo="remove loss",
        )  # fmt: skip
    return task


def _can_refit(learner: LearnerTable) -> None:
    """Raises: ConfigError: the learner does not read its answer at the last synapse."""
    if not lowers_loss(learner.rule) or hasattr(learner.rule, "fit"):
        raise ConfigError(
            f"the readout of the learner {learner.use} cannot be fitted after training", where=f"{learner.place} readout",
            got='readout = "ridge"',
            allowed=f"{TAKE_A_TASK}, or one whose build() takes a task",
            outputs=UNTOUCHED, todo='remove readout, or write use = "ridge"',
        )  # fmt: skip


def task_table(table: TaskTable | None, task: Task, place: str) -> TaskTable | None:
    """Return [task] with all that was left out, as a run keeps it; none where classes are judged as they always are."""
    if table is None and task.kind == "classes":
        return None
    named = {} if table is None else table.model_dump(exclude_none=True)
    whole = {"use": task.kind, "loss": task.loss.name, "metric": [metric.name for metric in task.metrics], **named}
    made = TaskTable.model_validate({**whole, "use": task.kind})
    made.settle(f"{place}: [task]")
    return made
