"""A deep reservoir: one node with memory is used for all layers in turn, and the masks between them learn by aDFA.

    pre_l[t]   = M_l u_l[t] + b_l                u_1 the input, u_{l+1} what layer l answered; known to the host
    u_{l+1}[t] = decode( node( encode( pre_l[0..t] ) ) )      the loop is a recurrence inside the node, which nobody trains
    o          = W u_L[T] + c                    read at the last step; e = dL/do
    delta_l[t] = ( e B_l^T ) * g( pre_l[t] )     B_l fixed and random, g almost any function
    dM_l       = sum_t delta_l[t]^T u_l[t],      dW = e^T u_L[T]

Credit of earlier steps, whose answers come back in the loop, is dropped: each step of the sum multiplies with what was sent in
that step alone. An example without time, or each step of a sequence, is held for `hold` steps: the loop goes around so many
times with the same drive.

Source: Nakajima et al., Nat. Commun. 13, 7847 (2022), the deep reservoir by aDFA. How it shows an image, and at which argument
it takes g, were not available to us. A reading: a flat image goes through the mask as a whole, and g is taken at what the host
knows, without what comes back in the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from hil.errors import ContractError
from hil.feedback.feedback import Feedback, correlation
from hil.learner import Nodes
from hil.learners.adfa import read_feedback
from hil.learners.parts.loss import check_scores
from hil.learners.parts.played import Between, between_nodes, measured
from hil.learners.parts.projection import Projecting, Projection, hidden_shapes
from hil.learners.parts.shown import over_time
from hil.network import Layer, Network, Trace, fill
from hil.settings import Count
from hil.task import Loss, LossName, Task, as_task

Model = Callable[[Tensor], Tensor]
Answers = Callable[[Layer, Tensor], Tensor]


@dataclass(frozen=True)
class DeepReservoirSettings(Between):
    """[learner] of an experiment.

    Args:
        between: the state of the node between two examples: "reset", "rest" or "carry".
        rest_steps: steps at rest before an example, of "rest".
        feedback: as in ADFASettings.
        loss: "cross_entropy" or "mse"; left out: that of the task.
        hold: steps that an example without time, or each step of a sequence, is held.
    """

    feedback: Mapping[str, object] | str = field(default_factory=lambda: {"g": {"family": "sine", "phase": 1.2}})
    loss: LossName | None = None
    hold: Count = 1

    def __post_init__(self) -> None:
        read_feedback(self.feedback)
        super().__post_init__()


class DeepReservoir(Projecting):
    """Masks and readout of a node with memory, learned by augmented direct feedback alignment.

    Args:
        feedback: g and how B is drawn.
        widths: virtual nodes of each hidden layer.
        outputs: of the network: classes, or numbers.
        rng: draws B.
        settings: of an experiment.
        loss: that is lowered.
        model: drive -> reading of the node, differentiable, or None; the report judges by it, and nothing is learned from it.

    The matrices are the buffers `projection.B0`, ... of the state; g is a setting and is not.
    """

    Settings: ClassVar[type[DeepReservoirSettings]] = DeepReservoirSettings
    nodes: ClassVar[Nodes] = "memory"
    sequences: ClassVar[bool] = True

    def __init__(
        self, feedback: Feedback, widths: tuple[int, ...], outputs: int, rng: torch.Generator, settings: DeepReservoirSettings,
        loss: Loss, model: Model | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.feedback, self.settings, self.loss, self.model = feedback, settings, loss, model
        self.projection = Projection(feedback, [(width,) for width in widths], outputs, rng)

    @classmethod
    def build(
        cls, net: Network, settings: DeepReservoirSettings, task: Task | int, rng: torch.Generator, model: Model | None = None
    ) -> DeepReservoir:
        """Build it for `net`, from settings; needs no model of the node.

        Raises:
            ContractError: a node without memory, a hidden layer without a node, or one whose width nobody says.
        """
        between_nodes(net)
        asked, feedback = as_task(task), read_feedback(settings.feedback)
        return cls(feedback, _widths(net), asked.outputs, rng, settings, asked.lowered(settings.loss), model)

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one measured pass, then overwrite every `.grad`.

        Args:
            net: the network.
            x: examples (batch, features), or sequences (batch, time, features).
            label: one target an example, (batch,) or (batch, k).
            rng: not used; nothing is random.

        Returns:
            "loss", "overflow", and of classes "accuracy".
        """
        del rng
        net.train()
        trace = self.passed(net, x, self._measured)
        check_scores(trace.outputs[-1], self.projection.outputs)
        error, metrics = self.loss.judge(trace.outputs[-1], label)
        projected = self.projection.onto(error)
        deltas = [self.feedback.g(pre) * sent for pre, sent in zip(trace.pre[:-1], projected, strict=True)]
        deltas[0].mul_(self.settings.hold)  # a mask computes a drive once, and the node gets it so often
        inputs = (*(part.flatten(0, 1) for part in trace.inputs[:-1]), trace.inputs[-1])
        fill(net, trace._replace(inputs=inputs), [*(delta.flatten(0, 1) for delta in deltas), error])
        metrics["overflow"] = net.overflow(trace)
        return metrics

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, features) or (batch, time, features) -> (batch, outputs), read at the last step."""
        return self.trace(net, x).outputs[-1]

    @torch.no_grad()
    def trace(self, net: Network, x: Tensor) -> Trace:
        """Make one pass as `predict` makes it: hidden layers (time, batch, n), the readout (batch, outputs)."""
        net.eval()
        return self.passed(net, x, self._measured)

    def states(self, net: Network, x: Tensor) -> Tensor:
        """Return what enters the readout, (batch, n)."""
        return self.trace(net, x).inputs[-1]

    def passed(self, net: Network, x: Tensor, answers: Answers) -> Trace:
        """Make one pass, as `trace`; the first layer's inputs and pre-activations stand there once, however long they are held.

        Args:
            net: the network.
            x: (batch, features) or (batch, time, features).
            answers: (layer, pre-activations (time, batch, n)) -> outputs: the device's, or those of a model, with a graph.
        """
        if x.ndim not in (2, 3):
            raise ContractError(
                "a deep reservoir is shown examples or sequences", where="network", got=f"shape {tuple(x.shape)}",
                allowed="(batch, features) or (batch, time, features)",
            )  # fmt: skip
        inputs, pres, outputs = [], [], []
        h = x.unsqueeze(0) if x.ndim == 2 else x.transpose(0, 1)
        for number, layer in enumerate(net.stack[:-1]):
            inputs.append(h)
            pres.append(over_time(layer.synapse, h))
            h = answers(layer, pres[-1] if number else self._held(pres[-1]))
            outputs.append(h)
        inputs.append(h[-1])
        pres.append(net.stack[-1].synapse(h[-1]))
        return Trace(tuple(inputs), tuple(pres), (*outputs, pres[-1]))

    def _held(self, pre: Tensor) -> Tensor:
        """Every step of (time, batch, n) as often as it is held."""
        return pre if self.settings.hold == 1 else pre.repeat_interleave(self.settings.hold, 0)

    def _measured(self, layer: Layer, pre: Tensor) -> Tensor:
        assert layer.device is not None  # every hidden layer has one
        return measured(layer, layer.device, pre, self.settings)

    def true_gradient(self, net: Network, x: Tensor, label: Tensor, model: Model) -> None:
        """Overwrite every `.grad` by the gradient of the loss through a model of the node and its loop: for the report."""
        params = list(net.parameters())
        with torch.enable_grad():
            scores = self.passed(net, x, lambda layer, pre: layer.through(model, pre)).outputs[-1]
            loss = self.loss.of(scores, label)
        for param, grad in zip(params, torch.autograd.grad(loss, params), strict=True):
            param.grad = grad

    def correlations(self, net: Network, x: Tensor, model: Model) -> list[float]:
        """Return how alike g and the slope of a model are, a number for each hidden layer: for the report.

        The slope is that of a step's answer in the drive of the same step, at the state of the loop that the model comes to.
        """
        trace, found = self.trace(net, x), []
        for number, (layer, pre) in enumerate(zip(net.stack[:-1], trace.pre, strict=False)):
            point = (pre if number else self._held(pre)).detach().requires_grad_(True)
            with torch.enable_grad():
                answer = layer.through(model, point)
            slopes = [torch.autograd.grad(step.sum(), point, retain_graph=True)[0][t] for t, step in enumerate(answer)]
            found.append(correlation(self.feedback.g(point.detach()), torch.stack(slopes)))
        return found


def _widths(net: Network) -> tuple[int, ...]:
    """Virtual nodes of each hidden layer, as its node says, or else its synapse."""
    sizes = [layer.device.spec.inputs.size for layer in net.stack[:-1] if layer.device is not None]
    known = [size for size in sizes if size is not None]
    return tuple(known) if len(known) == len(sizes) else tuple(shape[0] for shape in hidden_shapes(net).pre)
