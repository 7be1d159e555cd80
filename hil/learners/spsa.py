"""Simultaneous perturbation: a gradient from differences of the loss, with no model of anything.

    g = 1/K sum_k [ L(theta + c u_k) - L(theta - c u_k) ] / (2 c)  u_k          k = 1 .. K directions

u_k is +-1 for every weight alike (SPSA; then 1/u = u) or standard normal (weight perturbation). Two passes of the device per
direction, antithetic: the even terms of L cancel. The expectation is the gradient to order c^2; the variance grows with the
number of weights, and falls with K.

Source: Spall, IEEE Trans. Autom. Control 37, 332 (1992); for normal u, Dembo & Kailath, IEEE Trans. Neural Netw. 1, 58 (1990).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hil.learners.parts.one_pass import OnePass
from hil.learners.parts.probe import Probe, normal
from hil.network import Network
from hil.settings import Count, Positive, check
from hil.task import Loss, LossName, Task, as_loss, as_task

Perturbation = Literal["sign", "normal"]


@dataclass(frozen=True)
class SPSASettings:
    """[learner] of an experiment.

    Args:
        perturbation: "sign" (SPSA) or "normal" (weight perturbation).
        size: c, in units of the weights.
        directions: K, averaged in every step; each costs two passes.
        loss: "cross_entropy" or "mse"; left out: that of the task.
    """

    perturbation: Perturbation = "sign"
    size: Positive = 0.01
    directions: Count = 1
    loss: LossName | None = None

    def __post_init__(self) -> None:
        check(self, "[learner]")


class SPSA(OnePass):
    """The SPSA learner. It has no state of its own: each step draws its directions anew, from the step's generator."""

    Settings: ClassVar[type[SPSASettings]] = SPSASettings

    def __init__(self, settings: SPSASettings, outputs: int, loss: Loss | None = None) -> None:
        super().__init__()
        self.settings, self.outputs, self.loss = settings, outputs, loss or as_loss(settings.loss or "cross_entropy")

    @classmethod
    def build(
        cls, net: Network, settings: SPSASettings, task: Task | int, rng: torch.Generator, model: object | None = None
    ) -> SPSA:
        """Build it from settings; needs no model of the node."""
        del net, rng, model
        asked = as_task(task)
        return cls(settings, asked.outputs, asked.lowered(settings.loss))

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """2 K passes, then every `.grad`, overwritten; "loss", "accuracy", "overflow", means over all passes."""
        net.train()
        size, count = self.settings.size, self.settings.directions
        net.zero_grad(set_to_none=True)
        with Probe(net, x, label, self.outputs, self.loss) as probe:
            grads = [torch.zeros_like(weight) for weight in probe.weights]
            for _ in range(count):
                direction = [self._draw(weight, rng) for weight in probe.weights]
                up, down = probe.loss(direction, size), probe.loss(direction, -size)
                torch._foreach_add_(grads, direction, alpha=(up - down) / (2 * size * count))
        for weight, grad in zip(probe.weights, grads, strict=True):
            weight.grad = grad
        return probe.metrics

    def _draw(self, weight: Tensor, rng: torch.Generator) -> Tensor:
        """A direction for `weight`, drawn where the generator is, so that the numbers do not depend on the host's device."""
        if self.settings.perturbation == "normal":
            return normal(weight, rng)
        return torch.randint(0, 2, weight.shape, generator=rng, device=rng.device).to(weight).mul_(2).sub_(1)
