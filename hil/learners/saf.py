"""Spike accumulation forwarding: only accumulated spikes travel, each product is done once, memory does not grow with T.

    ahat_l[t] = lam ahat_l[t-1] + s_l[t]
    U_l[t]    = lam U_l[t-1] + W ( ahat_{l-1}[t] - lam ahat_{l-1}[t-1] ) + b = lam U_l[t-1] + I_l[t]
    u_l[t]    = U_l[t] - V lam ahat_l[t-1]                the membrane; V = v_th - v_rest
    s_l[t]    = H( u_l[t] - v_th )                        measured; what the host computes from it is compared in the tests

SAF-E  every step:  delta_l[t] = ( W^T delta_{l+1}[t] ) * sg( u_l[t] - v_th ),  dW_l = delta_l[t] ahat_{l-1}[t]^T
                    loss (1/T) L( W_L s_{L-1}[t] + b ); one direction a step, or their sum
SAF-F  last step:   abar = ahat[T] / sum_k lam^k,  m_l = U_l[T] / sum_k lam^k
                    delta_l = ( W^T delta_{l+1} ) * 1[ 0 <= m_l <= V ] / V,  dW_l = delta_l abar_{l-1}^T
                    loss L( W_L abar + b )

The first synapse sees the input itself; of a sequence its accumulation xhat[t] = lam xhat[t-1] + x[t] (SAF-E), and the mean of
x[t] with the weights of abar (SAF-F). Both need the weights at the place of the error (W^T), on the host; of the devices the
spikes alone. Our reading: the clip of SAF-F is that of the spike representation; b is updated with delta, as in OTTT.

Source: Saiin et al., arXiv:2310.02772 (TMLR 2024); Xiao et al., OTTT, NeurIPS 2022 (sg, loss); Meng et al., CVPR 2022 (clip).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hil.learners.parts.loss import check_scores
from hil.learners.parts.neuron_model import bump
from hil.learners.parts.rate_learner import OnlineLearner, OnlineSettings, RateLearner, Update
from hil.learners.parts.shown import Shown
from hil.learners.parts.spiking_pass import Overflow, chunks, dropout_masks, masked
from hil.learners.parts.transport import carried
from hil.network import Layer, Network, accumulate
from hil.neuron import NeuronModel


@dataclass(frozen=True)
class SAFESettings(OnlineSettings):
    """Settings of a rule that moves the weights at every step of time, as SAF-E does unless `update` says otherwise."""

    update: Update = "per_step"


class SAFE(OnlineLearner):
    """SAF-E. Its metrics have the firing rates "rate_layer0", ..., too."""

    Settings: ClassVar[type[SAFESettings]] = SAFESettings
    summing = True

    @torch.no_grad()
    def _run(
        self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator, changing: bool
    ) -> Iterator[Mapping[str, float]]:
        net.train()
        masks = dropout_masks(self.widths, len(x), self.settings.dropout, rng, x)
        hidden = [_Accumulated(self.neuron) for _ in net.stack[:-1]]
        over, share = Overflow(net), 1 / self.settings.time_steps
        loss, total, first = 0.0, torch.zeros(()), torch.zeros(())
        shown = Shown(x, self.settings.time_steps)
        inputs, alone = shown.traces(self.neuron.leak), changing or shown.changes
        net.zero_grad(set_to_none=True)
        for part in chunks(
            net, x, self.settings.time_steps, 1 if changing else self.settings.chunk, masks=masks, changing=changing
        ):
            over.add(part)
            for t in range(len(part.spikes[0])):
                if changing:
                    net.zero_grad(set_to_none=True)
                for one, drives, spikes in zip(hidden, part.drives, part.spikes, strict=True):
                    one.advance(drives[t], spikes[t])
                scores = net.stack[-1].synapse(masked(part.spikes[-1][t], masks, -1))
                check_scores(scores, self.classes)
                error, metrics = self.loss.judge(scores, label)
                loss, total = loss + metrics["loss"] * share, total + scores
                delta = self._back(net, hidden, error.mul_(share), masks)
                first = delta if alone else first + delta  # an x that stays: the products of all steps are one
                entered = next(inputs)
                if alone or hidden[0].steps == self.settings.time_steps:
                    accumulate(net.stack[0].synapse, entered, first)
                right = float(total.argmax(1).eq(label).float().mean())
                yield {"loss": loss / (share * hidden[0].steps), "accuracy": right, "overflow": over.share, **_rates(hidden)}

    def _back(self, net: Network, hidden: Sequence[_Accumulated], error: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Fills the gradients of this step above the first synapse; dL/dpre of the first."""
        delta = error
        for number in range(len(hidden), 0, -1):
            one, layer = hidden[number - 1], net.stack[number - 1]
            delta = carried(net.stack[number].synapse, masked(one.sum, masks, number - 1), delta)
            delta = masked(delta, masks, number - 1) * bump(one.membrane - self.neuron.v_th, self.settings.sharpness)
            delta = scaled(delta, layer)
        return delta


class SAFF(RateLearner):
    """SAF-F. It predicts from the weighted rates, as in training."""

    weighted = summing = True

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one pass, then one product a layer; fill every `.grad`.

        Returns:
            "loss", "accuracy", "overflow", and the firing rates "rate_layer0", ..., recent steps weighing more.
        """
        net.train()
        masks = dropout_masks(self.widths, len(x), self.settings.dropout, rng, x)
        settings, over = self.settings, Overflow(net)
        totals = WeightedSums(self.neuron.leak)
        for part in chunks(net, x, settings.time_steps, settings.chunk, masks=masks):
            over.add(part)
            totals.add(part.drives, part.spikes)
            del part  # given back before the next chunk is taken
        weight = self.neuron.memory(settings.time_steps)
        rate = [total / weight for total in totals.spikes]
        scores = net.stack[-1].synapse(masked(rate[-1], masks, -1))
        check_scores(scores, self.classes)
        delta, metrics = self.loss.judge(scores, label)
        net.zero_grad(set_to_none=True)
        for number in range(len(rate), 0, -1):
            delta = carried(net.stack[number].synapse, masked(rate[number - 1], masks, number - 1), delta)
            mean = totals.drives[number - 1] / weight
            inside = mean.ge(0) & mean.le(self.neuron.quantum)
            delta = scaled(masked(delta, masks, number - 1) * inside / self.neuron.quantum, net.stack[number - 1])
        accumulate(net.stack[0].synapse, Shown(x, settings.time_steps).mean(self.neuron.leak), delta)
        return {**metrics, "overflow": over.share, **{f"rate_layer{n}": float(one.mean()) for n, one in enumerate(rate)}}


class WeightedSums:
    """Sums over time, a step weighing lam less for each step back: ahat (spikes) and U (drives) of every hidden layer."""

    def __init__(self, leak: float) -> None:
        self._leak = leak
        self.drives: list[Tensor] = []
        self.spikes: list[Tensor] = []

    def add(self, drives: Sequence[Tensor], spikes: Sequence[Tensor]) -> None:
        """Add some more steps, tensors (steps, batch, n)."""
        steps = len(spikes[0])
        weights = self._leak ** torch.arange(steps - 1, -1, -1, dtype=spikes[0].dtype, device=spikes[0].device)
        self.drives = self._added(self.drives, drives, weights, steps)
        self.spikes = self._added(self.spikes, spikes, weights, steps)

    def _added(self, totals: list[Tensor], parts: Sequence[Tensor], weights: Tensor, steps: int) -> list[Tensor]:
        fresh = [self._sum(part, weights) for part in parts]
        if not totals:
            return fresh
        return [total.mul_(self._leak**steps).add_(one) for total, one in zip(totals, fresh, strict=True)]

    def _sum(self, part: Tensor, weights: Tensor) -> Tensor:
        if part.stride(0) == 0:  # a constant current, shown once
            return part[0] * weights.sum()
        return (weights @ part.flatten(1)).view(part.shape[1:])


class _Accumulated:
    """U, ahat and u of a hidden layer, (batch, n)."""

    def __init__(self, neuron: NeuronModel) -> None:
        self.neuron = neuron
        self.total = self.sum = self.membrane = self.count = torch.zeros(())
        self.steps = 0

    def advance(self, drive: Tensor, fired: Tensor) -> None:
        """One step of time: I[t] sent, s[t] measured."""
        lam = self.neuron.leak
        self.total = self.total * lam + drive
        self.membrane = self.total - self.sum * (self.neuron.quantum * lam)
        self.sum = self.sum * lam + fired
        self.count = self.count + fired
        self.steps += 1


def _rates(hidden: Sequence[_Accumulated]) -> dict[str, float]:
    return {f"rate_layer{number}": float(one.count.mean()) / one.steps for number, one in enumerate(hidden)}


def scaled(delta: Tensor, layer: Layer) -> Tensor:
    """dL/ddrive -> dL/dpre."""
    return delta if layer.encode is None or layer.encode.gain == 1 else delta * layer.encode.slope(delta)
