"""guardian.jsonl: what was watched, what ended the watch, what was done. A line of JSON each, appended in one write.

    {"t", "event": "watching", "pid", "silence_s", "virtual", "states": [...]}
    {"t", "event": "trainer gone" | "silence" | "closing failed" | "left by an earlier program" | "restarted" | ...}
    {"t", "event": "attempt", "name", "resource", "verified", "read_back", "why", "attempt", "wall_s"}
    {"t", "event": "done" | "made safe" | "not made safe", "outputs": "safe" | "unknown", "after"}

Only the last kind says "outputs". After a "watching" without it, the machine itself went down: nothing is known.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from drivers.safe import SafeState
from hil.files import open_to_write
from hil.run import outputs
from hil.run.outputs import outputs_of, read_lines
from hil.telling import LEAVE_S, Background, Teller

NAME = outputs.GUARDIAN
MOST_NAMES, MOST_LETTERS, MOST_SPOKEN = 16, 200, 2000


class GuardianRecord:
    """Takes what is to be told and returns at once; a thread writes it.

    So neither a disk nor a terminal that hangs keeps anybody from making safe.

    Args:
        path: of guardian.jsonl; None writes nowhere.
        voice: where people are told, by default stderr.
    """

    def __init__(self, path: Path | None, voice: Teller | None = None) -> None:
        self.path = path
        self.voice = Teller(sys.stderr) if voice is None else voice
        self._disk = Background("guardian.jsonl")
        self._held: list[tuple[str, str]] | None = None

    def note(self, event: str, say: bool = True, **facts: object) -> None:
        """Note an event, a line of JSON.

        Args:
            event: its kind.
            say: to people too.
            **facts: what is known about it.
        """
        line = json.dumps({"t": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}) + "\n"
        spoken = f"hil guardian: {plain(_spoken(event, facts), MOST_SPOKEN)}\n" if say else ""
        if self._held is None:
            self._tell(line, spoken)
        else:
            self._held.append((line, spoken))

    def hold(self) -> None:
        """Touch neither disk nor terminal until `release`; what is noted meanwhile waits."""
        self._held = [] if self._held is None else self._held

    def release(self) -> None:
        """Tell what waits, and all that follows as it comes."""
        held, self._held = self._held or [], None
        for line, spoken in held:
            self._tell(line, spoken)

    def drain(self, wait_s: float = LEAVE_S) -> None:
        """Wait until all is told, `wait_s` at most for the disk and for people each."""
        self._disk.drain(wait_s)
        self.voice.drain(wait_s)

    def _tell(self, line: str, spoken: str) -> None:
        if self.path is not None:
            path = self.path
            self._disk.later(lambda: _append(path, line.encode()))
        if spoken:
            self.voice.write(spoken)


def left_by(run: Path) -> tuple[str, ...]:
    """Name the instruments that `run` left without verifying that they are safe, as text for people.

    A run folder may come from anybody, so nothing in it is sent to an instrument or opened: how an instrument is made safe is
    known from its driver, and from its lock file.
    """
    if outputs_of(run) != "unknown":
        return ()
    watched = [line for line in read_lines(run / NAME) or () if line.get("event") == "watching"]
    states = watched[-1].get("states") if watched else None
    named = [state for state in states if isinstance(state, Mapping)] if isinstance(states, list) else []
    return tuple(f"{plain(state.get('name'))} at {plain(state.get('resource'))}" for state in named[:MOST_NAMES])


def watching(states: Iterable[SafeState]) -> list[dict[str, Any]]:
    """Return the states as JSON values, for the event that says what is watched."""
    return [asdict(state) for state in states]


def plain(value: object, most: int = MOST_LETTERS) -> str:
    """`value` as text that does nothing to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:most])


def _append(path: Path, line: bytes) -> None:
    """Raises: OSError: also for a link, or for what is no regular file."""
    file = open_to_write(path, os.O_APPEND)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def _spoken(event: str, facts: Mapping[str, object]) -> str:
    if event == "attempt":
        known = "safe, read back" if facts["read_back"] else "safe, as far as it took the command"
        state = known if facts["verified"] else "NOT VERIFIED"
        return f"{facts['name']} at {facts['resource']}: {state}" + (f" ({facts['why']})" if facts["why"] else "")
    if facts.get("outputs") == "unknown":
        return f"{event}: OUTPUTS UNKNOWN; switch them off at the instrument"
    told = ", ".join(f"{key} {value}" for key, value in facts.items() if key not in ("states", "outputs", "after"))
    return f"{event}; {told}" if told else event
