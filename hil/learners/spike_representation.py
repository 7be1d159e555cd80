"""Differentiation on spike representation: the reference of SAF-F. The rates are measured, the gradient is that of a clip.

    a_l = sum_t lam^(T-t) s_l[t] / sum_t lam^(T-t)         measured
    a_l ~ clip( ( W a_{l-1} + b ) / V, 0, 1 )              differentiated, by automatic differentiation; a_0 the mean of x[t]
    loss L( W_L a + b )

Needs W^T on the host.

Source: Meng et al., CVPR 2022, arXiv:2205.00459; in units of one spike, where the paper's spike is V high.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hil.learners.parts.loss import check_scores
from hil.learners.parts.rate_learner import RateLearner
from hil.learners.parts.shown import Shown
from hil.learners.parts.spiking_pass import Overflow, chunks, dropout_masks, masked
from hil.learners.saf import WeightedSums
from hil.network import Network, statistics_kept


class SpikeRepresentation(RateLearner):
    """The learner that predicts from the weighted rates, as in training."""

    weighted = summing = True

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one pass, and go back once; "loss", "accuracy", "overflow"."""
        net.train()
        masks = dropout_masks(self.widths, len(x), self.settings.dropout, rng, x)
        totals, over = WeightedSums(self.neuron.leak), Overflow(net)
        for part in chunks(net, x, self.settings.time_steps, self.settings.chunk, masks=masks):
            over.add(part)
            totals.add(part.drives, part.spikes)
        rate = [total / self.neuron.memory(self.settings.time_steps) for total in totals.spikes]
        net.zero_grad(set_to_none=True)
        with torch.enable_grad(), statistics_kept(net):
            h = Shown(x, self.settings.time_steps).mean(self.neuron.leak)
            for number, layer in enumerate(net.stack[:-1]):
                pre = layer.synapse(h)
                drive = pre if layer.encode is None else layer.encode(pre)
                clipped = (drive / self.neuron.quantum).clamp(0, 1)
                h = masked(rate[number] + (clipped - clipped.detach()), masks, number)
            scores = net.stack[-1].synapse(h)
            check_scores(scores, self.classes)
            self.loss.of(scores, label).backward()  # type: ignore[no-untyped-call]
        return {**self.loss.judge(scores.detach(), label).metrics, "overflow": over.share}
