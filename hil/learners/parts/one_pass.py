"""Common part of learners that ask the network once: for a step, and for a prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hil.learners.parts.loss import check_scores
from hil.learners.parts.projection import Projection
from hil.network import Layer, Network, Trace, fill
from hil.settings import check
from hil.task import Loss, LossName


@dataclass(frozen=True)
class LossSettings:
    """[learner] of an experiment.

    Args:
        loss: what is made small; left out: that of the task.
    """

    loss: LossName | None = None

    def __post_init__(self) -> None:
        check(self, "[learner]")


class OnePass(nn.Module):
    """A learner that predicts by one pass through the device."""

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, outputs): the readout."""
        net.eval()
        return net.forward(x).outputs[-1]


class DirectFeedback(OnePass, ABC):
    """The error at the readout goes to every hidden layer through a fixed matrix; a subclass says by which slope there."""

    loss: Loss
    projection: Projection

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one measured pass, then overwrite every `.grad`; "loss", "accuracy", "overflow"."""
        del rng  # nothing random
        net.train()
        trace = net.forward(x)
        check_scores(trace.outputs[-1], self.projection.outputs)
        error, metrics = self.loss.judge(trace.outputs[-1], label)
        fill(net, trace, [*(self._delta(number, layer, trace, error) for number, layer in enumerate(net.stack[:-1])), error])
        metrics["overflow"] = net.overflow(trace)
        return metrics

    @abstractmethod
    def _delta(self, number: int, layer: Layer, trace: Trace, error: Tensor) -> Tensor:
        """dL/dpre of a hidden layer, from dL/do."""
