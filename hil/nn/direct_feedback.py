"""The error at the output of a network, sent straight to every hil.nn.Physical of rule "adfa" or "dfa" in it.

    e_l = e B_l^T          e = dL/do, caught in the backward pass; B_l fixed and random, one (units_l, outputs) a layer

Autograd comes to the output before it comes to any layer below, so e is known when a layer asks for it. The matrices are those
of the learners "adfa" and "dfa" of hil.train with the same seed, and so are the gradients, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hil.errors import UNTOUCHED, ConfigError, ContractError
from hil.feedback.feedback import Feedback
from hil.learners.adfa import ADFASettings, read_feedback
from hil.learners.dfa import DFASettings
from hil.learners.parts.projection import Projection
from hil.nn.physical import DIRECT, Direct, Physical
from hil.seeding import generator

WHERE = "hil.nn.DirectFeedback"


class DirectFeedback(nn.Module):
    """A network whose Physical layers of rule "adfa" or "dfa" get the error at its output through fixed random matrices.

    The matrices are buffers, `projection.B0`, ...: they are in the state_dict, move with .to(), and no optimiser changes them.

    Args:
        module: the network; its layers are numbered in the order of `module.modules()`. Everything between the last Physical
            and the output is differentiated by torch.
        outputs: values that it gives for an example: o is (batch, outputs).
        feedback: g and how B is drawn: a hil.Feedback, or a table as in [learner] feedback of an experiment. None: the defaults
            of the learner. "dfa" uses no g.
        seed: of B.

    Raises:
        ConfigError: no such layer in it, both rules, or a feedback that makes no sense.

    Example:
        >>> import torch
        >>> from hil.nn import Physical
        >>> from sim_devices.mach_zehnder import MachZehnder
        >>> node = Physical(MachZehnder(), "adfa", overflow="clip", features=20)
        >>> net = DirectFeedback(torch.nn.Sequential(torch.nn.Linear(64, 20), node, torch.nn.Linear(20, 10)), outputs=10)
        >>> loss = torch.nn.functional.cross_entropy(net(torch.rand(3, 64)), torch.tensor([1, 5, 9]))
        >>> loss.backward()
        >>> sorted(net.state_dict())
        ['module.0.bias', 'module.0.weight', 'module.2.bias', 'module.2.weight', 'projection.B0']
    """

    def __init__(
        self, module: nn.Module, outputs: int, feedback: Feedback | Mapping[str, object] | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.module = module
        layers = self._layers
        rules = {layer.rule for layer in layers}
        if len(rules) != 1:
            raise ConfigError(
                "direct feedback is for layers of one rule", where=WHERE,
                got=" and ".join(sorted(rules)) or "none in the network",
                allowed='hil.nn.Physical(device, "adfa") in it, or "dfa" in all of them', outputs=UNTOUCHED,
            )  # fmt: skip
        direct = rules == {"dfa"}
        if feedback is None:
            self.feedback = DFASettings().feedback() if direct else read_feedback(ADFASettings().feedback)
        else:
            self.feedback = feedback if isinstance(feedback, Feedback) else Feedback.from_table(feedback, where=WHERE)
        widths = [layer.answers if direct else layer.features for layer in layers]
        shapes = [(width,) for width in widths if width is not None]  # a layer of these rules knows its width
        self.projection = Projection(self.feedback, shapes, outputs, generator(seed, 0, "learner"))

    @property
    def _layers(self) -> list[Physical]:
        return [part for part in self.module.modules() if isinstance(part, Physical) and part.rule in DIRECT]

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Pass everything to the module -> (batch, outputs).

        Raises:
            ContractError: the output has another shape. Whatever the devices raise.
        """
        if not torch.is_grad_enabled():
            return self._checked(self.module(*inputs, **named))
        caught, layers = _Error(), self._layers
        for number, layer in enumerate(layers):
            layer._direct = Direct(partial(self._projected, number, caught), self.feedback.g)
        try:
            scores = self._checked(self.module(*inputs, **named))
        finally:
            for layer in layers:
                layer._direct = None
        out: Tensor = _Catch.apply(scores, caught) if scores.requires_grad else scores  # type: ignore[no-untyped-call]
        return out

    def _checked(self, scores: Tensor) -> Tensor:
        wanted = self.projection.outputs
        if scores.ndim != 2 or scores.shape[1] != wanted:
            raise ContractError(
                "the network does not give as many values as it was said to", where=WHERE, got=f"shape {tuple(scores.shape)}",
                allowed=f"(batch, {wanted})", todo="correct outputs=, or the last layer",
            )  # fmt: skip
        return scores

    def _projected(self, number: int, caught: _Error) -> Tensor:
        if caught.at is None:
            raise ContractError(
                "the loss does not come from the output of the network", where=WHERE, got="a gradient from within it",
                allowed="a loss of what DirectFeedback returned", todo="compute the loss from its output",
            )  # fmt: skip
        return self.projection.onto_one(number, caught.at.float())


@dataclass(slots=True)
class _Error:
    """dL/do of one pass, once the backward pass was there."""

    at: Tensor | None = None


class _Catch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, caught: _Error) -> Tensor:
        ctx.caught = caught
        return scores.view_as(scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.caught.at = grad
        return grad, None
