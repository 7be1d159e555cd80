"""Snapshots of devices, taken apart: JSON values here, tensors there.

    {"calls": 3, "state": [tensor]}  ->  {"calls": 3, "state": [{"hil.tensor": "0"}]},  {"0": tensor}

A checkpoint keeps the tensors in its safetensors file; a wire that carries JSON alone has them as base64 text. Membranes of a
convolution are millions of numbers, which as JSON take ten times the room and a hundred times the time.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from hil.errors import ContractError

TENSOR = "hil.tensor"  # the only key of what stands in the place of a tensor


def parted(state: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Take the tensors out of a snapshot: (JSON values, tensors by name).

    Raises:
        ContractError: a device uses the key of what stands in the place of a tensor.
    """
    tensors: dict[str, Tensor] = {}

    def values(one: object) -> Any:
        if isinstance(one, Tensor):
            name = str(len(tensors))
            tensors[name] = one
            return {TENSOR: name}
        if isinstance(one, Mapping):
            if TENSOR in one:
                raise ContractError("this key is hil's own", where="snapshot", got=TENSOR, todo="name it otherwise")
            return {key: values(value) for key, value in one.items()}
        return [values(value) for value in one] if isinstance(one, list | tuple) else one

    return values(state), tensors


def joined(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Put the tensors back: the reverse of `parted`.

    Raises:
        ContractError: one is missing.
    """

    def whole(one: Any) -> Any:
        if isinstance(one, Mapping):
            if one.keys() == {TENSOR}:
                return _named(one[TENSOR], tensors)
            return {key: whole(value) for key, value in one.items()}
        return [whole(value) for value in one] if isinstance(one, list) else one

    return {key: whole(value) for key, value in values.items()}


def packed(state: Mapping[str, object]) -> dict[str, Any]:
    """Return a snapshot as JSON values alone: {"values", "tensors"}, the latter as base64 text of a safetensors file."""
    values, tensors = parted(state)
    return {"values": values, "tensors": base64.b64encode(safetensors.torch.save(_kept(tensors))).decode("ascii")}


def unpacked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the snapshot that `packed` made JSON of.

    Raises:
        ContractError: damaged.
    """
    held, text = values.get("values"), values.get("tensors", "")
    if not isinstance(held, Mapping):
        raise ContractError("a damaged snapshot", where="values of a snapshot", got=str(held)[:80], allowed="a JSON object")
    try:
        tensors = safetensors.torch.load(base64.b64decode(text, validate=True))
    except (SafetensorError, ValueError, TypeError) as error:
        raise ContractError("a damaged snapshot", where="tensors of a snapshot", got=str(error)[:200]) from error
    return joined(held, tensors)


def _named(name: object, tensors: Mapping[str, Tensor]) -> Tensor:
    if not isinstance(name, str) or name not in tensors:
        raise ContractError("a damaged snapshot", where="snapshot", got=f"no tensor {name!r}", allowed=", ".join(tensors))
    return tensors[name]


def _kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
