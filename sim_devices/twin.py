"""The physics of a node: a torch module, batched, differentiable where the physics is.

State is a value that goes in and comes out: a tuple of tensors, never hidden in the module. Noise is drawn from the generator
that is given, drift from the state. Everything is where x is: on a GPU, nothing leaves it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hil.device import Spec

State = tuple[Tensor, ...]


def follow(twin: object, state: State | None, params: Tensor | None, place: torch.device) -> tuple[State | None, Tensor | None]:
    """A twin's own tensors to `place`, and its state and parameters: a restored one, or one rested elsewhere, comes along."""
    if isinstance(twin, nn.Module):
        twin.to(place)
    moved = None if state is None else tuple(tensor.to(place, held(tensor.dtype, place)) for tensor in state)
    return moved, None if params is None else params.to(place)


def held(dtype: torch.dtype, place: torch.device) -> torch.dtype:
    """`dtype`, or what `place` has for it: Apple's GPUs have no float64."""
    return torch.float32 if dtype == torch.float64 and place.type == "mps" else dtype


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


@runtime_checkable
class Periodic(Protocol):
    """A twin that answers alike to drives one period apart."""

    @property
    def period(self) -> float:
        """In the unit of `spec.inputs`."""
