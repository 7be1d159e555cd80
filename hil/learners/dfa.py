"""Direct feedback alignment with the true derivative of a model of the node: a reference for aDFA.

    delta_l = J_l^T ( e B_l^T )       J_l = d out_l / d pre_l of the model, at the pre-activations really visited

The forward pass is measured, through the device; only the backward factor comes from the model (normally the Twin's `ideal`,
without noise or drift). J_l^T is applied by automatic differentiation of the model, encoding and decoding included, so a
clipped value has the derivative 0, and a node that mixes its inputs is treated exactly. Readout and synapses as in aDFA.

Source: Nokland, arXiv:1609.01596 (2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hil.errors import ConfigError
from hil.feedback.feedback import Constant, Distribution, Feedback
from hil.learners.parts.one_pass import DirectFeedback
from hil.learners.parts.projection import Projection, hidden_shapes
from hil.learners.parts.transport import pulled
from hil.network import Layer, Network
from hil.settings import Count, Positive, Share, check
from hil.task import Loss, LossName, Task, as_loss, as_task

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DFASettings:
    """[learner] of an experiment.

    Args:
        distribution, scale, rank, sparsity: of B, as in Feedback.
        loss, sample_shape: as in ADFASettings.
    """

    distribution: Distribution = "uniform"
    scale: Positive | tuple[Positive, ...] = 0.1
    rank: Count | None = None
    sparsity: Share = 0.0
    loss: LossName | None = None
    sample_shape: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        check(self, "[learner]")

    def feedback(self) -> Feedback:
        """The matrices as a Feedback whose g is 1."""
        table = {"distribution": self.distribution, "scale": self.scale, "sparsity": self.sparsity}
        rank = {} if self.rank is None else {"rank": self.rank}
        return Feedback.from_table({**table, **rank, "g": {"family": "constant"}}, where="[learner]")


class DFA(DirectFeedback):
    """The matrices are the buffers `projection.B0`, ... of the state.

    Args:
        model: drive -> reading of the node, differentiable.
        shapes: of one example of each hidden layer's output, or its width.
        rng: draws B.
        feedback: how; its g is not used.
    """

    Settings: ClassVar[type[DFASettings]] = DFASettings

    def __init__(
        self,
        model: Model,
        shapes: Sequence[int | tuple[int, ...]],
        outputs: int,
        rng: torch.Generator,
        feedback: Feedback | None = None,
        loss: Loss | LossName = "cross_entropy",
    ) -> None:
        super().__init__()
        self.model, self.loss = model, as_loss(loss)
        wide = [(shape,) if isinstance(shape, int) else shape for shape in shapes]
        self.projection = Projection(feedback or Feedback(Constant()), wide, outputs, rng)

    @classmethod
    def build(
        cls, net: Network, settings: DFASettings, task: Task | int, rng: torch.Generator, model: Model | None = None
    ) -> DFA:
        """Build it for `net`, from settings.

        Raises:
            ConfigError: there is no model of the node.
        """
        shapes, asked = hidden_shapes(net, settings.sample_shape), as_task(task)
        return cls(needed(model, "dfa"), shapes.outputs, asked.outputs, rng, settings.feedback(), asked.lowered(settings.loss))

    def _delta(self, layer: Layer, pre: Tensor, projected: Tensor) -> Tensor:
        return projected if layer.device is None else pulled(lambda at: layer.through(self.model, at), pre, projected)


def needed(model: Model | None, learner: str) -> Model:
    """The model, or ConfigError if there is none."""
    if model is None:
        raise ConfigError(
            "this learner differentiates a model of the node, and there is none",
            where="[learner] use",
            got=learner,
            allowed="a bench with a [twin], or a simulated device",
            outputs="untouched",
            todo='add the table [twin] to the bench file, or use = "adfa", which needs no model',
        )
    return model
