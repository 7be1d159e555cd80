"""Differentiation on spike representation: the reference of SAF-F. The rates are measured, the gradient is that of a clip.

    a_l = sum_t lam^(T-t) s_l[t] / sum_t lam^(T-t)         measured
    a_l ~ clip( ( W a_{l-1} + b ) / V, 0, 1 )              differentiated, by automatic differentiation
    loss L( W_L a + b )

Needs W^T on the host.

Source: Meng et al., CVPR 2022, arXiv:2205.00459; in units of one spike, where the paper's spike is V high.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from hil.learners.adfa import Model
from hil.learners.loss import Mixed, check_scores
from hil.learners.saf import SAFSettings, WeightedSums, dropped_widths
from hil.learners.spiking_pass import Overflow, chunks, dropout_masks, masked, rates, traced
from hil.network import Network, Trace, statistics_kept


class SpikeRepresentation(nn.Module):
    """Args: settings, classes: labels. widths: of the hidden layers, for dropout. It has no state of its own."""

    Settings: ClassVar[type[SAFSettings]] = SAFSettings

    def __init__(self, settings: SAFSettings, classes: int, widths: Sequence[int] = ()) -> None:
        super().__init__()
        self.settings, self.classes, self.widths = settings, classes, tuple(widths)
        self.neuron, self.loss = settings.neuron, Mixed(settings.mse_share)

    @classmethod
    def build(
        cls, net: Network, settings: SAFSettings, classes: int, rng: torch.Generator, model: Model | None = None
    ) -> SpikeRepresentation:
        """For `net`, from settings."""
        del rng, model
        return cls(settings, classes, dropped_widths(net, settings))

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """One pass, and one way back; "loss", "accuracy", "overflow"."""
        net.train()
        masks = dropout_masks(self.widths, len(x), self.settings.dropout, rng, x)
        totals, over = WeightedSums(self.neuron.leak), Overflow(net)
        for part in chunks(net, x, self.settings.time_steps, self.settings.chunk, masks=masks):
            over.add(part)
            totals.add(part.drives, part.spikes)
        rate = [total / self.neuron.memory(self.settings.time_steps) for total in totals.spikes]
        net.zero_grad(set_to_none=True)
        with torch.enable_grad(), statistics_kept(net):
            h = x
            for number, layer in enumerate(net.stack[:-1]):
                pre = layer.synapse(h)
                drive = pre if layer.encode is None else layer.encode(pre)
                clipped = (drive / self.neuron.quantum).clamp(0, 1)
                h = masked(rate[number] + (clipped - clipped.detach()), masks, number)
            scores = net.stack[-1].synapse(h)
            check_scores(scores, self.classes)
            self.loss.of(scores, label).backward()  # type: ignore[no-untyped-call]
        return {**self.loss.judge(scores.detach(), label).metrics, "overflow": over.share}

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, classes): the readout of the weighted rates."""
        net.eval()
        settings = self.settings
        scores: Tensor = net.stack[-1].synapse(rates(net, x, settings.time_steps, settings.chunk, settings.leak))
        return scores

    def trace(self, net: Network, x: Tensor) -> Trace:
        """One pass as `predict` makes it."""
        net.eval()
        return traced(net, x, self.settings.time_steps, self.settings.chunk, self.settings.leak)
