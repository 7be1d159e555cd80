"""Separable CMA-ES: an evolution strategy that learns one variance a weight and a common step size from the order of losses.

    x_k  = m + sigma D z_k,   z_k ~ N(0, 1)        k = 1 .. lambda, one pass each, all on the same batch; D = sqrt(C), diagonal
    zw   = sum_i w_i z_i:lambda                    the best mu = lambda / 2, w_i in proportion to ln(mu + 1) - ln i, sum w = 1
    m   <- m + sigma D zw
    p_s <- (1 - c_s) p_s + sqrt( c_s (2 - c_s) mu_w ) zw                                   mu_w = 1 / sum w^2
    p   <- (1 - c_c) p + h sqrt( c_c (2 - c_c) mu_w ) D zw             h = 0 while |p_s| is much longer than by chance, else 1
    C   <- (1 - c) C + c / mu_w ( p^2 + (1 - h) c_c (2 - c_c) C ) + c (1 - 1 / mu_w) sum_i w_i (D z_i:lambda)^2
    sigma <- sigma exp( c_s / d ( |p_s| / E|N(0, 1)| - 1 ) )

m are the weights of the network. The direction given to the optimiser is minus the move of m, so that [optimizer] use = "SGD",
lr = 1 makes that move, and no other does: an experiment with another is refused.

Source: Ros & Hansen, PPSN X, LNCS 5199, 296 (2008), with its constants: c of CMA-ES times (n + 2) / 3, for n weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hil.learner import Programs
from hil.learners.parts.one_pass import OnePass
from hil.learners.parts.probe import Probe, normal, split, trained
from hil.network import Network
from hil.settings import Positive, check
from hil.task import Loss, LossName, Task, as_task


@dataclass(frozen=True)
class CMAESSettings:
    """[learner] of an experiment.

    Args:
        size: sigma at the beginning, in units of the weights.
        population: lambda, of every step, each costs a pass; left out: 4 + 3 ln n, for n weights.
        loss: "cross_entropy" or "mse"; left out: that of the task.
    """

    size: Positive = 0.05
    population: Annotated[int, Field(ge=2)] | None = None
    loss: LossName | None = None

    def __post_init__(self) -> None:
        check(self, "[learner]")


@dataclass(frozen=True)
class Constants:
    """The constants of the strategy, as the module names them.

    Args:
        weights: w, of the best; length: E|N(0, 1)|; mass: mu_w.
    """

    weights: tuple[float, ...]
    length: float
    mass: float
    c_s: float
    damping: float
    c_c: float
    c: float

    @classmethod
    def of(cls, n: int, population: int) -> Constants:
        """Return those for n weights."""
        best = population // 2
        raw = [math.log(best + 1) - math.log(rank) for rank in range(1, best + 1)]
        weights = tuple(value / sum(raw) for value in raw)
        mass = 1 / sum(value**2 for value in weights)
        c_s = (mass + 2) / (n + mass + 3)
        damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1) + c_s
        full = 2 / (mass * (n + math.sqrt(2)) ** 2) + (1 - 1 / mass) * min(1.0, (2 * mass - 1) / ((n + 2) ** 2 + mass))
        length = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
        return cls(weights, length, mass, c_s, damping, 4 / (n + 4), min(1.0, full * (n + 2) / 3))


class CMAES(OnePass):
    """The separable CMA-ES learner.

    Args:
        n: trained weights.
        settings: as in an experiment.
        outputs: of the network.
        loss: of the task.

    State: the buffers `sigma`, `variance` (C, (n,)), `path` (p), `path_sigma` (p_s) and `generation`.
    """

    Settings: ClassVar[type[CMAESSettings]] = CMAESSettings
    programs: ClassVar[Programs] = "losses"
    moved_by: ClassVar[Mapping[str, object]] = {"use": "SGD", "lr": 1.0}
    sigma: Tensor
    variance: Tensor
    path: Tensor
    path_sigma: Tensor
    generation: Tensor

    def __init__(self, n: int, settings: CMAESSettings, outputs: int, loss: Loss) -> None:
        super().__init__()
        self.settings, self.outputs, self.loss = settings, outputs, loss
        self.population = settings.population or 4 + int(3 * math.log(n))
        self.constants = Constants.of(n, self.population)
        self.register_buffer("sigma", torch.tensor(settings.size))
        self.register_buffer("variance", torch.ones(n))
        self.register_buffer("path", torch.zeros(n))
        self.register_buffer("path_sigma", torch.zeros(n))
        self.register_buffer("generation", torch.tensor(0))

    @classmethod
    def build(
        cls, net: Network, settings: CMAESSettings, task: Task | int, rng: torch.Generator, model: object | None = None
    ) -> CMAES:
        """Build it from settings; needs no model of the node."""
        del rng, model
        asked = as_task(task)
        n = sum(weight.numel() for weight in trained(net))
        return cls(n, settings, asked.outputs, asked.lowered(settings.loss))

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """One pass for each of the population, then every `.grad`, overwritten: minus the move of the mean.

        Returns:
            "loss", "accuracy", "overflow", means over all passes; "sigma": the step size.
        """
        net.train()
        net.zero_grad(set_to_none=True)
        scale = self.variance.sqrt()
        with Probe(net, x, label, self.outputs, self.loss) as probe:
            shapes = [weight.shape for weight in probe.weights]
            drawn = [normal(self.variance, rng) for _ in range(self.population)]
            losses = [probe.loss(split(self.sigma * scale * z, shapes)) for z in drawn]
        ranked = sorted(range(self.population), key=losses.__getitem__)  # stable: the earlier wins a tie
        best = torch.stack([drawn[k] for k in ranked[: len(self.constants.weights)]])
        weights = torch.tensor(self.constants.weights, device=best.device)
        mean, square = weights @ best, weights @ best.square()
        for weight, move in zip(probe.weights, split(self.sigma * scale * mean, shapes), strict=True):
            weight.grad = -move
        self._adapt(mean, square, scale)
        return {**probe.metrics, "sigma": float(self.sigma)}

    def _adapt(self, mean: Tensor, square: Tensor, scale: Tensor) -> None:
        """Move paths, variances and the step size.

        Args:
            mean: zw, (n,).
            square: the same of z^2.
            scale: D.
        """
        own = self.constants
        self.generation += 1
        self.path_sigma.mul_(1 - own.c_s).add_(mean, alpha=math.sqrt(own.c_s * (2 - own.c_s) * own.mass))
        longer = float(self.path_sigma.norm()) / own.length
        begun = math.sqrt(1 - (1 - own.c_s) ** (2 * int(self.generation)))
        follows = float(longer / begun < 1.4 + 2 / (len(mean) + 1))
        self.path.mul_(1 - own.c_c).add_(scale * mean, alpha=follows * math.sqrt(own.c_c * (2 - own.c_c) * own.mass))
        kept = 1 - own.c + own.c / own.mass * (1 - follows) * own.c_c * (2 - own.c_c)
        ranked = self.variance * square
        self.variance.mul_(kept).add_(self.path.square(), alpha=own.c / own.mass).add_(ranked, alpha=own.c * (1 - 1 / own.mass))
        self.sigma.mul_(math.exp(own.c_s / own.damping * (longer - 1)))
