"""Simultaneous perturbation: a gradient from differences of the loss, with no model of anything.

    g = 1/K sum_k [ L(theta + c u_k) - L(theta - c u_k) ] / (2 c)  u_k          k = 1 .. K directions

"each" takes one weight after the other instead, u_k a unit vector, and the sum over all: two-sided differences, exact to order
c^2, for two passes a weight.

What is programmed on a device is moved with the weights. At the edge of its range it goes only inwards, so the slope there is
half as steep as it is.

u_k is +-1 for every weight alike (SPSA; then 1/u = u) or standard normal (weight perturbation). Two passes of the device per
direction, antithetic: the even terms of L cancel. The expectation is the gradient to order c^2; the variance grows with the
number of weights n, and falls with K.

"orthogonal" draws the K signs together, from the rows of a Hadamard matrix of order N, the first power of two from n:

    u_kj = s_j H_(r_k) j          s_j = +-1 at random; r_1, r_2, ... the rows in a random order, and anew after N

Each u_k is one that SPSA may draw, and at K = N the mean over u_k u_k^T is the identity: the slopes of other weights do not
disturb that of one, and each of the 2 N passes measures all of them. At K = N / 2 half of the disturbance is left.

Sources: Spall, IEEE Trans. Autom. Control 37, 332 (1992); for normal u, Dembo & Kailath, IEEE Trans. Neural Netw. 1, 58 (1990);
for Hadamard matrices, Bhatnagar et al., ACM Trans. Model. Comput. Simul. 13, 180 (2003), in a fixed order there; at random,
Choromanski et al., ICML 2018, PMLR 80, 970.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hil.learner import Programs
from hil.learners.parts.one_pass import OnePass
from hil.learners.parts.probe import Probe, normal, orthogonal, signs, split
from hil.network import Network
from hil.settings import Count, Positive, check
from hil.task import Loss, LossName, Task, as_loss, as_task

Perturbation = Literal["sign", "orthogonal", "normal", "each"]


@dataclass(frozen=True)
class SPSASettings:
    """[learner] of an experiment.

    Args:
        perturbation: "sign" (SPSA), "orthogonal" (SPSA, directions at right angles), "normal" (weight perturbation), or "each"
            (two-sided differences of each weight by itself).
        size: c, in units of the weights.
        params_size: c of what is programmed on a device, -1 to 1 its range; left out: size.
        directions: K, averaged in every step; each costs two passes. Of "each" there are as many as weights; of "orthogonal"
            the first power of two from the number of weights leaves no disturbance between weights.
        loss: "cross_entropy" or "mse"; left out: that of the task.
    """

    perturbation: Perturbation = "sign"
    size: Positive = 0.01
    params_size: Positive | None = None
    directions: Count = 1
    loss: LossName | None = None

    def __post_init__(self) -> None:
        check(self, "[learner]")


class SPSA(OnePass):
    """The SPSA learner. It has no state of its own: each step draws its directions anew, from the step's generator."""

    Settings: ClassVar[type[SPSASettings]] = SPSASettings
    programs: ClassVar[Programs] = "losses"

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
        """2 K passes, of "each" two a weight, then every `.grad`, overwritten.

        Returns:
            "loss", "accuracy", "overflow": means over all passes.
        """
        net.train()
        net.zero_grad(set_to_none=True)
        with Probe(net, x, label, self.outputs, self.loss) as probe:
            sizes = self._sizes(net, probe.weights)
            grads = [torch.zeros_like(weight) for weight in probe.weights]
            share = 1 if self.settings.perturbation == "each" else self.settings.directions
            for direction in self._directions(probe.weights, rng):
                moved = torch._foreach_mul(direction, sizes)
                slope = (probe.loss(moved) - probe.loss(moved, -1.0)) / (2 * share)
                torch._foreach_add_(grads, torch._foreach_mul(direction, [slope / size for size in sizes]))
        for weight, grad in zip(probe.weights, grads, strict=True):
            weight.grad = grad
        return probe.metrics

    def _sizes(self, net: Network, weights: Sequence[Tensor]) -> list[float]:
        """Return c of each parameter."""
        own, on_devices = self.settings, {id(params) for params in net.programmed}
        return [(own.params_size or own.size) if id(weight) in on_devices else own.size for weight in weights]

    def _directions(self, weights: Sequence[Tensor], rng: torch.Generator) -> Iterator[list[Tensor]]:
        """Yield u_k, a tensor for each parameter."""
        own = self.settings
        if own.perturbation == "orthogonal":
            shapes = [weight.shape for weight in weights]
            for row in orthogonal(own.directions, sum(weight.numel() for weight in weights), rng):
                yield [part.to(weight) for part, weight in zip(split(row, shapes), weights, strict=True)]
            return
        if own.perturbation != "each":
            for _ in range(own.directions):
                yield [self._draw(weight, rng) for weight in weights]
            return
        for number, weight in enumerate(weights):
            for place in range(weight.numel()):
                direction = [torch.zeros_like(one) for one in weights]
                direction[number].view(-1)[place] = 1.0
                yield direction

    def _draw(self, weight: Tensor, rng: torch.Generator) -> Tensor:
        """A direction for `weight`, drawn where the generator is, so that the numbers do not depend on the host's device."""
        if self.settings.perturbation == "normal":
            return normal(weight, rng)
        return signs(weight, rng)
