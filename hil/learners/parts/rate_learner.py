"""Common part of learners that read a net of spiking neurons by its firing rates: settings, prediction, updates in time.

    value of the last synapse at   sum_t w[t] s[t] / sum_t w[t]      w = 1, or lam^(T - t) where a learner says `weighted`

They have no state of their own; their model of the neurons stands in their settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.learners.adfa import Model
from hil.learners.parts.loss import Mixed
from hil.learners.parts.neuron_model import SHARPNESS, Belief, believed
from hil.learners.parts.projection import hidden_shapes
from hil.learners.parts.spiking_pass import rates, traced
from hil.network import Network, Trace
from hil.neuron import NeuronModel
from hil.settings import Count, Positive, Share
from hil.task import Loss

Update = Literal["accumulated", "per_step"]


@dataclass(frozen=True)
class RateSettings(Belief):
    """[learner] of an experiment, with what is believed of the neurons.

    Args:
        time_steps: T.
        chunk: steps that a device is asked for at once.
        mse_share: of the loss, beside cross entropy.
        dropout: share of hidden neurons left out, per example, in training.
        sample_shape: of one example; needed for dropout if the first synapse is a module of one's own.
    """

    time_steps: Count = 6
    chunk: Count = 2
    mse_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    dropout: Share = 0.0
    sample_shape: tuple[Count, ...] = ()


@dataclass(frozen=True)
class OnlineSettings(RateSettings):
    """Settings of a rule that learns while the steps of time go by.

    Args:
        update: "accumulated", one direction a batch, or "per_step".
        sharpness: a of the sigmoid surrogate.
    """

    update: Update = "accumulated"
    sharpness: Positive = SHARPNESS


class RateLearner(nn.Module):
    """A learner of spiking networks that predicts from firing rates. It has no state of its own.

    `weighted`: it predicts from rates in which a step weighs less, the longer ago it was.
    `summing`: its equations are sums over time, which hold for a soft reset without refractory time; it believes in such.

    Args:
        settings: of the rule.
        classes: labels.
        widths: of the hidden layers, for dropout.
        neuron: what is believed of the neurons; None: the settings alone say it.
    """

    Settings: ClassVar[type[Any]] = RateSettings
    sequences: ClassVar[bool] = True
    weighted: ClassVar[bool] = False
    summing: ClassVar[bool] = False
    settings: RateSettings

    def __init__(
        self, settings: RateSettings, classes: int, widths: Sequence[int] = (), neuron: NeuronModel | None = None
    ) -> None:
        super().__init__()
        self.settings, self.classes, self.widths = settings, classes, tuple(widths)
        self.neuron = neuron or settings.over(NeuronModel())
        if self.summing:
            self.neuron = replace(self.neuron, reset="soft", refractory=0)
        self.loss: Loss | Mixed = Mixed(settings.mse_share)

    @classmethod
    def build(cls, net: Network, settings: Any, classes: int, rng: torch.Generator, model: Model | None = None) -> Self:
        """Build it for `net`, from settings."""
        del rng, model
        return cls(settings, classes, dropped_widths(net, settings), believed(net, settings))

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, classes): the readout of the firing rates, through the devices."""
        net.eval()
        scores: Tensor = net.stack[-1].synapse(rates(net, x, self.settings.time_steps, self.settings.chunk, self._weight))
        return scores

    def trace(self, net: Network, x: Tensor) -> Trace:
        """Make one pass as `predict` does."""
        net.eval()
        return traced(net, x, self.settings.time_steps, self.settings.chunk, self._weight)

    @property
    def _weight(self) -> float:
        return self.neuron.leak if self.weighted else 1.0


class OnlineLearner(RateLearner, ABC):
    """A rate learner that has a direction for each time step. Subclasses give `_run`."""

    Settings: ClassVar[type[Any]] = OnlineSettings
    settings: OnlineSettings

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """The sum of the directions of all steps, in `.grad`, overwritten.

        Returns:
            "loss", "accuracy" (of the scores of all steps), "overflow", and what else `_run` tells.
        """
        *_, metrics = self._run(net, x, label, rng, changing=False)
        return metrics

    def updates(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Iterator[Mapping[str, float]]:
        """A direction per time step if `update` is "per_step", else one a batch."""
        if self.settings.update == "accumulated":
            yield self.step(net, x, label, rng)
        else:
            yield from self._run(net, x, label, rng, changing=True)

    @abstractmethod
    def _run(
        self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator, changing: bool
    ) -> Iterator[Mapping[str, float]]:
        """Go through the time steps, and yield the metrics so far after each.

        Args:
            net: the network that is trained.
            x: (batch, features).
            label: (batch,).
            rng: for dropout.
            changing: weights move in between, so each step has a gradient of its own.
        """


def dropped_widths(net: Network, settings: RateSettings) -> tuple[int, ...]:
    """Return the widths of the hidden layers, if there is dropout, else ()."""
    return tuple(shape[-1] for shape in hidden_shapes(net, settings.sample_shape).pre) if settings.dropout else ()
