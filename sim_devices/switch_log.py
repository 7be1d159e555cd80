"""Outputs that went on or off: kept, and written down at once, so that a bench that is killed has left its log.

{"time_s": 1760000000.25, "box": "33622A SIM-33622-0001", "channel": 1, "on": true}        one line of JSON an entry
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hil.errors import ConfigError
from hil.files import append

LENGTH = 10_000


@dataclass(frozen=True, slots=True)
class Switched:
    """An output went on or off.

    Args:
        time_s: of the bench's clock.
    """

    time_s: float
    box: str
    channel: int
    on: bool


class SwitchLog:
    """A log of what the outputs of a virtual bench did.

    Args:
        path: a file that every line is appended to; None keeps them in memory alone.

    Raises:
        ConfigError: it cannot be written, or is no regular file.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._entries: deque[Switched] = deque(maxlen=LENGTH)
        self._lock = threading.Lock()
        if self._path is not None:
            try:
                append(self._path, b"")
            except OSError as error:
                raise ConfigError(
                    "the log of the bench cannot be written", where=str(path), got=error.strerror or str(error),
                    allowed="a regular file in a writable folder", outputs="untouched; nothing was opened",
                ) from error  # fmt: skip

    @property
    def entries(self) -> tuple[Switched, ...]:
        """Oldest first."""
        return tuple(self._entries)

    def add(self, entry: Switched) -> None:
        """Append an entry, in memory and to the file."""
        self._entries.append(entry)
        self.note(asdict(entry))

    def note(self, line: Mapping[str, object]) -> None:
        """A line for the file alone. It is with the system, process or no process, when this returns."""
        if self._path is not None:
            with self._lock:
                append(self._path, (json.dumps(dict(line)) + "\n").encode())
