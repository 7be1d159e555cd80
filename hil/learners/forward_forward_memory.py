"""Forward-forward of sequences: the masks in front of a node with memory are trained, each on the goodness of its own layer.

    h_1[t] = [ label ; u[t] ]                       every step claims the label; h_{l+1}[t] = out_l[t] / rms(out_l[t])
    pre_l[t] = M_l h_l[t] + b_l                     known to the host
    out_l    = decode( node( encode( pre_l ) ) )    measured: out_l[t] depends on pre_l[0..t]
    G_l      = mean over t > washout and over nodes j of out_lj[t]^2
    dG_l/dpre_l[t] = 2/(n T) out_l[t] g(pre_l[t])   T steps are scored; 0 in the washout
    head:      softmax on the mean over t > washout of h of the last node, of sequences that claim nothing

Losses, negatives and the choice of what predicts are those of hil/learners/forward_forward.py. What an earlier step sent, and
came back through the memory of the node, gets no credit: g stands for how a step answers to its own drive. Layers behind the
first one still learn from the past, as it is in what they are given. To predict takes one pass of a sequence for each class.

Sources: Hinton, arXiv:2212.13345 (2022); the mean over time as in hil/learners/parts/judged_whole.py. That the node is never
differentiated is as in Oguz et al., Opt. Lett. 48, 5249 (2023); g, and the credit that is dropped, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from hil.learners.adfa import Model
from hil.learners.forward_forward import ForwardForward, ForwardForwardSettings
from hil.learners.parts.judged_whole import JudgedWhole, JudgedWholeSettings, slotted
from hil.learners.parts.played import measured
from hil.network import Layer, Network
from hil.synapses import channels_of
from hil.task import Task, as_task


@dataclass(frozen=True)
class ForwardForwardMemorySettings(JudgedWholeSettings, ForwardForwardSettings):
    """[learner] of an experiment.

    Args:
        between: the state of the node between two sequences: "reset", "rest" or "carry".
        rest_steps: steps at rest before a sequence, of "rest".
        loss: "logistic" or "pairs".
        threshold: theta, of "logistic".
        sharpness: k.
        peer: p, 0 switches it off.
        straight_through: peer normalisation also moves units that are silent.
        negatives: "uniform" or "hard".
        amplitude: of the label at the first node, in units of a pre-activation.
        dropout: share of the features of every layer's input that are hidden in training, in all steps, not of the label.
        drive: what the node is sent, the pre-activation or its positive part.
        goodness: of what: "measured", the answer of the node, or "host", the positive part of the pre-activation.
        g: in place of the slope of the node, for "measured": a table as g of aDFA's feedback.
        readout: "goodness", "upper" (goodness without the first layer), "head", "layer0", ...; "validated" chooses.
    """

    amplitude: float = 1.0
    g: Mapping[str, object] = field(default_factory=lambda: {"family": "constant"})

    def __post_init__(self) -> None:
        JudgedWholeSettings.__post_init__(self)
        ForwardForwardSettings.__post_init__(self)


class ForwardForwardMemory(JudgedWhole, ForwardForward):
    """Forward-forward over nodes with memory: every layer raises its goodness for sequences that claim their true label.

    Args:
        widths: of the hidden layers.
        task: what is learned.
        settings: as in an experiment.

    State: as of ForwardForward.
    """

    Settings: ClassVar[type[ForwardForwardMemorySettings]] = ForwardForwardMemorySettings
    settings: ForwardForwardMemorySettings

    def __init__(self, widths: list[int], task: Task, settings: ForwardForwardMemorySettings) -> None:
        super().__init__(widths, task.outputs, settings)
        self.washout = task.washout

    @classmethod
    def build(  # type: ignore[override]
        cls, net: Network, settings: ForwardForwardMemorySettings, task: Task | int, rng: torch.Generator,
        model: Model | None = None,
    ) -> ForwardForwardMemory:  # fmt: skip
        """Build it for `net`, whose first synapse is the mask; needs no model of the nodes.

        Raises:
            ContractError: a node without memory, a hidden layer without one, or synapses that are not linear.
        """
        del model
        asked = as_task(task)
        cls.labelled(net, settings, asked.outputs, rng)
        return cls([channels_of(layer.synapse) for layer in net.stack[:-1]], asked, settings)

    def _slotted(self, x: Tensor) -> Tensor:
        return slotted(x, self.classes)

    def _first(self, x: Tensor) -> Tensor:
        """(batch, time, n) -> (time, batch, n), as large as it is: an operating point needs the size of the drive."""
        return x.transpose(0, 1)

    def _ask(self, layer: Layer, pre: Tensor) -> Tensor:
        assert layer.device is not None  # every hidden layer has one
        return measured(layer, layer.device, pre, self.settings)

    def _scored(self, values: Tensor) -> Tensor:
        return values[self.washout :]
