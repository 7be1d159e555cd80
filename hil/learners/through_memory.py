"""Gradients through the memory of a node: masks and readout are trained, all steps of a sequence in one graph.

    out_l[t] = decode( device_l( encode( pre_l[0..t] ) ) )       the answer depends on the past
    L        = loss over the steps behind the washout
    dL/dpre_l[s] = sum_t ( d out_l[t] / d pre_l[s] )^T dL/dout_l[t]        of a model, backwards through all steps
    W_L      descends too, or with `penalty` is the best one for the states of the batch: the masks then descend the loss that
             is left, whose gradient is the same sum, as W_L stands at its minimum

    bptt_memory   the model answers forwards too: a step never asks the device, `predict` does. The upper reference.
    pat_memory    the device answers forwards, and the model gives the slopes at what was really sent. Where the model takes
                  `measured`, as those of hil's loops do, its memory holds the measured readings, and errors of the model do not
                  add up along the sequence.

The model (normally the Twin's `ideal`) begins at rest, as a device does that was reset or rested. Of a state that is carried
on, it does not know the beginning: the washout covers that. The graph grows with the length of a sequence.

Sources: Werbos, Proc. IEEE 78, 1550 (1990), through time; Hermans, Soriano, Dambre, Bienstman & Fischer, J. Mach. Learn. Res.
16, 2081 (2015), the masks of a delay loop; Golub & Pereyra, SIAM J. Numer. Anal. 10, 413 (1973), a part that is fitted;
Wright et al., Nature 601, 549 (2022), physics-aware.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from hil.learner import Nodes
from hil.learners.dfa import needed
from hil.learners.parts.loss import check_scores
from hil.learners.parts.played import Playing, played, with_memory
from hil.learners.parts.ridge_sums import RidgeSums, readout
from hil.learners.parts.shown import over_time
from hil.learners.parts.transport import carried, pulled, refuse_beyond
from hil.network import Layer, Network, Trace, accumulate
from hil.settings import Positive
from hil.task import Loss, LossName, Task, as_task

Model = Callable[..., Tensor]


@dataclass(frozen=True)
class ThroughMemorySettings(Playing):
    """[learner] of an experiment.

    Args:
        between: the state of the node between two sequences: "reset", "rest" or "carry".
        rest_steps: steps at rest before a sequence, of "rest".
        answer: of data with one target a sequence: that of the "last" step, or the "mean" over the steps behind the washout;
            left out: "last".
        loss: what is made small; left out: that of the task.
        penalty: the readout is no part of the descent: each step fits it to the states of its batch in closed form, with this
            penalty in units of the mean variance of a state. Left out: it descends.
    """

    loss: LossName | None = None
    penalty: Positive | None = None


@dataclass(frozen=True)
class PATMemorySettings(ThroughMemorySettings):
    """[learner] of an experiment.

    Args:
        between, rest_steps, answer, loss, penalty: as in ThroughMemorySettings.
        state: at which slopes are taken: "measured", where the model takes it, or "model", which it comes to alone.
    """

    state: Literal["measured", "model"] = "measured"


class ThroughMemory(nn.Module, ABC):
    """What both have in common. It has no state of its own.

    Args:
        model: drive -> reading of the node from rest, (time, batch, n), differentiable.
        task: what is learned.
        settings: of an experiment.
        loss: another than the settings', to look at the gradient of another learner's loss.
    """

    Settings: ClassVar[type[ThroughMemorySettings]] = ThroughMemorySettings
    nodes: ClassVar[Nodes] = "memory"
    sequences: ClassVar[str] = "whole"
    name: ClassVar[str]

    def __init__(self, model: Model, task: Task, settings: ThroughMemorySettings, loss: Loss | None = None) -> None:
        super().__init__()
        self.model, self.task, self.settings = model, task, settings
        self.loss = loss or task.lowered(settings.loss)

    @classmethod
    def build(
        cls, net: Network, settings: ThroughMemorySettings, task: Task | int, rng: torch.Generator, model: Model | None = None
    ) -> Self:
        """Build it from settings and the model of the node.

        Raises:
            ConfigError: there is no model of the node. ContractError: a node without memory.
        """
        del rng
        with_memory(net)
        if settings.penalty is not None:
            readout(net).requires_grad_(False)
        return cls(needed(model, cls.name), as_task(task), settings)

    @abstractmethod
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Overwrite every `.grad`, from sequences x (batch, time, features) and their targets."""

    def trace(self, net: Network, x: Tensor) -> Trace:
        """Play sequences x (batch, time, features) through the devices: a Trace of (time, batch, n)."""
        net.eval()
        return played(net, x, self.settings)

    def states(self, net: Network, x: Tensor) -> Tensor:
        """Return what enters the readout, (batch, time, n), of one target a sequence (batch, n)."""
        return self.settings.answers(self.trace(net, x).inputs[-1].transpose(0, 1), self.task)

    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, time, features) -> (batch, time, outputs), through the devices, the washout included; or (batch, outputs)."""
        return self.settings.answers(self.trace(net, x).outputs[-1].transpose(0, 1), self.task)

    @torch.no_grad()
    def fitted(self, net: Network, states: Tensor, label: Tensor) -> None:
        """Fit the readout to states (time, batch, n), if it is fitted."""
        if self.settings.penalty is not None:
            sums = RidgeSums(states.shape[-1], self.task.outputs)
            sums.add(self._answers(states), self.task.targets(label))
            sums.solve(net, self.settings.penalty)

    def _answers(self, values: Tensor) -> Tensor:
        """(time, batch, n) -> what is scored, (steps or sequences, n)."""
        return self.task.scored(self.settings.answers(values.transpose(0, 1), self.task), self.task.steps)

    def scored(self, outputs: Tensor) -> Tensor:
        """(time, batch, k) -> what is scored, (steps or sequences, k).

        Raises:
            ContractError: the readout does not give what the targets need.
        """
        scores = self._answers(outputs)
        check_scores(scores, self.task.outputs)
        return scores


class BPTTMemory(ThroughMemory):
    """Backpropagation through time, of a model of the node."""

    name: ClassVar[str] = "bptt_memory"

    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Run the model forwards and back once, then overwrite every `.grad`; "loss", "overflow", of classes "accuracy"."""
        del rng  # nothing random
        net.train()
        params = [param for param in net.parameters() if param.requires_grad]
        with torch.enable_grad():
            trace = self.modelled(net, x, label)
            scores, target = self.scored(trace.outputs[-1]), self.task.targets(label)
            loss = self.loss.of(scores, target)
        net.zero_grad(set_to_none=True)
        for param, grad in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
            param.grad = grad
        return {**self.loss.judge(scores.detach(), target).metrics, "overflow": net.overflow(trace)}

    def modelled(self, net: Network, x: Tensor, label: Tensor) -> Trace:
        """The pass of x (batch, time, features) that the model predicts, as a graph; a Trace of (time, batch, n)."""
        inputs, pre, outputs = [], [], []
        h = x.transpose(0, 1)
        for number, layer in enumerate(net.stack):
            if number + 1 == len(net.stack):
                self.fitted(net, h, label)
            inputs.append(h)
            pre.append(over_time(layer.synapse, h))
            refuse_beyond(layer, pre[-1])
            h = layer.through(self.model, pre[-1])
            outputs.append(h)
        return Trace(tuple(inputs), tuple(pre), tuple(outputs))


class PATMemory(ThroughMemory):
    """Physics-aware training through time: the node answers forwards, a model of it is differentiated backwards."""

    Settings: ClassVar[type[PATMemorySettings]] = PATMemorySettings
    settings: PATMemorySettings
    name: ClassVar[str] = "pat_memory"

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one measured pass, then overwrite every `.grad`; "loss", "overflow", of classes "accuracy"."""
        del rng  # nothing random
        net.train()
        trace = played(net, x, self.settings)
        self.fitted(net, trace.inputs[-1], label)
        outputs = over_time(net.stack[-1].synapse, trace.inputs[-1])  # of the readout as it is now
        error, metrics = self.loss.judge(self.scored(outputs), self.task.targets(label))
        delta = pulled(self._answers, outputs, error)
        net.zero_grad(set_to_none=True)
        for number in reversed(range(len(net.stack))):
            layer = net.stack[number]
            if layer.device is not None:
                delta = self._pulled(layer, trace.pre[number], trace.outputs[number], delta)
            inputs, flat = trace.inputs[number].flatten(0, 1), delta.flatten(0, 1)
            if number == 0:
                accumulate(layer.synapse, inputs, flat)
            else:
                delta = carried(layer.synapse, inputs, flat).view_as(trace.inputs[number])
        return {**metrics, "overflow": net.overflow(trace)}

    def _pulled(self, layer: Layer, pre: Tensor, out: Tensor, delta: Tensor) -> Tensor:
        """dL/dpre of a layer with a device, (time, batch, n), from dL/dout."""
        held = self.settings.state == "measured" and follows(self.model)
        model = partial(self.model, measured=layer.decode.inverse(out)) if held else self.model
        return pulled(partial(layer.through, model), pre, delta)


def follows(model: Model) -> bool:
    """Tell whether a model takes what was measured, as the state that its steps go on from."""
    return "measured" in inspect.signature(model).parameters
