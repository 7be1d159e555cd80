"""Record of a host: a line of JSON each, for people, also on stderr. Written by threads that may hang, never waited for.

{"t", "event": "open" | "worker replaced" | "trainer gone" | "silence" | "made safe" | "not made safe" | ..., "outputs"?}
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from hil.files import append
from hil.plain import plain
from hil.telling import LEAVE_S, Background, Teller


class Record:
    """Takes what is to be told, and returns at once.

    Args:
        path: of the file; None: no file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.voice = Teller(sys.stderr)
        self._disk = Background("host.jsonl")

    def note(self, event: str, say: bool = True, **facts: object) -> None:
        """Note an event.

        Args:
            event: its kind.
            say: to people too.
            **facts: what is known about it, JSON values.
        """
        table = {"t": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        path, line = self._path, json.dumps(table).encode() + b"\n"
        if path is not None:
            self._disk.later(lambda: append(path, line))
        if say:
            told = ", ".join(f"{key} {value}" for key, value in facts.items() if value not in ("", None))
            self.voice.write(plain(f"hil host: {event}" + (f"; {told}" if told else ""))[:2000] + "\n")

    def drain(self) -> None:
        """Wait a moment until all is told."""
        self._disk.drain(LEAVE_S)
        self.voice.drain(LEAVE_S)
