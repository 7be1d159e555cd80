"""guardian.jsonl: what was watched, what ended the watch, what was done. A line of JSON each, appended in one write.

    {"t", "event": "watching", "pid", "silence_s", "virtual", "states": [...]}
    {"t", "event": "trainer gone" | "silence" | "closing failed" | "left by an earlier program" | "restarted" | ...}
    {"t", "event": "attempt", "name", "resource", "verified", "why", "attempt", "wall_s"}
    {"t", "event": "done" | "made safe" | "not made safe", "outputs": "safe" | "unknown"}

Only the last kind says "outputs". After a "watching" without it, the machine itself went down: nothing is known.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from drivers.make_safe import Outcome, securing
from drivers.safe import SafeState
from hil.errors import ConfigError

NAME = "guardian.jsonl"
Outputs = Literal["safe", "unknown", ""]


class Record:
    """Args: path: of guardian.jsonl; None writes nowhere. A full disk stops nobody from making safe."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def note(self, event: str, say: bool = True, **facts: object) -> None:
        line = {"t": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        if self.path is not None:
            with suppress(OSError), self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if say:
            with suppress(OSError, ValueError):  # the terminal may be gone
                print(f"hil guardian: {_spoken(event, facts)}", file=sys.stderr, flush=True)


def secure(states: Sequence[SafeState], patience_s: float, record: Record) -> tuple[Outcome, ...]:
    """Make safe over new wires, on record; the last outcome of each."""
    final: dict[str, Outcome] = {}
    for outcome in securing(states, patience_s):
        final[outcome.state.name] = outcome
        record.note(
            "attempt", say=outcome.last, name=outcome.state.name, resource=outcome.state.resource, verified=outcome.verified,
            why=outcome.why, attempt=outcome.attempt, wall_s=round(outcome.wall_s, 4),
        )  # fmt: skip
    outcomes = tuple(final[state.name] for state in states)
    verified = all(o.verified for o in outcomes)
    record.note("made safe" if verified else "not made safe", outputs="safe" if verified else "unknown")
    return outcomes


def outputs_of(run: Path) -> Outputs:
    """What is known of the outputs after `run`; "" when it never watched over any, or its bench was virtual and is gone."""
    lines = _lines(run / NAME)
    watched = [n for n, line in enumerate(lines) if line.get("event") == "watching"]
    if not watched or lines[watched[-1]].get("virtual"):
        return ""
    said = [line["outputs"] for line in lines[watched[-1] :] if line.get("outputs") in ("safe", "unknown")]
    return said[-1] if said else "unknown"


def left_by(run: Path) -> tuple[SafeState, ...]:
    """Safe states of the instruments that `run` left without verifying that they are safe."""
    if outputs_of(run) != "unknown":
        return ()
    watched = [line for line in _lines(run / NAME) if line.get("event") == "watching"]
    found = []
    for table in watched[-1].get("states", ()):
        with suppress(ConfigError):  # of another version: the lock file and opening itself are left
            found.append(SafeState.from_table(table))
    return tuple(found)


def watching(states: Iterable[SafeState]) -> list[dict[str, Any]]:
    return [asdict(state) for state in states]


def _lines(path: Path) -> list[Mapping[str, Any]]:
    """A torn last line is left out."""
    found: list[Mapping[str, Any]] = []
    with suppress(OSError):
        for text in path.read_text().splitlines():
            with suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, Mapping):
                    found.append(line)
    return found


def _spoken(event: str, facts: Mapping[str, object]) -> str:
    if event == "attempt":
        state = "safe, read back" if facts["verified"] else "NOT VERIFIED"
        return f"{facts['name']} at {facts['resource']}: {state}" + (f" ({facts['why']})" if facts["why"] else "")
    if facts.get("outputs") == "unknown":
        return f"{event}: OUTPUTS UNKNOWN; switch them off at the instrument"
    told = ", ".join(f"{key} {value}" for key, value in facts.items() if key not in ("states", "outputs"))
    return f"{event}; {told}" if told else event
