"""A synapse run once, and kept open for the gradient of that same run.

    pre = synapse(inputs)        dL/dtheta = delta^T dpre/dtheta        delta = dL/dpre, which a learner finds by itself

`hil.network.accumulate` runs the synapse a second time; this does not. Nothing flows into inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hil.network import accumulate


class OpenedSynapse:
    """A synapse and its inputs, ready to be differentiated once its delta is known.

    Args:
        synapse: any differentiable module.
        inputs: (batch, n_in).
    """

    def __init__(self, synapse: nn.Module, inputs: Tensor) -> None:
        self._synapse, self._inputs = synapse, inputs.detach()
        self._graph: Tensor | None = None
        if type(synapse) is nn.Linear:
            with torch.no_grad():
                self.pre: Tensor = synapse(self._inputs)
            return
        with torch.enable_grad():
            self._graph = synapse(self._inputs)
        self.pre = self._graph.detach()

    def pull(self, delta: Tensor) -> None:
        """Add to `.grad` of the synapse's parameters what `delta` (the shape of `pre`) means for them. Once only."""
        if self._graph is None:
            accumulate(self._synapse, self._inputs, delta)
            return
        params = [param for param in self._synapse.parameters() if param.requires_grad]
        if not params:
            return
        grads = torch.autograd.grad(self._graph, params, delta, allow_unused=True)
        self._graph = None
        for param, grad in zip(params, grads, strict=True):
            if grad is not None:
                param.grad = grad if param.grad is None else param.grad + grad
