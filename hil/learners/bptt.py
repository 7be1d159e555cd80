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
from torch import Tensor

from hil.learners.parts.loss import Mixed, check_scores
from hil.learners.parts.neuron_model import modelled
from hil.learners.parts.rate_learner import OnlineSettings, RateLearner
from hil.learners.parts.shown import Shown, over_time
from hil.learners.parts.spiking_pass import dropout_masks, masked
from hil.network import Layer, Network
from hil.neuron import NeuronModel
from hil.task import Loss


class BPTT(RateLearner):
    """Backpropagation through time, of a model of the neurons with a surrogate derivative.

    Args:
        settings: of the rule.
        classes: labels.
        widths: of the hidden layers, for dropout.
        neuron: what is believed of the neurons; None: the settings alone say it.
        loss: another than the settings', to look at the gradient of another learner's loss.
    """

    Settings: ClassVar[type[OnlineSettings]] = OnlineSettings
    settings: OnlineSettings

    def __init__(
        self,
        settings: OnlineSettings,
        classes: int,
        widths: Sequence[int] = (),
        neuron: NeuronModel | None = None,
        loss: Loss | Mixed | None = None,
    ) -> None:
        super().__init__(settings, classes, widths, neuron)
        self.loss = loss or self.loss

    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Run the model forwards and back once, then overwrite every `.grad`; "loss", "accuracy", "overflow", and rates."""
        net.train()
        masks = dropout_masks(self.widths, len(x), self.settings.dropout, rng, x)
        metrics: dict[str, float] = {}
        over = total = 0
        net.zero_grad(set_to_none=True)
        with torch.enable_grad():
            steps = self.settings.time_steps
            pre = Shown(x, steps).currents(net.stack[0].synapse, 0, steps)
            for number, layer in enumerate(net.stack[:-1]):
                drive = _checked(layer, pre)
                over, total = (
                    over + (0 if layer.encode is None else layer.encode.overflowing(pre.detach())),
                    total + pre.numel(),
                )
                spikes = modelled(self.neuron, drive, self.settings.sharpness)
                metrics[f"rate_layer{number}"] = float(spikes.detach().mean())
                sent = masked(spikes, masks, number)
                if number + 2 < len(net.stack):
                    pre = over_time(net.stack[number + 1].synapse, sent)
            scores = net.stack[-1].synapse(sent.mean(0))
            check_scores(scores, self.classes)
            self.loss.of(scores, label).backward()  # type: ignore[no-untyped-call]
        return {**self.loss.judge(scores.detach(), label).metrics, "overflow": over / max(1, total), **metrics}


def _checked(layer: Layer, pre: Tensor) -> Tensor:
    if layer.device is None or layer.encode is None:
        return pre
    drive = layer.encode(pre)
    layer.device.spec.inputs.check(drive.detach())
    return drive
