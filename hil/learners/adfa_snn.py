"""Augmented direct feedback alignment for spiking networks: one forward pass, no derivative of the neuron, no transport.

    v_l[t]     = lam ( v_l[t-1] - V s_l[t-1] ) + I_l[t]           the host's own estimate: I sent, s measured
    o          = synapse_L( mean_t s_{L-1}[t] ),  e = dL/do
accumulated      one direction a batch
    error = "mean"      dW_l = [ ( e B_l^T ) * mean_t g( v_l[t] - v_th ) ]^T mean_t x_{l-1}[t]
    error = "running"   dW_l = 1/T sum_t [ ( e[t] B_l^T ) * g( v_l[t] - v_th ) ]^T x_{l-1}[t]      e[t] of the spikes until t
per_step         one direction a time step, e[t] and the summand of that step
    x = s, or its leaky trace lam x[t-1] + s[t], in units of one spike (divided by the trace of incessant spikes); of a sequence
    the frames are taken as s is

The exact product of a global error known at the end with factors of every step would have to keep all of them. Both readings
here hold a few tensors however long T is: "mean" takes the product of the means, which costs one product a layer and batch;
"running" uses the error known so far, one product a step. Which g, and where the membrane comes from, is our reading too.

Source: Zhang et al., arXiv:2409.07776 (2024); Nakajima et al., Nat. Commun. 13, 7847 (2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hil.errors import ConfigError
from hil.feedback.feedback import Feedback
from hil.learners.adfa import Model, read_feedback
from hil.learners.parts.loss import check_scores
from hil.learners.parts.neuron_model import Belief, Membrane, believed
from hil.learners.parts.projection import Projecting, Projection, hidden_shapes
from hil.learners.parts.shown import Shown
from hil.learners.parts.spiking_pass import Overflow, chunks, dropout_masks, masked, rates, traced
from hil.network import Network, Trace, accumulate
from hil.neuron import NeuronModel
from hil.settings import Count, Share
from hil.task import Loss, LossName

Update = Literal["accumulated", "per_step"]
Error = Literal["mean", "running"]
Presynaptic = Literal["spike", "trace"]


@dataclass(frozen=True)
class ADFASNNSettings(Belief):
    """[learner] of an experiment, with what is believed of the neurons.

    Args:
        feedback: a table as Feedback.from_table takes it, or the path of a file; g is a function of v - v_th.
        time_steps: T.
        chunk: steps that a device is asked for at once.
        loss: "cross_entropy" or "mse".
        update, error, presynaptic: see the module.
        dropout: share of the hidden neurons left out, per example, in training.
        sample_shape: as in aDFA.
    """

    feedback: Mapping[str, object] | str = field(default_factory=lambda: {"g": {"family": "gaussian", "width": 0.5}})
    time_steps: Count = 6
    chunk: Count = 2
    loss: LossName = "cross_entropy"
    update: Update = "accumulated"
    error: Error = "mean"
    presynaptic: Presynaptic = "spike"
    dropout: Share = 0.0
    sample_shape: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        read_feedback(self.feedback)
        super().__post_init__()
        if self.update == "per_step" and self.error == "mean":
            raise ConfigError(
                "the mean error is known at the end only", where="[learner] error", got='"mean" with update = "per_step"',
                allowed='"running"',
            )  # fmt: skip


class ADFASNN(Projecting):
    """Augmented direct feedback alignment for spiking networks, the error projected at every time step.

    Args:
        feedback: g and how B is drawn.
        shapes: of the hidden layers, one example.
        rng: draws B.
        settings: the rest.
        neuron: what is believed of the neurons; None: the settings alone say it.

    The matrices are buffers of the state.
    """

    Settings: ClassVar[type[ADFASNNSettings]] = ADFASNNSettings
    sequences: ClassVar[bool] = True

    def __init__(
        self,
        feedback: Feedback,
        shapes: Sequence[tuple[int, ...]],
        classes: int,
        rng: torch.Generator,
        settings: ADFASNNSettings,
        neuron: NeuronModel | None = None,
    ) -> None:
        super().__init__()
        self.feedback, self.settings, self.loss = feedback, settings, Loss(settings.loss)
        self.neuron = neuron or settings.over(NeuronModel())
        self.projection = Projection(feedback, shapes, classes, rng)

    @classmethod
    def build(
        cls, net: Network, settings: ADFASNNSettings, classes: int, rng: torch.Generator, model: Model | None = None
    ) -> ADFASNN:
        """Build it for `net`, from settings; needs no model beyond what the chip says of its neurons."""
        del model
        shapes = hidden_shapes(net, settings.sample_shape)
        return cls(read_feedback(settings.feedback), shapes.pre, classes, rng, settings, believed(net, settings))

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one pass, then overwrite every `.grad`.

        Returns:
            "loss", "accuracy", "overflow", and the firing rates "rate_layer0", ... in spikes per neuron and step.
        """
        masks = self._masks(net, x, rng)
        if self.settings.error == "mean":
            return self._mean(net, x, label, masks)
        *_, metrics = self._running(net, x, label, masks, changing=False)
        return metrics

    def updates(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Iterator[Mapping[str, float]]:
        """A direction per time step if `update` is "per_step", else one; the optimiser moves between two of them."""
        if self.settings.update == "accumulated":
            yield self.step(net, x, label, rng)
            return
        yield from self._running(net, x, label, self._masks(net, x, rng), changing=True)

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, classes): the readout of the firing rates."""
        net.eval()
        scores: Tensor = net.stack[-1].synapse(rates(net, x, self.settings.time_steps, self.settings.chunk))
        return scores

    def trace(self, net: Network, x: Tensor) -> Trace:
        """Make one pass as `predict` does: currents of all steps, spikes per step."""
        net.eval()
        return traced(net, x, self.settings.time_steps, self.settings.chunk)

    @torch.no_grad()
    def visited(self, net: Network, x: Tensor) -> list[Tensor]:
        """Return v - v_th of each hidden layer in one pass as `predict` makes it, (time, batch, n): where g is taken."""
        net.eval()
        hidden = [(Membrane(self.neuron), list[Tensor]()) for _ in net.stack[:-1]]
        for part in chunks(net, x, self.settings.time_steps, self.settings.chunk):
            for (followed, found), drives, spikes in zip(hidden, part.drives, part.spikes, strict=True):
                found += [
                    followed.advance(drive, fired) - self.neuron.v_th for drive, fired in zip(drives, spikes, strict=True)
                ]
        return [torch.stack(found) for _, found in hidden]

    def _masks(self, net: Network, x: Tensor, rng: torch.Generator) -> list[Tensor]:
        net.train()
        return dropout_masks(self.projection.widths, len(x), self.settings.dropout, rng, x)

    def _mean(self, net: Network, x: Tensor, label: Tensor, masks: Sequence[Tensor]) -> Mapping[str, float]:
        hidden = [_Layer(self.neuron, self.settings.presynaptic) for _ in net.stack[:-1]]
        over = Overflow(net)
        for part in chunks(net, x, self.settings.time_steps, self.settings.chunk, masks=masks):
            over.add(part)
            for one, drives, spikes in zip(hidden, part.drives, part.spikes, strict=True):
                for drive, fired in zip(drives, spikes, strict=True):
                    one.advance(drive, fired)
                    one.slopes = one.slopes + self._slope(one)
                    one.traces = one.traces + one.presynaptic
            del part, drives, spikes, drive, fired  # given back before the next chunk is taken
        share = 1 / self.settings.time_steps
        error, metrics = self._judged(net, hidden, label, masks)
        net.zero_grad(set_to_none=True)
        accumulate(net.stack[-1].synapse, masked(hidden[-1].count * share, masks, -1), error)
        inputs = [self._mean_input(x), *(masked(one.traces * share, masks, n) for n, one in enumerate(hidden[:-1]))]
        projected = self.projection.onto(error)
        for number, (layer, one) in enumerate(zip(net.stack[:-1], hidden, strict=True)):
            delta = projected[number].flatten(1).mul_(one.slopes * share)
            accumulate(layer.synapse, inputs[number], masked(delta, masks, number))
        return {**metrics, "overflow": over.share, **_rates(hidden)}

    @torch.no_grad()
    def _running(
        self, net: Network, x: Tensor, label: Tensor, masks: Sequence[Tensor], changing: bool
    ) -> Iterator[Mapping[str, float]]:
        hidden = [_Layer(self.neuron, self.settings.presynaptic) for _ in net.stack[:-1]]
        over, first = Overflow(net), torch.zeros(())
        alone, inputs = changing or x.ndim == 3, self._inputs(x)
        share = 1.0 if changing else 1 / self.settings.time_steps
        net.zero_grad(set_to_none=True)
        for part in chunks(net, x, self.settings.time_steps, 1, masks=masks, changing=changing):
            over.add(part)
            if changing:
                net.zero_grad(set_to_none=True)
            for one, drives, spikes in zip(hidden, part.drives, part.spikes, strict=True):
                one.advance(drives[0], spikes[0])
            error, metrics = self._judged(net, hidden, label, masks)
            error.mul_(share)
            accumulate(net.stack[-1].synapse, masked(hidden[-1].rate, masks, -1), error)
            projected = self.projection.onto(error)
            deltas = [
                masked(sent.flatten(1).mul_(self._slope(one)), masks, number)
                for number, (one, sent) in enumerate(zip(hidden, projected, strict=True))
            ]
            for number, delta in enumerate(deltas[1:]):
                accumulate(net.stack[number + 1].synapse, masked(hidden[number].presynaptic, masks, number), delta)
            first = deltas[0] if alone else first + deltas[0]  # an x that stays: the products of all steps are one
            entered = next(inputs)
            if alone or hidden[0].steps == self.settings.time_steps:
                accumulate(net.stack[0].synapse, entered, first)
            yield {**metrics, "overflow": over.share, **_rates(hidden)}

    def _inputs(self, x: Tensor) -> Iterator[Tensor]:
        """Yield what the first synapse's directions are taken at, step by step, (batch, features)."""
        shown, steps = Shown(x, self.settings.time_steps), range(self.settings.time_steps)
        if self.settings.presynaptic == "spike" or not shown.changes:
            return (shown.at(step) for step in steps)
        leaky = shown.traces(self.neuron.leak)
        return (trace / self.neuron.memory(step + 1) for step, trace in zip(steps, leaky, strict=True))

    def _mean_input(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return x
        return torch.stack(list(self._inputs(x))).mean(0)

    def _slope(self, one: _Layer) -> Tensor:
        return self.feedback.g(one.followed.v - self.neuron.v_th)

    def _judged(
        self, net: Network, hidden: Sequence[_Layer], label: Tensor, masks: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        scores = net.stack[-1].synapse(masked(hidden[-1].rate, masks, -1))
        check_scores(scores, self.projection.outputs)
        return self.loss.judge(scores, label)


class _Layer:
    """The state of a hidden layer in a step; each a tensor (batch, n), 0 before the first step."""

    def __init__(self, neuron: NeuronModel, presynaptic: Presynaptic) -> None:
        self.neuron, self._leaky = neuron, presynaptic == "trace"
        self.followed = Membrane(neuron)
        self.fired = self.count = self.leaky = self.slopes = self.traces = torch.zeros(())
        self.steps = 0

    def advance(self, drive: Tensor, fired: Tensor) -> None:
        """One step of time: what was sent, what was measured."""
        if not self.steps:
            self.count = torch.zeros_like(drive)
        self.followed.advance(drive, fired)
        self.fired, self.count = fired, self.count + fired
        if self._leaky:
            self.leaky = self.leaky * self.neuron.leak + fired
        self.steps += 1

    @property
    def presynaptic(self) -> Tensor:
        return self.leaky / self.neuron.memory(self.steps) if self._leaky else self.fired

    @property
    def rate(self) -> Tensor:
        return self.count / self.steps


def _rates(hidden: Sequence[_Layer]) -> dict[str, float]:
    return {f"rate_layer{number}": float(one.rate.mean()) for number, one in enumerate(hidden)}
