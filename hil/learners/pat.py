"""Physics-aware training: forward through the device, backward through a model that may be wrong.

    out_l    = decode( device( encode( pre_l ) ) )          measured, and kept, at every layer
    e        = dL/do                                        at the measured readout
    delta_l  = J_l^T ( W_{l+1}^T delta_{l+1} )              J_l = d out_l / d pre_l of the MODEL, at the MEASURED pre_l
    dW_l     = delta_l^T input_l                            exact, at the measured input of the synapse
    dp_l     = (d out_l / d p_l)^T dL/dout_l                of the MODEL, at the measured pre_l: what is programmed

Only the slopes come from the model (normally the Twin's `ideal`); an error of its values never reaches the next layer. The
device is asked once per layer and step.

hil.nn.Physical is the same rule as a plain module, for use inside any torch model.

Source: Wright et al., Nature 601, 549 (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from hil.learner import Programs
from hil.learners.dfa import needed
from hil.learners.parts.loss import check_scores
from hil.learners.parts.one_pass import LossSettings, OnePass
from hil.learners.parts.transport import carried, pulled_through
from hil.network import Network, accumulate
from hil.task import Loss, LossName, Task, as_loss, as_task

Model = Callable[..., Tensor]


class PAT(OnePass):
    """Physics-aware training: the node answers forwards, a model of it is differentiated backwards.

    Args:
        model: drive -> reading of the node, differentiable, or (drive, levels) -> reading where something is programmed on it.
            It has no state of its own.
    """

    Settings: ClassVar[type[LossSettings]] = LossSettings
    programs: ClassVar[Programs] = "model"

    def __init__(self, model: Model, outputs: int, loss: Loss | LossName = "cross_entropy") -> None:
        super().__init__()
        self.model, self.outputs, self.loss = model, outputs, as_loss(loss)

    @classmethod
    def build(
        cls, net: Network, settings: LossSettings, task: Task | int, rng: torch.Generator, model: Model | None = None
    ) -> PAT:
        """Build it from settings and the model of the node.

        Raises:
            ConfigError: there is no model of the node.
        """
        del net, rng
        asked = as_task(task)
        return cls(needed(model, "pat"), asked.outputs, asked.lowered(settings.loss))

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one measured pass, then overwrite every `.grad`; "loss", "accuracy", "overflow"."""
        del rng  # nothing random
        net.train()
        trace = net.forward(x)
        check_scores(trace.outputs[-1], self.outputs)
        delta, metrics = self.loss.judge(trace.outputs[-1], label)
        net.zero_grad(set_to_none=True)
        for number in reversed(range(len(net.stack))):
            layer = net.stack[number]
            if layer.device is not None:
                delta = pulled_through(layer, self.model, trace.pre[number], delta)
            if number == 0:
                accumulate(layer.synapse, trace.inputs[0], delta)
            else:
                delta = carried(layer.synapse, trace.inputs[number], delta)
        return {**metrics, "overflow": net.overflow(trace)}
