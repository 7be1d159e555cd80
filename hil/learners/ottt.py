"""Online training through time: the reference of SAF-E, written as its authors do, by automatic differentiation of each step.

    u[t] = lam ( u[t-1] - V s[t-1] ) + I[t]         u[t-1] is a constant: no path through time
    ahat[t] = lam ahat[t-1] + s[t]
    value of a synapse: of s_{l-1}[t];  gradient of a synapse: at ahat_{l-1}[t]           two products a layer and step
    dahat_l[t] / du_l[t] = sg( u_l[t] - v_th );  loss (1/T) L( o[t] )

The first synapse sees the input itself; of a sequence its trace xhat[t] = lam xhat[t-1] + x[t]. OTTT-A sums the directions of
all steps, OTTT-O moves after each. Needs W^T on the host.

Source: Xiao et al., NeurIPS 2022, arXiv:2210.04195.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hil.learners.parts.loss import check_scores
from hil.learners.parts.neuron_model import Membrane, bump
from hil.learners.parts.rate_learner import OnlineLearner, OnlineSettings, Update
from hil.learners.parts.shown import Shown
from hil.learners.parts.spiking_pass import Overflow, chunks, dropout_masks, masked
from hil.network import Network, statistics_kept


@dataclass(frozen=True)
class OTTTOSettings(OnlineSettings):
    """Settings as those of SAF-E; update is "per_step"."""

    update: Update = "per_step"


class OTTT(OnlineLearner):
    """The base of both forms, OTTT-A and OTTT-O; the settings say which."""

    @torch.no_grad()
    def _run(
        self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator, changing: bool
    ) -> Iterator[Mapping[str, float]]:
        net.train()
        masks = dropout_masks(self.widths, len(x), self.settings.dropout, rng, x)
        depth, over = len(net.stack) - 1, Overflow(net)
        u, fired, ahat = ([torch.zeros(()) for _ in range(depth)] for _ in range(3))
        membranes = [Membrane(self.neuron) for _ in range(depth)]
        losses, total, step = 0.0, torch.zeros(()), 0
        inputs = Shown(x, self.settings.time_steps).traces(self.neuron.leak)
        net.zero_grad(set_to_none=True)
        for part in chunks(net, x, self.settings.time_steps, 1, masks=masks, changing=changing):
            over.add(part)
            if changing:
                net.zero_grad(set_to_none=True)
            for n, (drives, spikes) in enumerate(zip(part.drives, part.spikes, strict=True)):
                u[n] = membranes[n].advance(drives[0], spikes[0])
                fired[n], ahat[n] = spikes[0], self.neuron.leak * ahat[n] + spikes[0]
            loss, scores = self._differentiated(net, next(inputs), label, u, fired, ahat, masks)
            losses, total, step = losses + loss, total + scores, step + 1
            right = float(total.argmax(1).eq(label).float().mean())
            yield {"loss": losses * self.settings.time_steps / step, "accuracy": right, "overflow": over.share}

    def _differentiated(
        self, net: Network, x: Tensor, label: Tensor, u: Sequence[Tensor], fired: Sequence[Tensor], ahat: Sequence[Tensor],
        masks: Sequence[Tensor],
    ) -> tuple[float, Tensor]:  # fmt: skip
        """Adds the gradient of one step to `.grad`; its loss, and the scores."""
        with torch.enable_grad(), statistics_kept(net):
            h = x
            for n, layer in enumerate(net.stack[:-1]):
                z = layer.synapse(h)
                drive = z if layer.encode is None else z * layer.encode.slope(z)
                h = masked(
                    ahat[n] + (drive - drive.detach()) * bump(u[n] - self.neuron.v_th, self.settings.sharpness), masks, n
                )
            z = net.stack[-1].synapse(h)
            scores = z + (net.stack[-1].synapse(masked(fired[-1], masks, -1)) - z).detach()
            check_scores(scores, self.classes)
            loss = self.loss.of(scores, label) / self.settings.time_steps
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), scores.detach()


class OTTTA(OTTT):
    """OTTT with one direction a batch."""


class OTTTO(OTTT):
    """OTTT with one direction a time step."""

    Settings: ClassVar[type[OnlineSettings]] = OTTTOSettings
