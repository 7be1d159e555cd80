"""Warnings about a result whose numbers are all finite but suspicious, and what to change.

loss       the mean loss of the last epoch is above 10 ln(classes), ten times that of a uniform guess, or above the first one's;
           of numbers above ten times that of their mean
chance     validation accuracy <= p + 3 sqrt(p (1 - p) / n), p the share of the most frequent class among the n examples;
           by another metric not better than the best constant answer
range      at chance, and the drives of a layer use less than 30 % of the range of its node
neurons    the learner follows the membranes of other neurons than the chip says it has
overflow   more than a fifth of the pre-activations were folded or clipped in the last epoch
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from hil.data.dataset import Dataset
from hil.errors import RunError
from hil.files import loads, read_text, there
from hil.learner import Learner
from hil.network import Network
from hil.neuron import NeuronModel
from hil.run.folder import MOST_METRICS_BYTES, RunFolder
from hil.task import Task, task_of
from hil.training.state import Training

BELIEVED = {"leak", "v_th", "v_rest"}  # what [learner] may say of the neurons
DONE = {"fold": "folded", "clip": "clipped"}
ABSURD, RISEN, ERRORS, OVERFLOW, NARROW = 10.0, 1.05, 3.0, 0.2, 0.3
BLIND = "no better than "  # how a warning of a result at chance begins


def warnings(training: Training, folder: RunFolder) -> list[str]:
    """Sentences about a run that is done, "what; do this"; none if all is well."""
    beware, score = list(misbelieved(training.net, training.learner)), training.best.score
    if score is not None:
        beware += found(_epochs(folder), training.data, score, training.policy, training.task)
    return beware


def misbelieved(net: Network, learner: Learner) -> Iterator[str]:
    """Say what the learner believes of the neurons that their chip says otherwise; known before the first step."""
    neuron = getattr(learner, "neuron", None)
    if not isinstance(neuron, NeuronModel):
        return
    for number, layer in enumerate(net.stack[:-1]):
        said = None if layer.device is None else layer.device.spec.neurons
        wrong = [name for name in (said or neuron).table() if getattr(said or neuron, name) != getattr(neuron, name)]
        if said is not None and wrong:
            mine, chip = (", ".join(f"{name} {getattr(one, name)}" for name in wrong) for one in (neuron, said))
            ours = {*wrong} <= BELIEVED
            todo = f"take {', '.join(wrong)} out of [learner]" if ours else "choose a learner that follows these"
            yield (f"the learner follows neurons with {mine} in layer {number}, and the chip says {chip}; {todo}")
            return


def found(epochs: list[Mapping[str, Any]], data: Dataset, score: float, policy: str, task: Task | None = None) -> Iterator[str]:
    """The same from its parts.

    Args:
        epochs: of training, each with its mean "loss" and share of "overflow", in order.
        data: that it was trained on.
        score: on the validation split, of the best epoch.
        policy: of the encoding.
        task: what was learned; None: what the data ask for.
    """
    task = task or task_of(data.train.y, data.classes)
    losses = [float(epoch["loss"]) for epoch in epochs if "loss" in epoch]
    classes = task.kind == "classes"
    guess = math.log(max(2, task.outputs)) if classes else task.guess(data.train.y)["loss"]
    blind = "a uniform guess" if classes else "their mean"
    slower = "lower [optimizer] lr, or the scale of the feedback"
    if losses and not losses[-1] <= ABSURD * guess:
        yield (
            f"the training loss of the last epoch is {losses[-1]:.3g}, {losses[-1] / guess:,.3g} times that of {blind}, "
            f"as the weights ran away; {slower}"
        )
    elif len(losses) > 1 and losses[-1] > RISEN * losses[0]:
        yield f"the training loss rose from {losses[0]:.3g} to {losses[-1]:.3g}; {slower}"
    yield from _by_chance(data.validation.y, score, task)
    over = float(epochs[-1].get("overflow", 0.0)) if epochs else 0.0
    if over > OVERFLOW and policy in DONE:
        yield (
            f"{over:.0%} of the pre-activations of the last epoch were {DONE[policy]}, as they lie beyond the range of the "
            "node; lower [encode] gain, or the first weights"
        )


def _by_chance(target: Tensor, score: float, task: Task) -> Iterator[str]:
    """Say so if a constant answer does as well."""
    target = task.targets(target)
    metric, size = task.metric, f"{len(target):,} validation examples"
    todo = "train longer, raise [optimizer] lr, or change the drives: gain and offset of [encode]"
    if metric.name != "accuracy":
        blind = task.guess(target)[metric.name]
        if not metric.better(score, blind):
            seen = f"{metric.said(score)} on {size}, where that gives {metric.shown(blind)}"
            yield f"{BLIND}a constant answer: {seen}; {todo}"
        return
    share = float(torch.bincount(target).max()) / len(target)
    error = math.sqrt(share * (1 - share) / len(target))
    if score <= share + ERRORS * error:
        yield (
            f"{BLIND}chance: {score:.1%} of {size}, where the most frequent class alone gives {share:.1%} "
            f"(standard error {error:.1%}); {todo}"
        )


def narrow(said: Sequence[str], uses: Sequence[float | None]) -> str:
    """Return a warning of a result at chance whose nodes are hardly driven, or "".

    >>> narrow(["no better than chance: 11 %"], [0.2, 0.31, None])
    'the drives use little of the range of the node, 20 % in layer 1: raise [encode] gain, or move its offset'

    Args:
        said: warnings of `found`.
        uses: of each layer, the share of the range of its node that its drives use, or None.
    """
    few = [(layer, use) for layer, use in enumerate(uses, 1) if use is not None and use < NARROW]
    if not few or not any(line.startswith(BLIND) for line in said):
        return ""
    where = ", ".join(f"{100 * use:.0f} % in layer {layer}" for layer, use in few)
    return f"the drives use little of the range of the node, {where}: raise [encode] gain, or move its offset"


def _epochs(folder: RunFolder) -> list[Mapping[str, Any]]:
    """The lines of metrics.jsonl about training, those that can be read."""
    lines: list[Mapping[str, Any]] = []
    path = folder.path / "metrics.jsonl"
    for text in read_text(path, MOST_METRICS_BYTES).splitlines() if there(path) else ():
        with suppress(RunError):
            line = loads(text, str(path))
            if isinstance(line, dict) and line.get("split") == "train":
                lines.append(line)
    return lines
