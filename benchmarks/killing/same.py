"""Whether two runs gave the same numbers, bit for bit: weights, metrics, scores, diagnostics, and the steps in between.

Times, addresses, and faults that were recovered from may differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hil.files import loads, read_object, read_text
from hil.run import checkpoint, journal

FREE = {"wall_s", "device_s", "host_s", "samples_per_s", "faults_recovered", "outputs", "cause", "name", "resources"}
TIMED = {"time"}  # in diagnostics.json


def differences(one: Path, other: Path) -> Iterator[str]:
    """Say what differs between the finished runs in two folders, a sentence each; nothing if they are the same.

    Raises:
        RunError: a checkpoint is missing or damaged.
    """
    points = [(checkpoint.latest(path / "checkpoints"), path / "checkpoints" / "best.json") for path in (one, other)]
    for first, second in zip(*points, strict=True):
        if first.name != second.name:
            yield f"checkpoints {first.name} and {second.name}"
        tensors = [checkpoint.load(path).tensors for path in (first, second)]
        if tensors[0].keys() != tensors[1].keys():
            yield f"{first.name}: other tensors"
            continue
        yield from (f"{first.name}: {key}" for key, value in tensors[0].items() if not torch.equal(value, tensors[1][key]))
    for name, free in (("summary.json", FREE), ("diagnostics.json", FREE | TIMED)):
        facts = [read_object(path / name) for path in (one, other)]
        yield from _unequal(name, facts[0], facts[1], free)
    lines = [read_text(path / "metrics.jsonl").splitlines() for path in (one, other)]
    if len(lines[0]) != len(lines[1]):
        yield f"metrics.jsonl: {len(lines[0])} and {len(lines[1])} lines"
    for number, (first_line, second_line) in enumerate(zip(*lines, strict=False), 1):
        place = f"metrics.jsonl line {number}"
        yield from _unequal(place, loads(first_line, place), loads(second_line, place), FREE)
    commits = [journal.committed(journal.Journal.read(path / "journal.jsonl")) for path in (one, other)]
    for path, found in zip((one, other), commits, strict=True):
        yield from (f"{path / 'journal.jsonl'}: {wrong}" for wrong in journal.missing(found))
    steps = [[(c["step"], c["epoch"], c["batch"], c["loss"], c["passes"]) for c in found] for found in commits]
    if steps[0] != steps[1]:
        at = next((a[0] for a, b in zip(*steps, strict=False) if a != b), min(map(len, steps)) + 1)
        yield f"journal.jsonl: committed steps differ from step {at}"


def _unequal(where: str, one: Mapping[str, Any], other: Mapping[str, Any], free: set[str]) -> Iterator[str]:
    keys = [key for key in dict.fromkeys([*one, *other]) if key not in free]
    yield from (f"{where}: {key}" for key in keys if json.dumps(one.get(key)) != json.dumps(other.get(key)))
