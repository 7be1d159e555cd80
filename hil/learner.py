"""How a Trace becomes a direction.

A learner runs the network forwards as often as it likes, fills `.grad` of the synapses' parameters, and returns numbers to
report. It never steps an optimiser, never sees what answered, and draws every random number from the generator it is given.
Its own fixed or adaptive tensors (feedback matrices, running statistics) are buffers in `state_dict`, so that a checkpoint
holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from hil.network import Network


class Learner(Protocol):
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """One batch: fill `.grad` of every trained parameter; what stood there before is overwritten.

        Args:
            x: (batch, features). label: (batch,), int64.
        Returns:
            at least "loss"; also "accuracy" and "overflow" (shares, 0 to 1) where they cost no extra pass.
        """

    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, features) -> (batch, classes), larger is likelier. Draws no random number of its own."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...
