"""Mono-Forward: one measured pass; every hidden layer has a matrix of its own to class scores, and a loss of its own.

    G_l     = a_l M_l^T                     scores of layer l; a_l measured, so the node's part of G_l is exact
    L_l     = cross entropy( G_l, label ),  e_l = dL_l / dG_l
    dM_l    = e_l^T a_l                     exact
    delta_l = ( e_l M_l ) * g( pre_l )      the gradient of the synapse; no error comes from a later layer
    predict: G of the last hidden layer, the sum of all G_l, or one of them, as the validation split says

M of the last hidden layer is the readout of the network, which the optimiser trains. The others, (classes, n_l), are the
learner's own, and moved by Adam at `rate`. A hidden layer without a device has the known derivative 1, and no g.

Source: Gong, Li & Abdulla, arXiv:2501.09238 (2025). Its layers are rectified and differentiated; here the node is not, and g
stands in for its slope, as in aDFA: our reading. Unlike there, no weights can align with a fixed matrix, so that a g of the
wrong sign raises the losses: it must have the sign of the slope where the pre-activations are. The first M (drawn as weights of
nn.Linear are) and their rate are our reading, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from hil.errors import ContractError
from hil.feedback.functions import from_table
from hil.learners.adfa import Model
from hil.learners.forward_forward import refuse_temporal
from hil.learners.parts.loss import check_scores
from hil.learners.parts.projection import hidden_shapes
from hil.learners.parts.readouts import VALIDATED, Readouts
from hil.learners.parts.transport import carried
from hil.network import Network, Trace, accumulate
from hil.settings import Count, Positive, check
from hil.task import Loss


@dataclass(frozen=True)
class MonoForwardSettings:
    """[learner] of an experiment.

    Args:
        g: in place of the slope of the node: a table as g of aDFA's feedback.
        rate: of Adam, for the matrices of all hidden layers but the last.
        readout: "last", "sum", "layer0", ...; "validated" chooses.
        sample_shape: of one example; needed if the first synapse is a module of one's own.
    """

    g: Mapping[str, object] = field(default_factory=lambda: {"family": "constant"})
    rate: Positive = 1e-3
    readout: str = VALIDATED
    sample_shape: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        check(self, "[learner]")
        from_table(self.g, "[learner] g")


class MonoForward(nn.Module):
    """Mono-Forward: every layer learns to tell the classes by itself.

    Args:
        widths: measured values of each hidden layer.
        classes: labels.
        settings: as in an experiment.
        rng: draws the matrices.

    The matrices are the buffers `M0`, ... of the state, beside what Adam keeps of them.
    """

    Settings: ClassVar[type[MonoForwardSettings]] = MonoForwardSettings
    moves: Tensor

    def __init__(self, widths: Sequence[int], classes: int, settings: MonoForwardSettings, rng: torch.Generator) -> None:
        super().__init__()
        self.classes, self.settings, self.own = classes, settings, len(widths) - 1
        self.g, self.error = from_table(settings.g, "[learner] g"), Loss()
        layers = ["sum", *(f"layer{number}" for number in range(self.own))] if self.own else []
        self.readouts = Readouts(["last", *layers], settings.readout)
        for number, width in enumerate(widths[:-1]):
            bound = 1 / math.sqrt(width)
            drawn = (2 * torch.rand(classes, width, generator=rng) - 1) * bound
            for name, value in ((f"M{number}", drawn), *((f"{kept}{number}", 0 * drawn) for kept in ("mean", "square"))):
                self.register_buffer(name, value)
        self.register_buffer("moves", torch.tensor(0.0))

    @classmethod
    def build(
        cls, net: Network, settings: MonoForwardSettings, classes: int, rng: torch.Generator, model: Model | None = None
    ) -> MonoForward:
        """Build it for `net`, of static nodes that answer each value for itself; needs no model of them.

        Raises:
            ContractError: a temporal network, no hidden layer, or a node that mixes its inputs.
        """
        del model
        refuse_temporal(net)
        if len(net.stack) < 2:
            raise ContractError("Mono-Forward needs a hidden layer", where="network", got="1 layer", allowed="2 or more")
        shapes = hidden_shapes(net, settings.sample_shape)
        mixing = [number for number, layer in enumerate(net.stack) if layer.device and layer.device.spec.inputs.size]
        mixed = [number for number in mixing if shapes.pre[number] != shapes.outputs[number]]
        if mixed:
            pre, answer = shapes.pre[mixed[0]], shapes.outputs[mixed[0]]
            raise ContractError(
                "this learner puts g in place of a slope of each value, and the node gives another number of them",
                where="network", got=f"{pre} values in, {answer} out, in layer {mixed[0]}", allowed="as many in as out",
                todo='take "phyll", which needs nothing of the node, or "dfa" with a twin',
            )  # fmt: skip
        return cls([math.prod(shape) for shape in shapes.outputs], classes, settings, rng)

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one measured pass, then train every layer on its own; fills every `.grad`, and moves the matrices.

        Returns:
            "loss" (mean over layers), "accuracy" (of the last), "overflow", "accuracy_layer0", ... of the others.
        """
        del rng  # nothing random
        net.train()
        net.zero_grad(set_to_none=True)
        trace = net.forward(x)
        check_scores(trace.outputs[-1], self.classes)
        error, metrics = self.error.judge(trace.outputs[-1], label)
        self._descend(net, trace, self.own, carried(net.stack[-1].synapse, trace.inputs[-1], error))
        losses, found, slopes = [metrics["loss"]], {"accuracy": metrics["accuracy"], "overflow": net.overflow(trace)}, []
        for number in range(self.own):
            answer, matrix = trace.outputs[number].flatten(1), self.get_buffer(f"M{number}")
            error, metrics = self.error.judge(answer @ matrix.t(), label)
            self._descend(net, trace, number, error @ matrix)
            slopes.append(error.t() @ answer)
            losses.append(metrics["loss"])
            found[f"accuracy_layer{number}"] = metrics["accuracy"]
        self._move(slopes)
        return {"loss": sum(losses) / len(losses), **found}

    def _descend(self, net: Network, trace: Trace, number: int, error: Tensor) -> None:
        """Fill `.grad` of a hidden synapse, from dL/da of its own loss."""
        layer, pre = net.stack[number], trace.pre[number]
        delta = error.view_as(trace.outputs[number])
        accumulate(layer.synapse, trace.inputs[number], delta if layer.device is None else delta * self.g(pre))

    def _move(self, slopes: Sequence[Tensor]) -> None:
        """One step of Adam for the matrices."""
        if not slopes:
            return
        matrices, means, squares = ([self.get_buffer(f"{n}{k}") for k in range(self.own)] for n in ("M", "mean", "square"))
        counts = [self.moves.clone() for _ in slopes]
        adam(
            matrices, list(slopes), means, squares, [], counts, foreach=False, amsgrad=False, beta1=0.9, beta2=0.999,
            lr=self.settings.rate, weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip
        self.moves += 1

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, classes): the scores that were chosen, from one pass."""
        return self._scores(net, x)[self.readouts.name]

    @torch.no_grad()
    def select(self, net: Network, x: Tensor, label: Tensor) -> Mapping[str, float]:
        """Accuracy of every readout on the validation split; the best is used from now on."""
        return self.readouts.select(lambda some: self._scores(net, some), x, label)

    def _scores(self, net: Network, x: Tensor) -> dict[str, Tensor]:
        net.eval()
        trace = net.forward(x)
        found = {
            f"layer{number}": trace.outputs[number].flatten(1) @ self.get_buffer(f"M{number}").t() for number in range(self.own)
        }
        return {**found, "last": trace.outputs[-1], "sum": sum(found.values(), trace.outputs[-1])}
