"""Forward-forward without gradient approximation at the spikes: every layer is a classifier, the spike generator a black box.

    h_l    = levels round-clipped norm( synapse_l( n_{l-1} ) )      in the synapse, on the host, in quanta of the neuron
    G_lc   = s mean over the channels of class c of (h_l / levels)^2      or of (threshold_l h_l / levels)^2
    L_l    = - w_label log softmax(G_l)[label]                      of this layer alone; w: measured difficulty of the class
    I_l[t] = h_l at t = 1, else 0;   n_l = sum_t spikes_l[t]         the device, T steps from rest, never differentiated

There are no negative examples: the groups of the other classes are the negative evidence. One pass per example.
Our reading, where paper and program differ or are silent: the synapse acts on the spike count, which for a linear one is the
sum of what it does step by step, so the statistics behind it are those of the sum; the learned threshold clips, and the scale
s of the goodness is a setting; in the program, goodness is of the answer in the unit of the threshold (goodness = "threshold",
which the threshold learns from too); per-channel factors in front of a normalisation cancel, and are left out; statistics are
frozen and dropout is off at test; the layer that decides is chosen on the validation split.

Source: Xu et al., arXiv:2507.23643 (2025). Static nodes are driven with h_l once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.device import reset
from hil.errors import ConfigError
from hil.learners.adfa import Model
from hil.learners.parts.class_groups import ClassGroups
from hil.learners.parts.difficulty import Difficulty
from hil.learners.parts.opened import OpenedSynapse
from hil.learners.parts.readouts import VALIDATED, Readouts
from hil.network import Layer, Network, Trace
from hil.settings import Count, NotNegative, Positive, Share, check
from hil.synapses import QuantisedReLU, channels_of

Adaptation = Literal["none", "weights", "shares", "both"]
Unit = Literal["levels", "threshold"]


@dataclass(frozen=True)
class FFGAFSettings:
    """[learner] of an experiment.

    Args:
        time_steps: T.
        temperature: s, one for all layers, or one for each.
        goodness: of the answer as a share of its "levels", or of that share times the learned "threshold".
        dropout: share of the inputs of layers 1, 2, ... set to 0 in training.
        adaptation: what follows measured difficulty: the "weights" of the loss, the channel "shares", "both", or "none".
        strength, spread, momentum: as in Difficulty.
        share_every: steps between two moves of a channel.
        shares: of the channels, one number a class, at the start; empty: equal.
        readout: "sum", "upper" (without the first layer), "layer0", ...; "validated" chooses.
    """

    time_steps: Count = 8
    temperature: Positive | tuple[Positive, ...] = 32.0
    goodness: Unit = "levels"
    dropout: Share = 0.0
    adaptation: Adaptation = "weights"
    strength: NotNegative = 0.5
    spread: Annotated[float, Field(ge=1)] = 2.0
    momentum: Share = 0.98
    share_every: Count = 50
    shares: tuple[Positive, ...] = ()
    readout: str = VALIDATED

    def __post_init__(self) -> None:
        check(self, "[learner]")


class FFGAF(nn.Module):
    """Forward-forward with groups of channels for the classes, and weights for classes that are confused.

    Args:
        groups: of every layer.
        classes: labels.
        settings: as in an experiment.

    State: the running confusion, the channels of every class, the step, and which readout is used.
    """

    Settings: ClassVar[type[FFGAFSettings]] = FFGAFSettings
    sequences: ClassVar[bool] = False  # a layer sees the sum over time alone
    any_outputs: ClassVar[bool] = True  # its scores are a goodness of every class, however wide the last layer is
    steps: Tensor

    def __init__(self, groups: Sequence[ClassGroups], classes: int, settings: FFGAFSettings) -> None:
        super().__init__()
        self.settings, self.depth = settings, len(groups)
        self._groups = nn.ModuleList(groups)
        self.difficulty = Difficulty(classes, settings.momentum, settings.strength, settings.spread)
        upper = ["upper"] if self.depth > 2 else []
        self.readouts = Readouts(["sum", *upper, *(f"layer{n}" for n in range(self.depth))], settings.readout)
        self.register_buffer("steps", torch.tensor(0))

    @classmethod
    def build(
        cls, net: Network, settings: FFGAFSettings, classes: int, rng: torch.Generator, model: Model | None = None
    ) -> FFGAF:
        """Build it for `net`; needs no model of the nodes.

        Raises:
            ConfigError: a layer has fewer channels than there are classes, or `shares` or `temperature` has another length.
        """
        del rng, model
        shares = settings.shares or (1.0,) * classes
        if len(shares) != classes:
            raise ConfigError("one share a class", where="[learner] shares", got=f"{len(shares)}", allowed=f"{classes}")
        depth, warm = len(net.stack), settings.temperature
        warmth = warm if isinstance(warm, tuple) else (warm,) * depth
        if len(warmth) != depth:
            raise ConfigError(
                "one temperature, or one a layer", where="[learner] temperature", got=f"{len(warmth)}", allowed=f"1 or {depth}"
            )
        groups = [
            ClassGroups(channels_of(layer.synapse), shares, one, _levels(layer.synapse))
            for layer, one in zip(net.stack, warmth, strict=True)
        ]
        return cls(groups, classes, settings)

    @property
    def groups(self) -> tuple[ClassGroups, ...]:
        """The groups of every layer, typed."""
        return tuple(group for group in self._groups if isinstance(group, ClassGroups))

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one pass, every layer on its own loss; fill every `.grad`.

        Returns:
            "loss" (mean over layers), "accuracy" (of the summed goodness), "overflow", "hardest" (d of the hardest class),
            and per layer "accuracy_layer0", ..., "rate_layer0", ... (spikes per neuron and step).
        """
        net.train()
        net.zero_grad(set_to_none=True)
        weight = self._weights()[label]
        losses, metrics, over = [], {}, []
        h, total = x, torch.zeros(())
        for number, (layer, group) in enumerate(zip(net.stack, self.groups, strict=True)):
            opened = OpenedSynapse(layer.synapse, self._dropped(h, rng) if number else h)
            height = self._height(layer)
            logits = group.goodness(opened.pre) * height.square()
            logp = logits.log_softmax(1)
            error = logp.exp()
            error[torch.arange(len(label), device=label.device), label] -= 1
            slope = error * (weight / len(label)).unsqueeze(1)
            opened.pull(group.pulled(opened.pre, slope) * height.square())
            if height.grad is not None:
                height.grad += (slope * logits).sum() * 2 / height
            losses.append(float((-logp.gather(1, label.unsqueeze(1)).squeeze(1) * weight).mean()))
            metrics[f"accuracy_layer{number}"] = _accuracy(logits, label)
            total = total + logits
            if number + 1 < self.depth:
                h = self._answer(net, layer, opened.pre)
                over.append(0.0 if layer.encode is None else layer.encode.overflowing(opened.pre) / opened.pre.numel())
                if net.temporal:
                    metrics[f"rate_layer{number}"] = float(h.mean()) / self.settings.time_steps
        self._adapt(total.argmax(1), label)
        means = {"loss": sum(losses) / self.depth, "accuracy": _accuracy(total, label)}
        return {**means, "overflow": sum(over) / max(1, len(over)), "hardest": float(self.difficulty.hardness.max()), **metrics}

    def _height(self, layer: Layer) -> Tensor:
        """Return what the answer is multiplied by for its goodness: the learned threshold, or 1."""
        rectifier = _rectifier(layer.synapse) if self.settings.goodness == "threshold" else None
        return torch.ones(()) if rectifier is None else rectifier.threshold

    def _weights(self) -> Tensor:
        follows = self.settings.adaptation in ("weights", "both")
        return self.difficulty.weights if follows else torch.ones_like(self.difficulty.hardness)

    def _adapt(self, predicted: Tensor, label: Tensor) -> None:
        """Count what was confused; every so often move a channel of every layer to where it is needed most."""
        self.difficulty.observe(predicted, label)
        self.steps += 1
        if self.settings.adaptation in ("shares", "both") and int(self.steps) % self.settings.share_every == 0:
            base = self.settings.shares or (1.0,) * len(self.difficulty.confusion)
            shares = [w * share for w, share in zip(self.difficulty.weights.tolist(), base, strict=True)]
            for group in self.groups:
                group.towards(shares)

    def _dropped(self, h: Tensor, rng: torch.Generator) -> Tensor:
        keep = 1 - self.settings.dropout
        return h if keep == 1 else h * (torch.rand(h.shape, generator=rng, device=h.device) < keep) / keep

    def _answer(self, net: Network, layer: Layer, pre: Tensor) -> Tensor:
        """Return the device's answer to `pre`: its reading, or the spike count (batch, n) after T steps from rest."""
        if layer.device is None or not net.temporal:
            return layer.measure(pre)
        reset(layer.device)
        current = torch.zeros(self.settings.time_steps, *pre.shape, device=pre.device)
        current[0] = pre
        spikes = layer.measure(current)
        return spikes.sum(0)

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, classes): goodness of the layer or layers chosen; running statistics frozen, dropout off."""
        return self._scores(net, x)[self.readouts.name]

    @torch.no_grad()
    def select(self, net: Network, x: Tensor, label: Tensor) -> Mapping[str, float]:
        """Accuracy of every readout on the validation split; the best is used from now on."""
        return self.readouts.select(lambda some: self._scores(net, some), x, label)

    @torch.no_grad()
    def trace(self, net: Network, x: Tensor) -> Trace:
        """Make one pass; `pre` is the current of the first step, `outputs` are spike counts, or readings of static nodes."""
        net.eval()
        inputs, pre, outputs = [], [], []
        h = x
        for number, layer in enumerate(net.stack):
            inputs.append(h)
            pre.append(layer.synapse(h))
            h = self._answer(net, layer, pre[-1]) if number + 1 < self.depth else pre[-1]
            outputs.append(h)
        return Trace(tuple(inputs), tuple(pre), tuple(outputs))

    def _scores(self, net: Network, x: Tensor) -> dict[str, Tensor]:
        trace = self.trace(net, x)
        layers = [
            group.goodness(pre) * self._height(layer).square()
            for layer, group, pre in zip(net.stack, self.groups, trace.pre, strict=True)
        ]
        stacked = torch.stack(layers)
        found = {"sum": stacked.sum(0), "upper": stacked[1:].sum(0)}
        return {**found, **{f"layer{number}": one for number, one in enumerate(layers)}}


def _rectifier(synapse: nn.Module) -> QuantisedReLU | None:
    """What a synapse ends in that answers in quanta."""
    found = [module for module in synapse.modules() if isinstance(module, QuantisedReLU)]
    return found[-1] if found else None


def _levels(synapse: nn.Module) -> float:
    """Largest pre-activation of a synapse that ends in a QuantisedReLU, else 1."""
    rectifier = _rectifier(synapse)
    return 1.0 if rectifier is None else float(rectifier.levels)


def _accuracy(scores: Tensor, label: Tensor) -> float:
    return float(scores.argmax(1).eq(label).float().mean())
