"""Checkpoints: tensors in safetensors, everything else in JSON beside them. No pickle.

    checkpoints/step-00001406.safetensors   tensors, flat names: net.* learner.* optimizer.<parameter>.<slot> device.<number>.*
    checkpoints/step-00001406.json          numbers, device snapshots but for their tensors, SHA-256 of the tensors and of these
                                            facts; written last: its presence says that the pair is complete
    checkpoints/step-00001406-before-validation.*     taken after the last step of an epoch, before the epoch is scored

The pair is written atomically, the JSON after the tensors, under a name that no complete pair has: to overwrite one would leave
a moment with new tensors beside old facts. A pair whose sums do not match is damaged and never used silently.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.optim import Optimizer

from hil.errors import RunError
from hil.files import read_object, read_tensors, write_atomic
from hil.hints import quoted

SCHEDULED = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}  # what torch's schedulers put beside lr
MOST_FACTS_BYTES = 1 << 26  # the plant of a virtual bench has its state there


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a run goes on.

    Args:
        tensors: flat names.
        facts: JSON values.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save(folder: Path, name: str, point: Checkpoint) -> Path:
    """Write the pair `name`.safetensors, `name`.json into `folder`, durably; returns the JSON's path."""
    payload = safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in point.tensors.items()})
    path = folder / f"{name}.json"
    _gone(path)  # an old pair of this name does not count from here on
    write_atomic(path.with_suffix(".safetensors"), payload)
    facts = json.loads(json.dumps({**point.facts, "sha256": hashlib.sha256(payload).hexdigest()}))  # as a reader will find them
    write_atomic(path, (json.dumps({**facts, "facts_sha256": _sum(facts)}) + "\n").encode())
    return path


def _sum(facts: Mapping[str, Any]) -> str:
    """Return the sum of all facts but this sum itself, whatever their order and layout in the file."""
    told = {key: value for key, value in facts.items() if key != "facts_sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def place(path: Path) -> tuple[int, bool] | None:
    """(step, whether the epoch that ends there is scored) of a checkpoint's name; None for any other name."""
    found = re.fullmatch(r"step-(\d{8,})(-before-validation)?", path.stem)
    return (int(found[1]), found[2] is None) if found else None


def name(step: int, scored: bool) -> str:
    """Return the name of the checkpoint after `step`, without its suffix.

    Args:
        step: that was just made.
        scored: not one that waits for its epoch's validation.
    """
    return f"step-{step:08d}" + ("" if scored else "-before-validation")


def listed(folder: Path) -> list[Path]:
    """The JSON of every pair, oldest first."""
    return sorted((path for path in folder.glob("step-*.json") if place(path)), key=lambda path: place(path) or (0, False))


def load(path: Path) -> Checkpoint:
    """Read the pair whose JSON is `path`.

    Raises:
        RunError: missing, torn or altered.
    """
    tensors = path.with_suffix(".safetensors")
    try:
        facts = read_object(path, MOST_FACTS_BYTES)
        payload = read_tensors(tensors)
        if _sum(facts) != facts.get("facts_sha256"):
            raise ValueError("the checksum of the facts does not match, or is missing")
        if hashlib.sha256(payload).hexdigest() != facts.get("sha256"):
            raise ValueError(f"the checksum of the {len(payload):,} bytes in {tensors.name} does not match")
        return Checkpoint(safetensors.torch.load(payload), facts)
    except (RunError, ValueError, RecursionError, MemoryError, safetensors.SafetensorError) as error:
        raise RunError(
            "a damaged checkpoint",
            where=str(path),
            got=f"{error.got or error.what}: {error.where}" if isinstance(error, RunError) else str(error) or repr(error),
            allowed="the pair that hil wrote",
            outputs="untouched; nothing was opened",
            todo=f"name an earlier one: hil resume RUN --from {quoted(path.parent)}/step-….json",
        ) from error


def fixed(path: Path) -> bool:
    """True if the pair whose JSON is `path` says that it was made at a fixed step; nothing is verified."""
    try:
        return bool(read_object(path, MOST_FACTS_BYTES).get("fixed"))
    except RunError:
        return False  # damaged: whoever loads it is told


def latest(folder: Path) -> Path:
    """The JSON of the newest complete pair.

    Raises:
        RunError: there is none.
    """
    found = listed(folder)
    if not found:
        raise RunError(
            "no checkpoint to resume from",
            where=str(folder),
            got="no step-….json in it",
            outputs="untouched; nothing was opened",
            todo="start again with hil train; a run is resumable after its first checkpoint",
        )
    return found[-1]


def prune(folder: Path, keep: int, since: Sequence[Path] = ()) -> None:
    """Remove all but the newest `keep` step checkpoints, and those from the first of `since` on."""
    found = listed(folder)
    first = min((found.index(path) for path in since if path in found), default=len(found))
    for path in found[: min(first, max(0, len(found) - keep))]:
        _gone(path)


def forget_after(folder: Path, start: Path) -> None:
    """Remove the checkpoints beyond `start`: a run that went back to it makes them again, and the newest must be its own."""
    last = place(start)
    for path in listed(folder):
        if last is not None and (place(path) or last) > last:
            _gone(path)


def _gone(path: Path) -> None:
    path.unlink(missing_ok=True)  # the JSON first: a pair without it does not count as a checkpoint
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
    return tensors, {"scalars": scalars, "groups": state["param_groups"], "tensors": sorted(tensors)}


def check_tensors(found: Mapping[str, Tensor], due: Mapping[str, Tensor], what: str) -> None:
    """Raises: ValueError: a tensor of `what` is missing, unknown, or of another shape or dtype."""
    odd = sorted(found.keys() ^ due.keys())
    if odd:
        raise ValueError(f"{what}: {'no' if odd[0] in due else 'an unknown'} tensor {odd[0]}")
    for name, tensor in due.items():
        got, wanted = ((tuple(t.shape), t.dtype) for t in (found[name], tensor))
        if got != wanted:
            raise ValueError(f"{what}: tensor {name} of {got[0]} {got[1]}, not {wanted[0]} {wanted[1]}")


def check_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], begun: bool) -> None:
    """Hold a saved state against what `optimizer` keeps, seen at a step of a copy of it.

    Args:
        optimizer: of the run that goes on.
        tensors: of the checkpoint.
        facts: of the checkpoint.
        begun: steps were made, so that there is a state if there can be one.

    Raises:
        ValueError: it is of another kind, or not whole: a parameter has all that is due to it, or was never moved.
    """
    groups, then = optimizer.state_dict()["param_groups"], facts["groups"]
    if not isinstance(then, list) or _settings(groups) != _settings(then):
        raise ValueError("the state of another optimiser")
    if [g["params"] for g in groups] != [g["params"] for g in then]:
        raise ValueError("the state of an optimiser of other parameters")
    due, scalars = optimizer_state(_moved(optimizer))
    told = facts.get("tensors", sorted(tensors))  # earlier checkpoints do not say
    if sorted(tensors) != told:
        odd = sorted(set(tensors) ^ set(map(str, told)))
        raise ValueError(f"optimiser: {'an unknown' if odd and odd[0] in tensors else 'no'} tensor {odd[0] if odd else ''}")
    saved = {*tensors, *facts["scalars"]}
    every = {*due, *scalars["scalars"]}
    moved = {key.split(".", 1)[0] for key in saved}
    check_tensors(tensors, {key: t for key, t in due.items() if key.split(".", 1)[0] in moved}, "optimiser")
    odd = sorted(saved ^ {key for key in every if key.split(".", 1)[0] in moved})
    if odd or (begun and every and not saved):
        raise ValueError(f"optimiser: {'an unknown' if odd and odd[0] in saved else 'no'} state {odd[0] if odd else ''}")
    for key, value in facts["scalars"].items():
        kind = scalars["scalars"][key]
        if isinstance(kind, int | float) != isinstance(value, int | float) or value != value:
            raise ValueError(f"optimiser: {key} = {value!r}")


def _settings(groups: Sequence[Mapping[str, Any]]) -> list[set[str]]:
    """The names of the settings of each group, without those that schedulers keep there."""
    return [set(group) - SCHEDULED for group in groups]


def _moved(optimizer: Optimizer) -> Optimizer:
    """A copy that has made a step of no length, from where it was made."""
    made = copy.deepcopy(optimizer)
    made.state.clear()
    for group in made.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    made.step()
    return made


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """The inverse of `optimizer_state`, but for the settings, which are those that `optimizer` was built with.

    Raises:
        ValueError: it is the state of an optimiser of another kind.
    """
    groups = optimizer.state_dict()["param_groups"]
    if _settings(groups) != _settings(facts["groups"]):
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
