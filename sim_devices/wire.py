"""A wire in the place of a static node: linear, without noise, without memory; or nothing at all, which answers a constant.

    s_k = ( x_k - low_k ) / ( high_k - low_k )                     the drive as a share of its range, 0 to 1
    y_j = zero + scale ( 2 s_k - 1 )          k = j mod K          K drives, M readings; scale = 0: a dead node

A wire maps the range of the drive onto the range of the reading, zero - scale to zero + scale. It mixes no channels: where the
node has fewer readings than drives, the wire hands on the first M drives; where it has more, it repeats them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from hil.device import Spec
from sim_devices.twin import State


class Wire(nn.Module):
    """A linear node with the ports of another one, which is fixed and has no limit of its steps.

    Args:
        spec: of the node whose place it takes.
        zero: reading in the middle of the range, in the unit of the output port.
        scale: half the range of the reading, in the same unit; 0: a dead node.
    """

    def __init__(self, spec: Spec, zero: float, scale: float) -> None:
        super().__init__()
        inputs = replace(spec.inputs, max_step=None, slew_per_s=None)
        self._spec = replace(spec, inputs=inputs, params=None, provenance="twin")
        self.zero, self.scale = zero, scale

    @property
    def spec(self) -> Spec:
        """The ports of the node."""
        return self._spec

    def ideal(self, x: Tensor) -> Tensor:
        """(..., K) drive -> (..., M) reading; a node without a fixed width: (..., n) -> (..., n). Differentiable."""
        low, high = self._spec.inputs.bounds(x)
        span = high - low
        share = (x - low) / torch.where(span > 0, span, torch.ones_like(span))
        reading = self.zero + self.scale * (2 * share - 1)
        drives, readings = self._spec.inputs.size, self._spec.outputs.size
        if drives is None or readings is None or drives == readings:
            return reading
        return reading[..., torch.arange(readings, device=x.device) % drives]

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return no state: nothing is remembered."""
        return ()

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, K) drive -> (batch, M) reading."""
        del params, rng  # nothing can be programmed, and nothing is random
        return self.ideal(x), state
