"""The learner of an experiment: refused before anything is opened where it does not fit, then made for its network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor, nn

from hil.build.network import Chain, takes_batches
from hil.build.projection import Projector
from hil.config.experiment import Experiment, LearnerTable
from hil.config.resolve import LEARNERS, SHAPES, UNTOUCHED
from hil.data.dataset import Dataset
from hil.device import Spec
from hil.errors import ConfigError
from hil.foreign import foreign
from hil.hints import counted
from hil.learner import Learner, Nodes, drives
from hil.learners.parts.loss import Mixed
from hil.learners.parts.shown import Shown
from hil.network import Network
from hil.seeding import generator
from hil.task import Loss, LossName, Task, asked_for
from hil.twin import Parametric, Twin


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
    if data.train.x.ndim == 3 and drives(learner.rule, learner.options) == "spiking":
        steps = getattr(learner.options, "time_steps", None) or getattr(learner.options, "forward_steps", None)
        Shown(data.train.x[:1], steps or data.train.x.shape[1])  # refused here if it would be later
    elif not hasattr(learner.options, "time_steps"):  # with a time axis an example is many
        takes_batches(chain, experiment.train.batch, len(data.train), experiment.network.place)


def widened(experiment: Experiment, synapses: Sequence[nn.Module], outputs: int) -> tuple[nn.Module, ...]:
    """Return the synapses that the learner asks for by its `widened`, or those of [network], if it does not."""
    asked = getattr(experiment.learner.rule, "widened", None)
    if asked is None:
        return tuple(synapses)
    return tuple(asked(synapses, experiment.learner.options, outputs, generator(experiment.seed, 0, "widened")))


KINDS: Mapping[Nodes, tuple[str, str]] = {  # what they are, and what is wrong with others
    "static": ("nodes without a state in time", "this node has a state in time, and this learner has no time axis"),
    "spiking": ("spiking neurons", "this node is analog, and this learner drives spiking neurons"),
    "memory": ("nodes with memory", "this node has no memory, and this learner drives nodes with memory"),
}


def fits_node(learner: LearnerTable, found: Nodes | None, outputs: str = UNTOUCHED) -> None:
    """Refuse a node of another kind than the learner drives.

    Args:
        learner: [learner].
        found: the kind of the node; None: not known yet.
        outputs: their state, for the message.

    Raises:
        ConfigError.
    """
    asked = drives(learner.rule, learner.options)
    if found in (None, asked) or (asked == "spiking" and found == "static"):  # such a rule judges by itself
        return
    assert found is not None
    todo = "choose another learner, or node"
    if found == "memory" and f"{learner.use}_memory" in LEARNERS:
        todo = f'write use = "{learner.use}_memory", which is the same rule for sequences; or choose another node'
    elif found == "memory":
        todo = 'choose another node; or use = "reservoir", or to train masks as well "deep_reservoir" or "pat_memory"'
    raise ConfigError(
        KINDS[asked][1], where=learner.place, got=f"{learner.use}, on {KINDS[found][0]}", allowed=KINDS[asked][0],
        outputs=outputs, todo=todo,
    )  # fmt: skip


def kind_of(spec: Spec) -> Nodes:
    """Return the kind of a node that is open, or of a twin."""
    return "memory" if spec.memory else "spiking" if spec.temporal else "static"


def known_kind(experiment: Experiment) -> Nodes | None:
    """Return the kind of the node of [device], or None where only the open device tells: behind a shape of one's own or a host.

    A class of one's own may say `temporal`: True of an analog node with memory.
    """
    table = experiment.device
    if table.kind == "chip":
        return "spiking"
    if experiment.bench is not None:
        shape = experiment.bench.shape
        if experiment.bench.remembers:
            return "memory"
        return None if shape not in SHAPES else "spiking" if shape == "spiking" else "static"
    if table.kind == "twin" and table.choice is not None:
        twin: Twin = table.choice.build()
        return kind_of(twin.spec)
    said = None if table.choice is None else getattr(table.choice.made, "temporal", None)
    return None if said is None else "memory" if said else "static"


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
    counts = torch.bincount(data.train.y.flatten(), minlength=classes).double()
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


def model_of(twin: Twin | None, net: Network) -> Callable[..., Tensor] | None:
    """The model of the node that learners differentiate: drive -> reading, or (drive, levels) where something is programmed.

    None: there is no twin, or one that does not say what it answers then.
    """
    if any(layer.levels is not None for layer in net.stack):
        return twin.settled if isinstance(twin, Parametric) else None
    return None if twin is None else twin.ideal


def learner_of(
    experiment: Experiment, net: Network, task: Task, model: Callable[..., Tensor] | None, weights: Tensor | None,
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
