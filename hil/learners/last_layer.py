"""Training of the readout only; the hidden layers stay as they were drawn: the lower reference.

    dW_L = e^T input_L       exact; the device is a fixed random feature map, as in an extreme learning machine

What another learner gains over this is what training the hidden layers is worth on this node. Hidden synapses are frozen
(requires_grad = False) when the learner is built. The device is asked once per layer and step.

Source: Huang, Zhu & Siew, Neurocomputing 70, 489 (2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from hil.learners.parts.loss import check_scores
from hil.learners.parts.one_pass import LossSettings, OnePass
from hil.network import Network, accumulate
from hil.task import Loss, LossName, Task, as_loss, as_task


class LastLayer(OnePass):
    """The learner that trains the readout alone; it has no state of its own."""

    Settings: ClassVar[type[LossSettings]] = LossSettings

    def __init__(self, outputs: int, loss: Loss | LossName = "cross_entropy") -> None:
        super().__init__()
        self.outputs, self.loss = outputs, as_loss(loss)

    @classmethod
    def build(
        cls, net: Network, settings: LossSettings, task: Task | int, rng: torch.Generator, model: object | None = None
    ) -> LastLayer:
        """Build it for `net`, whose hidden synapses are frozen; needs no model of the node."""
        del rng, model
        for layer in net.stack[:-1]:
            layer.synapse.requires_grad_(False)
        asked = as_task(task)
        return cls(asked.outputs, asked.lowered(settings.loss))

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one pass, then overwrite `.grad` of the readout; "loss", "accuracy", "overflow"."""
        del rng  # nothing random
        net.train()
        trace = net.forward(x)
        check_scores(trace.outputs[-1], self.outputs)
        error, metrics = self.loss.judge(trace.outputs[-1], label)
        net.zero_grad(set_to_none=True)
        accumulate(net.stack[-1].synapse, trace.inputs[-1], error)
        return {**metrics, "overflow": net.overflow(trace)}
