"""Backpropagation through time with a surrogate, on a model of the neurons: the upper reference, which needs everything known.

    v[t] = lam ( v[t-1] - V s[t-1] ) + encode( synapse( s_{l-1}[t] ) ),  s = H( v - v_th ),  H' ~ sigmoid surrogate
    loss L( synapse_L( mean_t s_{L-1}[t] ) ), differentiated through all steps and layers, the reset included

A step never asks the device: it trains the neurons that [learner] describes, all alike and without noise; `predict` goes
through the device. So mismatch and noise show as the gap between training and validation. A drive that the
device would refuse is refused here too. Memory grows with T.

Source: Neftci, Mostafa & Zenke, IEEE Signal Process. Mag. 36, 51 (2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from hil.learners.adfa import Model
from hil.learners.loss import Loss, Mixed, check_scores
from hil.learners.saf import OnlineSettings, dropped_widths
from hil.learners.spiking_pass import dropout_masks, masked, over_time, rates, traced
from hil.network import Layer, Network, Trace


class BPTT(nn.Module):
    """Args: settings, classes: labels. widths: of the hidden layers, for dropout. loss: another than the settings', for a look
    at somebody else's. It has no state of its own."""

    Settings: ClassVar[type[OnlineSettings]] = OnlineSettings

    def __init__(
        self, settings: OnlineSettings, classes: int, widths: Sequence[int] = (), loss: Loss | Mixed | None = None
    ) -> None:
        super().__init__()
        self.settings, self.classes, self.widths = settings, classes, tuple(widths)
        self.neuron, self.loss = settings.neuron, loss or Mixed(settings.mse_share)

    @classmethod
    def build(
        cls, net: Network, settings: OnlineSettings, classes: int, rng: torch.Generator, model: Model | None = None
    ) -> BPTT:
        """For `net`; the model is that of the settings, as every layer has neurons of its own."""
        del rng, model
        return cls(settings, classes, dropped_widths(net, settings))

    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """One pass of the model and back, then every `.grad`, overwritten; "loss", "accuracy", "overflow", and rates."""
        net.train()
        masks = dropout_masks(self.widths, len(x), self.settings.dropout, rng, x)
        metrics: dict[str, float] = {}
        over = total = 0
        net.zero_grad(set_to_none=True)
        with torch.enable_grad():
            first = net.stack[0].synapse(x)
            pre = first.expand(self.settings.time_steps, *first.shape)
            for number, layer in enumerate(net.stack[:-1]):
                drive = _checked(layer, pre)
                over, total = (
                    over + (0 if layer.encode is None else layer.encode.overflowing(pre.detach())),
                    total + pre.numel(),
                )
                spikes = self.neuron.spikes(drive, self.settings.sharpness)
                metrics[f"rate_layer{number}"] = float(spikes.detach().mean())
                sent = masked(spikes, masks, number)
                if number + 2 < len(net.stack):
                    pre = over_time(net.stack[number + 1].synapse, sent)
            scores = net.stack[-1].synapse(sent.mean(0))
            check_scores(scores, self.classes)
            self.loss.of(scores, label).backward()  # type: ignore[no-untyped-call]
        return {**self.loss.judge(scores.detach(), label).metrics, "overflow": over / max(1, total), **metrics}

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, classes): the readout of the firing rates, through the devices."""
        net.eval()
        scores: Tensor = net.stack[-1].synapse(rates(net, x, self.settings.time_steps, self.settings.chunk))
        return scores

    def trace(self, net: Network, x: Tensor) -> Trace:
        """One pass as `predict` makes it."""
        net.eval()
        return traced(net, x, self.settings.time_steps, self.settings.chunk)


def _checked(layer: Layer, pre: Tensor) -> Tensor:
    if layer.device is None or layer.encode is None:
        return pre
    drive = layer.encode(pre)
    layer.device.spec.inputs.check(drive.detach())
    return drive
