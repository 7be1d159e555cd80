"""Checkpoints: tensors in safetensors, everything else in JSON beside them. No pickle.

    checkpoints/step-00001406.safetensors   tensors, flat names: net.* learner.* optimizer.<parameter>.<slot>
    checkpoints/step-00001406.json          numbers, device snapshots, SHA-256 of the tensors; written last: its presence
                                            says that the pair is complete

The pair is written atomically, the JSON after the tensors. A pair whose sum does not match is damaged and never used silently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor
from torch.optim import Optimizer

from hil.errors import RunError
from hil.run.folder import write_atomic


@dataclass(frozen=True)
class Checkpoint:
    """tensors: flat names. facts: JSON values."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save(folder: Path, name: str, point: Checkpoint) -> Path:
    """Write the pair `name`.safetensors, `name`.json into `folder`, durably; returns the JSON's path."""
    payload = safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in point.tensors.items()})
    write_atomic(folder / f"{name}.safetensors", payload)
    facts = {**point.facts, "sha256": hashlib.sha256(payload).hexdigest()}
    path = folder / f"{name}.json"
    write_atomic(path, (json.dumps(facts) + "\n").encode())
    return path


def load(path: Path) -> Checkpoint:
    """Read the pair whose JSON is `path`.

    Raises:
        RunError: missing, torn or altered.
    """
    tensors = path.with_suffix(".safetensors")
    try:
        facts = json.loads(path.read_text())
        payload = tensors.read_bytes()
        if not isinstance(facts, dict) or hashlib.sha256(payload).hexdigest() != facts.get("sha256"):
            raise ValueError("the checksum of the tensors does not match")
        return Checkpoint(safetensors.torch.load(payload), facts)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise RunError(
            "a damaged checkpoint",
            where=str(path),
            got=str(error),
            allowed="the pair that hil wrote",
            outputs="untouched; nothing was opened",
            todo=f"name an earlier one: hil resume RUN --from {path.parent}/step-….json",
        ) from error


def latest(folder: Path) -> Path:
    """The JSON of the newest complete pair.

    Raises:
        RunError: there is none.
    """
    found = sorted(folder.glob("step-*.json"))
    if not found:
        raise RunError(
            "no checkpoint to resume from",
            where=str(folder),
            got="no step-….json in it",
            outputs="untouched; nothing was opened",
            todo="start again with hil train; a run is resumable after its first checkpoint",
        )
    return found[-1]


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` step checkpoints."""
    for path in sorted(folder.glob("step-*.json"))[:-keep]:
        path.unlink()  # the JSON first: a pair without it does not count as a checkpoint
        path.with_suffix(".safetensors").unlink(missing_ok=True)


def forget_after(folder: Path, step: int) -> None:
    """Remove the checkpoints beyond `step`: a run that went back to it makes them again, and the newest must be its own."""
    for path in folder.glob("step-*.json"):
        if path.stem > f"step-{step:08d}":
            path.unlink()
            path.with_suffix(".safetensors").unlink(missing_ok=True)


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors and JSON values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{slot}"] = value
            else:
                scalars[f"{index}.{slot}"] = value
    return tensors, {"scalars": scalars, "groups": state["param_groups"]}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """The inverse of `optimizer_state`, but for the settings, which are those that `optimizer` was built with.

    Raises:
        ValueError: it is the state of an optimiser of another kind.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [set(group) for group in groups] != [set(group) for group in facts["groups"]]:
        raise ValueError("the state of another optimiser")
    slots: dict[int, dict[str, Any]] = {}
    for source in (tensors, facts["scalars"]):
        for key, value in source.items():
            index, slot = key.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with `prefix.`, without it."""
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}
