"""The physics of a node: a torch module, batched, differentiable where the physics is.

State is a value that goes in and comes out: a tuple of tensors, never hidden in the module. Noise is drawn from the generator
that is given, drift from the state. Everything is where x is: on a GPU, nothing leaves it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hil.errors import ContractError
from hil.port import Port
from hil.twin import State as State
from hil.twin import Twin as Twin


def follow(twin: object, state: State | None, params: Tensor | None, place: torch.device) -> tuple[State | None, Tensor | None]:
    """A twin's own tensors to `place`, and its state and parameters: a restored one, or one rested elsewhere, comes along."""
    if isinstance(twin, nn.Module):
        twin.to(place)
    moved = None if state is None else tuple(tensor.to(place, held(tensor.dtype, place)) for tensor in state)
    return moved, None if params is None else params.to(place)


def saved(state: State | None) -> list[Tensor] | None:
    """Return a state as a snapshot holds it."""
    return None if state is None else [tensor.clone() for tensor in state]


def taken(parts: object) -> State | None:
    """Return the state that `saved` gave.

    Raises:
        ContractError: it gave no such thing.
    """
    if parts is None:
        return None
    tensors = [one for one in parts if isinstance(one, Tensor)] if isinstance(parts, list) else []
    if not isinstance(parts, list) or len(tensors) < len(parts):
        raise ContractError(
            "not the state of a twin", where="snapshot", got=str(parts)[:80], allowed="a list of tensors",
            todo="go on with the version of hil that began the run, or begin it anew",
        )  # fmt: skip
    return tuple(tensor.clone() for tensor in tensors)


def held(dtype: torch.dtype, place: torch.device) -> torch.dtype:
    """`dtype`, or what `place` has for it: Apple's GPUs have no float64."""
    return torch.float32 if dtype == torch.float64 and place.type == "mps" else dtype


def converted(reading: Tensor, port: Port, bits: int) -> Tensor:
    """What a converter whose range is that of `port` gives: inside of it, in 2^bits whole steps; 0: it does not round."""
    low, high = port.shared_low, port.shared_high
    if bits:
        step = (high - low) / (2**bits - 1)
        reading = ((reading - low) / step).round().mul(step).add(low)
    return reading.clamp(low, high)
