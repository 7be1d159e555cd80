"""Common part of learners that ask the network once: for a step, and for a prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hil.learners.parts.loss import check_scores
from hil.learners.parts.projection import Projecting
from hil.network import Layer, Network, fill
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


class DirectFeedback(OnePass, Projecting, ABC):
    """The error at the readout goes to every hidden layer through a fixed projection; a subclass says by which slope there."""

    loss: Loss

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one measured pass, then overwrite every `.grad`; "loss", "accuracy", "overflow"."""
        del rng  # nothing random
        net.train()
        trace = net.forward(x)
        check_scores(trace.outputs[-1], self.projection.outputs)
        error, metrics = self.loss.judge(trace.outputs[-1], label)
        projected = self.projection.onto(error)
        hidden = zip(net.stack[:-1], trace.pre[:-1], projected, strict=True)
        fill(net, trace, [*(self._delta(layer, pre, sent) for layer, pre, sent in hidden), error])
        metrics["overflow"] = net.overflow(trace)
        return metrics

    @abstractmethod
    def _delta(self, layer: Layer, pre: Tensor, projected: Tensor) -> Tensor:
        """dL/dpre of a hidden layer, from its pre-activation and the error that was projected onto it, which may be changed."""
