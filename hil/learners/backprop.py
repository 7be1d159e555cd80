"""Backpropagation through a model of the node: the upper reference.

    out_l = decode( model( encode( pre_l ) ) )       forward and backward, both through the model
    dW    = dL/dW                                    by automatic differentiation of the whole chain

A step never asks the device: it trains the network that the model (normally the Twin's `ideal`, without noise or drift)
believes in. `predict` goes through the device. The gap between training loss and validation score is therefore the price of
the model's errors, which is what this reference is there to show. A drive that the device would refuse is refused here too.

Source: Rumelhart, Hinton & Williams, Nature 323, 533 (1986); in-silico training as in Wright et al., Nature 601, 549 (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from hil.learners.dfa import needed
from hil.learners.parts.loss import check_scores
from hil.learners.parts.one_pass import LossSettings, OnePass
from hil.learners.parts.transport import modelled
from hil.network import Network, Trace
from hil.task import Loss, LossName, Task, as_loss, as_task

Model = Callable[[Tensor], Tensor]


class Backprop(OnePass):
    """Backpropagation through a model alone: the model answers in place of the node, forwards too.

    Args:
        model: drive -> reading of the node, differentiable. It has no state of its own.
    """

    Settings: ClassVar[type[LossSettings]] = LossSettings

    def __init__(self, model: Model, outputs: int, loss: Loss | LossName = "cross_entropy") -> None:
        super().__init__()
        self.model, self.outputs, self.loss = model, outputs, as_loss(loss)

    @classmethod
    def build(
        cls, net: Network, settings: LossSettings, task: Task | int, rng: torch.Generator, model: Model | None = None
    ) -> Backprop:
        """Build it from settings and the model of the node.

        Raises:
            ConfigError: there is no model of the node.
        """
        del net, rng
        asked = as_task(task)
        return cls(needed(model, "backprop"), asked.outputs, asked.lowered(settings.loss))

    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Run the model forwards and back once, then overwrite every `.grad`; "loss", "accuracy", "overflow"."""
        del rng  # nothing random
        net.train()
        with torch.enable_grad():
            trace = self.modelled(net, x)
            scores = trace.outputs[-1]
            check_scores(scores, self.outputs)
            loss = self.loss.of(scores, label)
        params = [p for p in net.parameters() if p.requires_grad]
        net.zero_grad(set_to_none=True)
        for param, grad in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
            param.grad = grad
        metrics = self.loss.judge(scores.detach(), label).metrics
        return {**metrics, "overflow": net.overflow(trace)}

    def modelled(self, net: Network, x: Tensor) -> Trace:
        """The pass that the model predicts, as a graph."""
        return modelled(net, self.model, x)
