"""A trained network in use: weights frozen, examples through the device round after round, the sentinel between batches.

    for found in use(training, split): ...

Nothing is learned and nothing written. A sentinel that would go back to earlier weights is told that there are none: these are
the ones in use.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hil.data.dataset import Split
from hil.sentinel import Look
from hil.torch_device import sent
from hil.training.loop import EVALUATION_BATCH
from hil.training.state import Training


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one pass over all examples.

    Args:
        number: from 1.
        score: by the metric of the task.
        shown: the score for people.
        looks: that the sentinel took meanwhile.
    """

    number: int
    score: float
    shown: str
    looks: tuple[Look, ...]


@torch.no_grad()
def use(training: Training, split: Split, batch: int = EVALUATION_BATCH) -> Iterator[Round]:
    """Use the network for ever; the weights, and the sentinel's state, are those that `training` has.

    Raises:
        Drifted: the sentinel cannot put the node right. Whatever the devices raise.
    """
    looks: list[Look] = []
    if training.sentinel is not None:  # the node may have moved since the weights were made
        _, cost = _predicted(training, next(split.parts(batch))[0])  # not scored: how much a look may cost is known from it
        looks = _looked(training, 0, cost)
    count, metric = 0, training.task.metric
    for number in itertools.count(1):
        outputs = []
        for x, _ in split.parts(batch):
            found, cost = _predicted(training, x)
            outputs.append(found)
            count += 1
            looks += [] if training.sentinel is None else _looked(training, count, cost)
        score = training.task.score(torch.cat(outputs), split.y.to(outputs[0].device))[metric.name]
        yield Round(number, score, metric.shown(score), tuple(looks))
        looks = []


def _predicted(training: Training, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return the outputs, and calls and passes of the devices."""
    calls, passes = training.device_calls, training.device_passes
    found = training.learner.predict(training.net, sent(x, training.net.place))
    return found, (training.device_calls - calls, training.device_passes - passes)


def _looked(training: Training, step: int, cost: tuple[int, int]) -> list[Look]:
    assert training.sentinel is not None  # the caller looked
    look = training.sentinel.after(step, *cost)
    if look is not None and look.back:
        look = training.sentinel.back(None)
    if look is not None and look.fault is not None:
        raise look.fault
    return [] if look is None else [look]
