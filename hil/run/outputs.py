"""What the files of a run say of its outputs: guardian.jsonl of a bench, host.jsonl of a device that a host owns.

    {"t", "event": "watching", "virtual", "states": [...]}                 a guardian begins to watch
    {"t", "event": "made safe" | "done" | ..., "outputs": "safe" | "unknown", "after"}

After a "watching" without a later "outputs" nothing is known: the guardian is still at work, or the machine itself went down.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hil.errors import RunError
from hil.files import loads, read_bytes

GUARDIAN, HOSTS = "guardian.jsonl", "host*.jsonl"
MOST_BYTES = 1 << 26
SAID = ("safe", "unknown")
HELD = "safe, as its host has verified"  # of outputs
Outputs = Literal["safe", "unknown", ""]


def outputs_of(run: Path) -> Outputs:
    """Say what is known of the outputs after `run`; "" if it never watched over any, or its bench was virtual and is gone."""
    found = guarded(run)
    return "" if found.virtual else found.said


@dataclass(frozen=True)
class Guarded:
    """What the guardian of a run said.

    Args:
        said: of the outputs; "" if none ever watched.
        virtual: the bench was virtual, and ends with its run.
        settled: it said so; else it is at work still, or the machine itself went down.
        after: what is known of safe outputs, in words; "" if nothing more is.
    """

    said: Outputs = ""
    virtual: bool = False
    settled: bool = False
    after: str = ""


def guarded(run: Path) -> Guarded:
    """Read what the guardian of `run` said last."""
    lines = read_lines(run / GUARDIAN)
    if lines is None:
        return Guarded("unknown")
    watched = [n for n, line in enumerate(lines) if line.get("event") == "watching"]
    if not watched:
        return Guarded()
    said = [line for line in lines[watched[-1] :] if line.get("outputs") in SAID]
    safe = bool(said) and said[-1]["outputs"] == "safe"
    after = str(said[-1].get("after", "")) if safe else ""
    return Guarded("safe" if safe else "unknown", bool(lines[watched[-1]].get("virtual")), bool(said), after)


def hosted(run: Path) -> Outputs:
    """What the hosts of `run` said last of the outputs of their devices; "" if it has none."""
    found: list[Outputs] = []
    for path in sorted(run.glob(HOSTS)):
        lines = read_lines(path)
        begun = [n for n, line in enumerate(lines or ()) if line.get("event") == "open"]
        said = [line.get("outputs") for line in (lines or ())[begun[-1] if begun else 0 :] if line.get("outputs") in SAID]
        found.append("safe" if said[-1:] == ["safe"] else "unknown")
    return "" if not found else "safe" if set(found) == {"safe"} else "unknown"


def read_lines(path: Path) -> list[Mapping[str, Any]] | None:
    """Read the objects of a file, one a line; damaged lines are left out. None: something is there that cannot be read."""
    try:
        if not os.path.lexists(path):
            return []
        payload = read_bytes(path, MOST_BYTES)
    except (RunError, OSError, ValueError):
        return None
    found: list[Mapping[str, Any]] = []
    for text in payload.splitlines():
        with suppress(RunError):
            line = loads(text, str(path))
            if isinstance(line, Mapping):
                found.append(line)
    return found
