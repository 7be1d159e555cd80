"""Node perturbation: every node and every programmed parameter learns from its own noise and one loss that all are told.

    pass 0      L_i, the loss of example i;  dL/do at the readout, exact
    pass k      pre_l + c xi_l,  p + c_p u  for all layers at once: L_i,k          xi, u = +-1, k = 1 .. K
    delta_l,i = 1/K sum_k ( L_i,k - L_i ) / c  xi_l,i,k                            dW_l = delta_l^T input_l / batch
    dL/dp     = 1/K sum_k mean_i( L_i,k - L_i ) / c_p  u_k

xi differs from example to example; u does not, as nobody programs a device anew for each. A weight needs the noise of its own
node and its own input (their product is its eligibility), and the loss: nothing is carried backwards, and the device is a black
box. One pass a direction and one for all of them, where SPSA takes two each; the noise of dW grows with the number of nodes,
that of SPSA with the number of weights. Unbiased to order c^2, as xi and u are symmetric.

Sources: Fiete & Seung, Phys. Rev. Lett. 97, 048104 (2006), nodes; McCaughan et al., APL Mach. Learn. 1, 026118 (2023)
(multiplexed gradient descent), parameters of hardware, one loss for all, and a difference from an unperturbed pass. Our
reading: both at once, and the readout, which the host computes, by its exact gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hil.learner import Programs
from hil.learners.parts.loss import check_scores
from hil.learners.parts.one_pass import OnePass
from hil.learners.parts.probe import signs
from hil.network import Network, fill
from hil.settings import Count, Positive, check
from hil.task import Loss, LossName, Task, as_task


@dataclass(frozen=True)
class NodePerturbationSettings:
    """[learner] of an experiment.

    Args:
        size: c, in units of the pre-activations.
        params_size: c_p of what is programmed on a device, -1 to 1 its range; left out: size.
        directions: K, averaged in every step; each costs a pass, and all of them one more.
        loss: "cross_entropy" or "mse"; left out: that of the task.
    """

    size: Positive = 0.05
    params_size: Positive | None = None
    directions: Count = 1
    loss: LossName | None = None

    def __post_init__(self) -> None:
        check(self, "[learner]")


class NodePerturbation(OnePass):
    """The node perturbation learner. It has no state of its own."""

    Settings: ClassVar[type[NodePerturbationSettings]] = NodePerturbationSettings
    programs: ClassVar[Programs] = "losses"

    def __init__(self, settings: NodePerturbationSettings, outputs: int, loss: Loss) -> None:
        super().__init__()
        self.settings, self.outputs, self.loss = settings, outputs, loss

    @classmethod
    def build(
        cls, net: Network, settings: NodePerturbationSettings, task: Task | int, rng: torch.Generator,
        model: object | None = None,
    ) -> NodePerturbation:  # fmt: skip
        """Build it from settings; needs no model of the node."""
        del net, rng, model
        asked = as_task(task)
        return cls(settings, asked.outputs, asked.lowered(settings.loss))

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make 1 + K passes, then overwrite every `.grad`.

        Returns:
            "loss", "accuracy", "overflow", of the pass without noise.
        """
        net.train()
        trace = net.forward(x)
        check_scores(trace.outputs[-1], self.outputs)
        error, metrics = self.loss.judge(trace.outputs[-1], label)
        still, size = self.loss.each(trace.outputs[-1], label), self.settings.size
        on_devices = net.programmed
        deltas = [torch.zeros_like(pre) for pre in trace.pre[:-1]]
        slopes = [torch.zeros_like(params) for params in on_devices]
        for _ in range(self.settings.directions):
            noise, turns = [signs(pre, rng) for pre in trace.pre[:-1]], [signs(params, rng) for params in on_devices]
            apart = self._disturbed(net, x, label, noise, turns) - still
            share = apart / (size * self.settings.directions * len(x))
            for delta, xi in zip(deltas, noise, strict=True):
                delta.add_(xi * share.view(-1, *[1] * (xi.ndim - 1)))
            for slope, u in zip(slopes, turns, strict=True):
                slope.add_(u, alpha=float(apart.mean()) / ((self.settings.params_size or size) * self.settings.directions))
        fill(net, trace, [*deltas, error])
        for params, slope in zip(on_devices, slopes, strict=True):
            params.grad = slope
        return {**metrics, "overflow": net.overflow(trace)}

    def _disturbed(self, net: Network, x: Tensor, label: Tensor, noise: list[Tensor], turns: list[Tensor]) -> Tensor:
        """Make one pass with noise, and return the loss of each example; what is programmed is put back whatever happens."""
        on_devices = net.programmed
        centre, step = [params.detach().clone() for params in on_devices], self.settings.params_size or self.settings.size
        try:
            for params, u in zip(on_devices, turns, strict=True):
                params.data.add_(u, alpha=step)
            h = x
            for layer, xi in zip(net.stack[:-1], noise, strict=True):
                h = layer.measure(layer.synapse(h).add(xi, alpha=self.settings.size))
            return self.loss.each(net.stack[-1].synapse(h), label)
        finally:
            for params, middle in zip(on_devices, centre, strict=True):
                params.data.copy_(middle)
