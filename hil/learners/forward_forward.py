"""Forward-forward: two forward passes, and every layer on its own loss; no gradient passes between layers, or a device.

    h_l    = out_{l-1} / rms(out_{l-1})                     so that the goodness of one layer does not leak into the next
    y_l    = out_l, or max(0, pre_l) if goodness = "host"   out_l = device(pre_l), measured, is never differentiated
    G_l    = mean_j y_lj^2                                  pre_l = synapse_l(h_l), known exactly to the host
    logistic   L_l = mean softplus(-k (G_l - theta)) over positives + mean softplus(k (G_l - theta)) over negatives, / 2
    pairs      L_l = mean softplus(-k (G_l(positive) - G_l(negative)))
    peer       + p/2 mean_j (m_j - mean m)^2,   m_j = 0.9 m_j + 0.1 mean y_j of the positives
    dG_l/dpre_l = 2/n y_l g(pre_l)                          g in place of the slope of the node, as in aDFA; 1 on the host

A positive carries its label in the first features, a negative a wrong one: any other, or one drawn in proportion to what the
head believes. The head is the last layer, softmax on the last hidden one, trained on inputs that claim no class.
Predictions: the label of most goodness, summed over layers, one pass per class; or the head, one pass.

With drive = "rectified" a unit of negative pre_l is silent: the node is sent 0, and only peer normalisation moves the unit.
With goodness = "host" the node is a fixed transform between layers, and the last one is not asked at all.

Sources: Hinton, arXiv:2212.13345 (2022); pairs: Lee & Song, arXiv:2303.08418 (2023). Peer normalisation
and its straight-through gradient for silent units follow Hinton's published program; their scaling here is our reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.errors import ContractError
from hil.feedback.functions import from_table
from hil.learners.adfa import Model
from hil.learners.parts.label_slot import candidates, check_slot, claiming, neutral, wrong_labels
from hil.learners.parts.loss import check_scores
from hil.learners.parts.opened import OpenedSynapse
from hil.learners.parts.readouts import VALIDATED, Readouts
from hil.learners.parts.transport import pulled
from hil.network import Layer, Network, Trace
from hil.settings import NotNegative, Positive, Share, check
from hil.synapses import channels_of, length_normalised
from hil.task import Loss

LossKind = Literal["logistic", "pairs"]
Negatives = Literal["uniform", "hard"]
Drive = Literal["pre", "rectified"]
Goodness = Literal["measured", "host"]
MOMENTUM = 0.9


@dataclass(frozen=True)
class ForwardForwardSettings:
    """[learner] of an experiment.

    Args:
        loss: "logistic" or "pairs".
        threshold: theta, of "logistic".
        sharpness: k.
        peer: p, 0 switches it off.
        straight_through: peer normalisation also moves units that are silent.
        negatives: "uniform" or "hard".
        amplitude: of the label in the input.
        dropout: share of the features of every layer's input that are hidden in training, not of the label.
        drive: what the device is sent, the pre-activation or its positive part.
        goodness: of what: "measured", the answer of the device, or "host", the positive part of the pre-activation.
        g: in place of the slope of the node, for "measured": a table as g of aDFA's feedback.
        readout: "goodness", "upper" (goodness without the first layer), "head", "layer0", ...; "validated" chooses.
    """

    loss: LossKind = "pairs"
    threshold: float = 2.0
    sharpness: Positive = 16.0
    peer: NotNegative = 0.0
    straight_through: bool = True
    negatives: Negatives = "hard"
    amplitude: float = 5.0
    dropout: Share = 0.0
    drive: Drive = "pre"
    goodness: Goodness = "measured"
    g: Mapping[str, object] = field(default_factory=lambda: {"family": "constant"})
    readout: str = VALIDATED

    def __post_init__(self) -> None:
        check(self, "[learner]")
        from_table(self.g, "[learner] g")


class Judged(NamedTuple):
    """The loss of a layer: its value, dL/dG (2 batch,), and by how much positives are better, in the mean."""

    loss: float
    slope: Tensor
    gap: float


class ForwardForward(nn.Module):
    """Forward-forward: every layer raises its goodness for true labels, and lowers it for wrong ones.

    Args:
        widths: of the hidden layers.
        classes: labels.
        settings: as in an experiment.

    State: which readout is used, and the running activities m of peer normalisation.
    """

    Settings: ClassVar[type[ForwardForwardSettings]] = ForwardForwardSettings

    def __init__(self, widths: Sequence[int], classes: int, settings: ForwardForwardSettings) -> None:
        super().__init__()
        self.classes, self.settings, self.depth = classes, settings, len(widths)
        self.g = from_table(settings.g, "[learner] g")
        layers = [f"layer{number}" for number in range(self.depth)] if self.depth > 1 else []
        upper = ["upper"] if self.depth > 2 else []
        self.readouts = Readouts(["goodness", *upper, *layers, "head"], settings.readout)
        self.error = Loss()
        for number, width in enumerate(widths):
            self.register_buffer(f"activity{number}", torch.zeros(width))

    @classmethod
    def build(
        cls, net: Network, settings: ForwardForwardSettings, classes: int, rng: torch.Generator, model: Model | None = None
    ) -> ForwardForward:
        """Build it for `net`, of static nodes; needs no model of them.

        Raises:
            ContractError: a temporal network, or no hidden layer.
        """
        del rng, model
        refuse_temporal(net)
        if len(net.stack) < 2:
            raise ContractError("forward-forward needs a hidden layer", where="network", got="1 layer", allowed="2 or more")
        return cls([channels_of(layer.synapse) for layer in net.stack[:-1]], classes, settings)

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """A neutral pass for the head, then positives and negatives in one pass; fills every `.grad`.

        Returns:
            "loss" (mean over layers), "accuracy" (of the head), "gap_layer0", ...: goodness of positives above negatives.
        """
        x = self._slotted(x)
        net.train()
        net.zero_grad(set_to_none=True)
        scores, metrics = self._head(net, x, label)
        wrong = wrong_labels(label, self.classes, rng, scores if self.settings.negatives == "hard" else None)
        amplitude = self.settings.amplitude
        pairs = (claiming(x, label, self.classes, amplitude), claiming(x, wrong, self.classes, amplitude))
        h = self._first(self._hidden(torch.cat(pairs), rng, spared=self.classes))
        losses = []
        for number, layer in enumerate(net.stack[:-1]):
            opened = OpenedSynapse(layer.synapse, h.flatten(0, -2))
            pre = opened.pre.view(*h.shape[:-1], -1)
            y, onward = self._active(number, layer, pre)
            judged = self._judge(self._goodness_of(y))
            delta = pulled(self._goodness_of, y, judged.slope) * self._slope(layer, pre)
            opened.pull(self._with_peers(number, pre, y, delta).flatten(0, -2))
            losses.append(judged.loss)
            metrics[f"gap_layer{number}"] = judged.gap
            if onward is not None:
                h = length_normalised(self._hidden(onward, rng))
        return {"loss": sum(losses) / len(losses), **metrics}

    def _slotted(self, x: Tensor) -> Tensor:
        """Return x with room for the label in its first features."""
        check_slot(x, self.classes)
        return x

    def _first(self, x: Tensor) -> Tensor:
        """Return what the first synapse is given of a slotted x."""
        return length_normalised(x)

    def _ask(self, layer: Layer, pre: Tensor) -> Tensor:
        return layer.measure(pre)

    def _scored(self, values: Tensor) -> Tensor:
        """(…, n) -> (steps, batch, n), a view of what is judged: without an axis of time one step."""
        return values.unsqueeze(0)

    def _goodness_of(self, y: Tensor) -> Tensor:
        """(…, n) -> (batch,)."""
        return self._scored(y).square().mean((0, 2))

    def _hidden(self, h: Tensor, rng: torch.Generator, spared: int = 0) -> Tensor:
        """Some features hidden, but for the first `spared`: the same in a positive and its negative, and in all steps."""
        if self.settings.dropout == 0.0:
            return h
        drawn = torch.rand(h.shape[-2] // 2, h.shape[-1], generator=rng, device=h.device) >= self.settings.dropout
        drawn[:, :spared] = True
        return h * drawn.repeat(2, 1)

    def _head(self, net: Network, x: Tensor, label: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Train the head on inputs that claim nothing; its scores, and its accuracy."""
        trace = self._neutral(net, x)
        opened = OpenedSynapse(net.stack[-1].synapse, self._scored(trace.inputs[-1]).mean(0))
        check_scores(opened.pre, self.classes)
        error, metrics = self.error.judge(opened.pre, label)
        opened.pull(error)
        return opened.pre, {"accuracy": metrics["accuracy"], "overflow": net.overflow(trace)}

    def _neutral(self, net: Network, x: Tensor) -> Trace:
        """One pass of a slotted x that claims no class; `pre` is what the devices are sent."""
        inputs, pre, outputs = [], [], []
        h = self._first(neutral(x, self.classes, self.settings.amplitude))
        for layer in net.stack[:-1]:
            inputs.append(h)
            pre.append(self._sent(layer.synapse(h)))
            outputs.append(self._ask(layer, pre[-1]))
            h = length_normalised(self._read(layer, outputs[-1]))
        scores: Tensor = net.stack[-1].synapse(h)
        return Trace((*inputs, h), (*pre, scores), (*outputs, scores))

    def _judge(self, goodness: Tensor) -> Judged:
        """Judge the goodness (2 batch,), positives first."""
        good, bad = goodness.chunk(2)
        k, gap = self.settings.sharpness, good - bad
        if self.settings.loss == "pairs":
            loss = functional.softplus(-k * gap).mean()
            slope = torch.sigmoid(-k * gap) * (k / len(gap))
            return Judged(float(loss), torch.cat([-slope, slope]), float(gap.mean()))
        margin = k * torch.cat([good - self.settings.threshold, self.settings.threshold - bad])
        loss = functional.softplus(-margin).mean()
        slope = torch.sigmoid(-margin) * (k / len(margin))
        slope[: len(good)] *= -1
        return Judged(float(loss), slope, float(gap.mean()))

    def _with_peers(self, number: int, pre: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        """`delta` plus the gradient of peer normalisation, which pulls every unit towards the mean activity of its layer."""
        if self.settings.peer == 0.0:
            return delta
        activity, batch = self.get_buffer(f"activity{number}"), y.shape[-2] // 2
        good, sent, moved = (self._scored(values)[:, :batch] for values in (y, pre, delta))
        activity.mul_(MOMENTUM).add_(good.mean((0, 1)), alpha=1 - MOMENTUM)
        pull = (activity - activity.mean()) * (self.settings.peer * (1 - MOMENTUM) / good.numel())
        moved += pull if self.settings.straight_through else pull * (sent > 0)
        return delta

    def _sent(self, pre: Tensor) -> Tensor:
        return pre.clamp(min=0) if self.settings.drive == "rectified" else pre

    def _read(self, layer: Layer, answer: Tensor) -> Tensor:
        """What goes on; a layer without a device answers with its rectified activity."""
        return answer.clamp(min=0) if layer.device is None else answer

    def _active(self, number: int, layer: Layer, pre: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return y, whose square is the goodness, and what goes on; the device is asked if either needs it."""
        measured, last = self._measured(layer), number + 1 == self.depth
        if last and not measured:
            return pre.clamp(min=0), None
        answer = self._ask(layer, self._sent(pre))
        return answer if measured else pre.clamp(min=0), None if last else self._read(layer, answer)

    def _measured(self, layer: Layer) -> bool:
        return self.settings.goodness == "measured" and layer.device is not None

    def _slope(self, layer: Layer, pre: Tensor) -> Tensor:
        """Return the slope of y over `pre`, as far as it is believed."""
        if not self._measured(layer):
            return pre > 0
        slope = self.g(pre)
        return slope * (pre > 0) if self.settings.drive == "rectified" else slope

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, classes), logits of the head or goodness, as chosen."""
        name = self.readouts.name
        return self._head_scores(net, x) if name == "head" else self._goodness_scores(net, x)[name]

    @torch.no_grad()
    def select(self, net: Network, x: Tensor, label: Tensor) -> Mapping[str, float]:
        """Accuracy of every readout on the validation split; the best is used from now on."""
        return self.readouts.select(
            lambda some: {**self._goodness_scores(net, some), "head": self._head_scores(net, some)}, x, label
        )

    @torch.no_grad()
    def trace(self, net: Network, x: Tensor) -> Trace:
        """Make one pass that claims no class; `pre` is what the devices are sent."""
        net.eval()
        return self._neutral(net, self._slotted(x))

    def _head_scores(self, net: Network, x: Tensor) -> Tensor:
        return self._scored(self.trace(net, x).outputs[-1]).mean(0)

    def _goodness_scores(self, net: Network, x: Tensor) -> dict[str, Tensor]:
        net.eval()
        every = torch.stack(list(self._goodness(net, candidates(self._slotted(x), self.classes, self.settings.amplitude))))
        layers = every.view(self.depth, len(x), self.classes)
        found = {"goodness": layers.sum(0), "upper": layers[1:].sum(0)}
        return {**found, **{f"layer{number}": one for number, one in enumerate(layers)}}

    def _goodness(self, net: Network, x: Tensor) -> Iterator[Tensor]:
        """(batch,) of every hidden layer."""
        h = self._first(x)
        for number, layer in enumerate(net.stack[:-1]):
            y, onward = self._active(number, layer, layer.synapse(h))
            yield self._goodness_of(y)
            if onward is not None:
                h = length_normalised(onward)


def refuse_temporal(net: Network) -> None:
    """Raise ContractError if the nodes have a state in time."""
    if net.temporal:
        raise ContractError(
            "this learner drives static nodes", where="network", got="temporal devices", allowed="static devices",
            todo='take "ffgaf" for spiking nodes, "ff_memory", "phyll_memory" or "reservoir" for nodes with memory',
        )  # fmt: skip
