"""The learner of an experiment: refused before anything is opened where it does not fit, then made for its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor, nn

from hil.build.network import Chain, takes_batches
from hil.build.projection import Projector
from hil.config.experiment import Experiment
from hil.config.resolve import UNTOUCHED
from hil.data.dataset import Dataset
from hil.errors import ConfigError
from hil.foreign import foreign
from hil.hints import counted
from hil.learner import Learner
from hil.learners.parts.loss import Mixed
from hil.learners.parts.shown import Shown
from hil.network import Network
from hil.seeding import generator
from hil.task import Loss, LossName, Task, asked_for


def fits_learner(experiment: Experiment, chain: Chain, data: Dataset, task: Task) -> None:
    """Refuse, before anything is opened, other outputs than the task has, and batches that the synapses do not take.

    Raises:
        ConfigError.
    """
    learner, outputs, wanted = experiment.learner, chain.widths[-1], task.outputs
    if outputs != wanted and not getattr(learner.rule, "any_outputs", False):
        raise ConfigError(
            f"the network does not fit {data.name}", where=experiment.network.place, got=counted(outputs, "output"),
            allowed=f"{counted(wanted, 'output')}, one a {'class' if task.kind == 'classes' else 'number'}, for the learner "
            f"{learner.use}", outputs=UNTOUCHED, todo=f"make the last synapse {wanted} wide",
        )  # fmt: skip
    if data.train.x.ndim == 3:
        steps = getattr(learner.options, "time_steps", None) or getattr(learner.options, "forward_steps", None)
        Shown(data.train.x[:1], steps or data.train.x.shape[1])  # refused here if it would be later
    elif not hasattr(learner.options, "time_steps"):  # with a time axis an example is many
        takes_batches(chain, experiment.train.batch, len(data.train), experiment.network.place)


def class_weights(experiment: Experiment, data: Dataset, task: Task) -> Tensor | None:
    """Return the weight of each class in the loss, (classes,), their mean over the training examples 1; None: all alike.

    Raises:
        ConfigError: not one a class, there are no classes, or the learner has no loss that could be weighed.
    """
    told, classes, options = experiment.train.class_weights, len(data.classes), experiment.learner.options
    if told is None:
        return None
    named = getattr(options, "loss", "") or task.loss.name
    if task.kind != "classes" or not (named in get_args(LossName) or hasattr(options, "mse_share")):
        raise _no_loss(experiment, UNTOUCHED)
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


def learner_of(
    experiment: Experiment, net: Network, task: Task, model: Callable[[Tensor], Tensor] | None, weights: Tensor | None,
    ready: Learner | None = None, projector: Projector | None = None,
) -> Learner:  # fmt: skip
    """Make the learner of [learner] where the network is, its loss weighed.

    Args:
        experiment: as it was read.
        net: the network that it trains.
        task: what is learned.
        model: of the node, drive -> reading, or None.
        weights: of the classes, as of `class_weights`.
        ready: one that a script made already; None: it is made.
        projector: projects the error in place of its matrices; None: they do.

    Raises:
        ForeignError: its class fails. ConfigError: it has no loss that could be weighed, or a projector does
            not fit it.
    """
    table, learner = experiment.learner, ready
    if learner is None:
        with foreign(f"{table.place} {table.use}"):
            learner = table.rule.build(
                net, table.options, asked_for(table.rule.build, task), generator(experiment.seed, 0, "learner"), model
            )
    if projector is not None:
        projector.given_to(learner)
    if isinstance(learner, nn.Module):  # any other finds its place by itself, where the network already is
        learner.to(net.place)
    if weights is not None:
        loss = getattr(learner, "loss", None)
        if not isinstance(loss, Loss | Mixed):
            raise _no_loss(experiment, "safe; whatever was opened is closed again")
        learner.loss = replace(loss, weights=tuple(weights.tolist()))  # type: ignore[union-attr]
    return learner


def _no_loss(experiment: Experiment, outputs: str) -> ConfigError:
    return ConfigError(
        "this learner has no loss over classes that could be weighed", where=f"{experiment.train.place} class_weights",
        got=experiment.learner.use, allowed="a learner with a loss of cross_entropy or mse", outputs=outputs,
        todo="remove class_weights",
    )  # fmt: skip
