"""Augmented direct feedback alignment: no derivative of the node, no transport of weights, one forward pass.

    e        = dL/do                              at the digital readout
    delta_l  = ( e B_l^T ) * g( pre_l )           B_l fixed and random, g almost any function
    dW_l     = delta_l^T input_l                  the exact vector-Jacobian product of the synapse alone
    dW_L     = e^T input_L                        exact

Source: Nakajima et al., Nat. Commun. 13, 7847 (2022); spiking version Zhang et al., arXiv:2409.07776 (2024).
A hidden layer without a device has the known derivative 1, and no g. The device is asked once per layer and step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from hil.errors import ConfigError
from hil.feedback.feedback import Feedback
from hil.learners.parts.one_pass import DirectFeedback
from hil.learners.parts.projection import Projection, hidden_shapes
from hil.learners.parts.transport import pulled
from hil.network import Layer, Network
from hil.settings import Count, check
from hil.task import Loss, LossName, Task, as_loss, as_task

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ADFASettings:
    """[learner] of an experiment.

    Args:
        feedback: a table as Feedback.from_table takes it, or the path of a file that Feedback.save wrote.
        loss: "cross_entropy" or "mse"; left out: that of the task.
        sample_shape: of one example; needed if the first synapse is a module of one's own.
    """

    feedback: Mapping[str, object] | str = field(default_factory=lambda: {"g": {"family": "sine", "phase": 1.2}})
    loss: LossName | None = None
    sample_shape: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        read_feedback(self.feedback)
        check(self, "[learner]")


class ADFA(DirectFeedback):
    """Augmented direct feedback alignment: matrices B carry the error, g stands in for the derivative.

    Args:
        feedback: g and how B is drawn.
        shapes: of each hidden layer, one example, or its width.
        outputs: of the network: classes, or numbers.
        rng: draws B.

    The matrices are the buffers `projection.B0`, ... of the state; g is a setting and is not.
    """

    Settings: ClassVar[type[ADFASettings]] = ADFASettings

    def __init__(
        self,
        feedback: Feedback,
        shapes: Sequence[int | tuple[int, ...]],
        outputs: int,
        rng: torch.Generator,
        loss: Loss | LossName = "cross_entropy",
    ) -> None:
        super().__init__()
        self.feedback, self.loss = feedback, as_loss(loss)
        wide = [(shape,) if isinstance(shape, int) else shape for shape in shapes]
        self.projection = Projection(feedback, wide, outputs, rng)

    @classmethod
    def build(
        cls, net: Network, settings: ADFASettings, task: Task | int, rng: torch.Generator, model: Model | None = None
    ) -> ADFA:
        """Build it for `net`, from settings; needs no model of the node."""
        del model
        shapes, asked = hidden_shapes(net, settings.sample_shape), as_task(task)
        return cls(read_feedback(settings.feedback), shapes.pre, asked.outputs, rng, asked.lowered(settings.loss))

    def _delta(self, layer: Layer, pre: Tensor, projected: Tensor) -> Tensor:
        return projected if layer.device is None else projected.mul_(self.feedback.g(pre))


def slope(layer: Layer, model: Model, pre: Tensor) -> Tensor:
    """Return d output / d pre-activation at `pre`, same shape, for a model that maps each value for itself."""
    return pulled(lambda point: layer.through(model, point), pre, torch.ones_like(pre))


def read_feedback(feedback: Mapping[str, object] | str) -> Feedback:
    """A Feedback from its table, or from the file of that name.

    Raises:
        ConfigError: neither, or a wrong one.
    """
    if isinstance(feedback, str):
        return Feedback.load(Path(feedback))
    if not isinstance(feedback, Mapping):
        raise ConfigError("not a feedback", where="[learner] feedback", got=repr(feedback), allowed="a table, or a file name")
    return Feedback.from_table(feedback, where="[learner] feedback")
