"""The physics of a node: a torch module, batched, differentiable where the physics is.

State is a value that goes in and comes out: a tuple of tensors, never hidden in the module. Noise is drawn from the generator
that is given, drift from the state.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from hil.device import Spec

State = tuple[Tensor, ...]


class Twin(Protocol):
    """An nn.Module with this shape. `spec.provenance` is "twin"."""

    @property
    def spec(self) -> Spec: ...

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """The state before anything was driven. Drift may start at random; it is drawn from `rng`."""

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """Drive x in the unit of `spec.inputs`, (batch, n_in) or (time, batch, n_in) -> reading, and the state after it."""

    def ideal(self, x: Tensor) -> Tensor:
        """The noiseless, settled response at rest, differentiable in x: what a model of the node would predict."""
