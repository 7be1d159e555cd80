"""Parameter-exploring policy gradients: differences of the loss along random directions, and a width of its own a weight.

    eps_k ~ N(0, sigma_i^2)             k = 1 .. K directions, two passes each: L_k+ at mu + eps_k, L_k- at mu - eps_k
    g_i     = 1/K sum_k  eps_ki (L_k+ - L_k-) / (2 c^2)                                  c: sigma at the beginning
    m_k     = (L_k+ + L_k-) / 2,   A_k = (m_k - mean m) / std m                          baseline: the other directions
    sigma_i <- sigma_i - eta 1/K sum_k A_k ( eps_ki^2 - sigma_i^2 ) / sigma_i            by a fifth of itself at most

mu are the weights of the network, which the optimiser moves along g. With sigma = c the mean of g is the gradient of the
smoothed loss; where sigma shrinks, g shrinks with sigma^2, as the step size alpha sigma^2 of the paper makes it.

Source: Sehnke et al., Neural Networks 23, 551 (2010), symmetric sampling. Our reading, as the loss is that of one batch: the
baseline comes from the K directions of the step, all on the same batch, and A is divided by their spread. With K = 1 there is
no baseline, and sigma stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hil.learner import Programs
from hil.learners.parts.one_pass import OnePass
from hil.learners.parts.probe import Probe, normal, trained
from hil.network import Network
from hil.settings import Count, NotNegative, Positive, check
from hil.task import Loss, LossName, Task, as_task

MOST = 0.2  # of sigma, that it may change by in one step


@dataclass(frozen=True)
class PEPGSettings:
    """[learner] of an experiment.

    Args:
        size: c, the first sigma of every weight, in units of the weights.
        directions: K, of every step; each costs two passes.
        sigma_rate: eta, of the widths; 0 keeps them.
        loss: "cross_entropy" or "mse"; left out: that of the task.
    """

    size: Positive = 0.02
    directions: Count = 4
    sigma_rate: NotNegative = 0.01
    loss: LossName | None = None

    def __post_init__(self) -> None:
        check(self, "[learner]")


class PEPG(OnePass):
    """The PEPG learner.

    Args:
        weights: the trained parameters, whose shapes the widths have.
        settings: as in an experiment.
        outputs: of the network.
        loss: of the task.

    The widths are the buffers `sigma0`, `sigma1`, ... of the state, in the order of the parameters.
    """

    Settings: ClassVar[type[PEPGSettings]] = PEPGSettings
    programs: ClassVar[Programs] = "losses"

    def __init__(self, weights: Sequence[Tensor], settings: PEPGSettings, outputs: int, loss: Loss) -> None:
        super().__init__()
        self.settings, self.outputs, self.loss, self._count = settings, outputs, loss, len(weights)
        for number, weight in enumerate(weights):
            self.register_buffer(f"sigma{number}", torch.full_like(weight.detach(), settings.size))

    @classmethod
    def build(
        cls, net: Network, settings: PEPGSettings, task: Task | int, rng: torch.Generator, model: object | None = None
    ) -> PEPG:
        """Build it from settings; needs no model of the node."""
        del rng, model
        asked = as_task(task)
        return cls(trained(net), settings, asked.outputs, asked.lowered(settings.loss))

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """2 K passes, then every `.grad`, overwritten, and new widths.

        Returns:
            "loss", "accuracy", "overflow", means over all passes; "sigma": the mean width.
        """
        net.train()
        net.zero_grad(set_to_none=True)
        sigmas, count = [self.get_buffer(f"sigma{number}") for number in range(self._count)], self.settings.directions
        middles = []
        with Probe(net, x, label, self.outputs, self.loss) as probe:
            grads, spread, judged = ([torch.zeros_like(weight) for weight in probe.weights] for _ in range(3))
            for _ in range(count):
                eps = [normal(sigma, rng).mul_(sigma) for sigma in sigmas]
                up, down = probe.loss(eps), probe.loss(eps, -1.0)
                middles.append((up + down) / 2)
                torch._foreach_add_(grads, eps, alpha=(up - down) / (2 * self.settings.size**2 * count))
                wider = [(one.square() - sigma.square()) / sigma for one, sigma in zip(eps, sigmas, strict=True)]
                torch._foreach_add_(spread, wider)
                torch._foreach_add_(judged, wider, alpha=middles[-1] - middles[0])  # small numbers: the sum loses no digits
        for weight, grad in zip(probe.weights, grads, strict=True):
            weight.grad = grad
        self._widen(sigmas, spread, judged, middles)
        mean = float(sum(float(sigma.sum()) for sigma in sigmas) / sum(sigma.numel() for sigma in sigmas))
        return {**probe.metrics, "sigma": mean}

    def _widen(
        self, sigmas: Sequence[Tensor], spread: Sequence[Tensor], judged: Sequence[Tensor], middles: Sequence[float]
    ) -> None:
        """Move the widths.

        Args:
            sigmas: of every weight.
            spread: sum over k of (eps^2 - sigma^2) / sigma.
            judged: the same sum, each term times m_k - m_1.
            middles: m_k.
        """
        count = len(middles)
        mean = sum(middles) / count
        deviation = (sum((middle - mean) ** 2 for middle in middles) / count) ** 0.5
        if deviation == 0.0:
            return
        for sigma, every, weighed in zip(sigmas, spread, judged, strict=True):
            pull = (weighed - every * (mean - middles[0])) * (self.settings.sigma_rate / (deviation * count))
            sigma.sub_(pull.clamp(-MOST * sigma, MOST * sigma))
