"""Distance of a learner's direction from the true gradient, layer by layer, and the cost of one step at the devices.

    angle_l = arccos( d_l . t_l / |d_l| |t_l| )      d_l what the learner put in .grad of synapse l, t_l the true gradient

The true gradient is that of the learner's own loss at the readout, by automatic differentiation of the network with the model
(normally the Twin's `ideal`) in the place of every device, at the same batch and weights. 0 degrees is that gradient, 90 no
relation, more is uphill. A direction in so many dimensions that is drawn at random is at 90 degrees, and one below 90 descends.

Spikes have no gradient. For a learner that lowers a loss at the readout of firing rates, t_l is the surrogate gradient through
time (hil/learners/bptt.py) of its own loss, on its model of the neurons, with the dropout of the same draw.

Source: Lillicrap et al., Nat. Commun. 7, 13276 (2016), for the angle as the measure of feedback alignment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hil.devices.traffic import Traffic, watched
from hil.learner import Learner, Tracing
from hil.learners.backprop import Backprop
from hil.learners.bptt import BPTT
from hil.learners.deep_reservoir import DeepReservoir
from hil.learners.parts.loss import Mixed
from hil.learners.parts.operations import Counted, counting
from hil.learners.parts.rate_learner import OnlineSettings
from hil.learners.through_memory import BPTTMemory, ThroughMemory, ThroughMemorySettings
from hil.network import Network
from hil.neuron import NeuronModel
from hil.seeding import generator
from hil.task import Loss
from hil.training.state import Training

Model = Callable[[Tensor], Tensor]
FEW_EXAMPLES = 32
OF_THE_TWIN = "the true gradient of the twin"
THROUGH_TIME = "the surrogate gradient through time, on neurons as the learner believes them,"


@runtime_checkable
class Descending(Protocol):
    """A learner that lowers a loss at the readout of `Network.forward`."""

    loss: Loss


class TimedLearner(Protocol):
    """Settings of a spiking learner."""

    @property
    def time_steps(self) -> int:
        """Steps of a pass."""

    @property
    def dropout(self) -> float:
        """Share of the hidden neurons left out in training."""


@runtime_checkable
class Spiking(Protocol):
    """A learner that lowers a loss at the readout of firing rates, with a model of the neurons."""

    loss: Loss | Mixed
    neuron: NeuronModel
    settings: TimedLearner


@dataclass(frozen=True)
class GradientLook:
    """The findings of one step and one prediction of EXAMPLES examples.

    Args:
        angles: per layer, degrees; None where the learner gives a layer no direction, or where there is no true gradient.
        why: why there is none at all, or "".
        to: what the angles are measured from.
        step, prediction: traffic per device.
        operations: of the step's products; None of static nodes.
    """

    examples: int
    angles: tuple[float | None, ...]
    why: str
    to: str
    step: tuple[Traffic, ...]
    prediction: tuple[Traffic, ...]
    operations: Counted | None


def look(training: Training, model: Model | None, examples: int) -> GradientLook:
    """Make one more step and prediction with the first training examples; weights, learner and `.grad` are as before."""
    net, learner = training.net, training.learner
    model = model or (learner.model if isinstance(learner, ThroughMemory | DeepReservoir) else None)
    x, label = training.sent(training.data.train.x[:examples], training.data.train.y[:examples])
    seen = len(x)
    with _untouched(net, learner):
        with watched(training.devices) as step, counting(x) if net.temporal else nullcontext() as operations:
            learner.step(net, x, label, generator(training.plan.seed, 0, "look", net.place))
        found = [None if grad is None else grad.clone() for grad in directions(net)]
        with watched(training.devices) as prediction:
            classes = learner.predict(net, x).shape[-1]
        why = _reason(net, learner, model)
        if net.temporal and not why:  # through time, memory grows with it: few examples
            x, label = x[:FEW_EXAMPLES], label[:FEW_EXAMPLES]
            learner.step(net, x, label, generator(training.plan.seed, 0, "look", net.place))
            found = [None if grad is None else grad.clone() for grad in directions(net)]
        true = [None] * len(found) if why else _true(training, model, x, label, classes)
    angles = tuple(None if a is None or b is None else angle(a, b) for a, b in zip(found, true, strict=True))
    to = THROUGH_TIME if net.temporal and not _remembers(net) else OF_THE_TWIN
    return GradientLook(seen, angles, why, to, tuple(step), tuple(prediction), operations)


def directions(net: Network) -> list[Tensor | None]:
    """Per layer, `.grad` of all parameters of its synapse in a row; None where there is none."""
    rows = []
    for layer in net.stack:
        parts = [param.grad.detach().flatten() for param in layer.synapse.parameters() if param.grad is not None]
        rows.append(torch.cat(parts) if parts else None)
    return rows


def _true(training: Training, model: Model | None, x: Tensor, label: Tensor, classes: int) -> list[Tensor | None]:
    net, learner = training.net, training.learner
    rng = generator(training.plan.seed, 0, "look", net.place)
    if isinstance(learner, DeepReservoir):
        assert model is not None  # the reasons were looked at before
        learner.true_gradient(net, x, label, model)
        return directions(net)
    if _remembers(net):
        assert isinstance(learner, Descending)  # the reasons were looked at before
        assert model is not None
        BPTTMemory(model, training.task, ThroughMemorySettings(), learner.loss).step(net, x, label, rng)
        return directions(net)
    if net.temporal:
        assert isinstance(learner, Spiking)  # the reasons were looked at before
        return surrogate_directions(net, learner, x, label, classes, rng)
    assert isinstance(learner, Descending)
    assert model is not None
    Backprop(model, classes, learner.loss).step(net, x, label, rng)
    return directions(net)


def surrogate_directions(
    net: Network, learner: Spiking, x: Tensor, label: Tensor, classes: int, rng: torch.Generator
) -> list[Tensor | None]:
    """The surrogate gradient through time per layer, of the learner's loss and neurons; overwrites `.grad`."""
    neuron, asked = learner.neuron, learner.settings
    settings = OnlineSettings(time_steps=asked.time_steps, chunk=1, dropout=asked.dropout)
    widths = [layer.device.spec.outputs.size or 1 for layer in net.stack[:-1] if layer.device is not None]
    BPTT(settings, classes, widths, neuron, learner.loss).step(net, x, label, rng)
    return directions(net)


def angle(a: Tensor, b: Tensor) -> float | None:
    """Return the angle between two directions, degrees; None if one of them is 0."""
    a, b = a.cpu().double(), b.cpu().double()
    norms = float(a.norm() * b.norm())
    return math.degrees(math.acos(max(-1.0, min(1.0, float(a @ b) / norms)))) if norms > 0 else None


def _reason(net: Network, learner: Learner, model: Model | None) -> str:
    """Say why there is no true gradient to compare with, or ""."""
    if net.temporal and isinstance(learner, Spiking) and isinstance(learner.neuron, NeuronModel):
        return ""
    if _remembers(net) and not isinstance(learner, Descending):
        return "this learner fits its readout, and gives no direction"
    if _remembers(net):
        return "no twin, so no true gradient" if model is None else ""
    if net.temporal:
        return "spikes have no gradient, and this learner lowers no loss through a model of its neurons"
    if isinstance(learner, Tracing) or not isinstance(learner, Descending) or not isinstance(learner.loss, Loss):
        return "this learner lowers losses of its own, not one at the readout"
    return "no twin, so no true gradient" if model is None else ""


def _remembers(net: Network) -> bool:
    return any(device.spec.memory for device in net.devices)


@contextmanager
def _untouched(net: Network, learner: Learner) -> Iterator[None]:
    """Whatever happens inside, the network's and the learner's state are as before, and `.grad` is empty."""
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    state = {name: value.clone() for name, value in learner.state_dict().items()}
    try:
        yield
    finally:
        net.load_state_dict(weights)
        learner.load_state_dict(state)
        net.zero_grad(set_to_none=True)
