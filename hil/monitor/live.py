"""What is appended to the files of a run, read on from where the last look ended; a file that was replaced is read anew.

A journal of a weekend has millions of commits; every k-th is kept, and k doubles when there are too many.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from hil.errors import RunError
from hil.files import loads, opened
from hil.run import journal

COMMITS = 2000  # kept at least, once there are so many
EVENTS = 300
LOOKS = 2000  # of a sentinel
LOOK_BYTES = 1 << 24  # read at once
METRICS = 20_000  # lines

Record = Mapping[str, Any]


class Tail:
    """The whole lines that were appended to a file.

    Args:
        path: of the file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._offset = -1, 0

    def lines(self) -> tuple[bool, list[bytes]]:
        """Return whether the file was replaced or cut since the last look, and the new lines; reads at most LOOK_BYTES.

        Raises:
            RunError: it is no regular file, or cannot be read.
        """
        if not os.path.lexists(self._path):
            return False, []
        with opened(self._path) as file:
            facts = os.fstat(file.fileno())
            anew = self._inode not in (-1, facts.st_ino) or facts.st_size < self._offset
            if anew:
                self._offset = 0
            self._inode = facts.st_ino
            if facts.st_size == self._offset:
                return anew, []
            file.seek(self._offset)
            payload = file.read(LOOK_BYTES)
        end = payload.rfind(b"\n") + 1
        if not end and len(payload) == LOOK_BYTES:
            end = len(payload)  # a line that long is no line of ours
        self._offset += end
        return anew, payload[:end].splitlines()


class LiveRun:
    """The metrics and the journal of a run, as far as they were written.

    Args:
        path: of its folder.
    """

    def __init__(self, path: Path) -> None:
        self._metrics, self._journal = Tail(path / "metrics.jsonl"), Tail(path / "journal.jsonl")
        self._lock = threading.Lock()
        self.metrics: list[Record] = []
        self._clear()

    def _clear(self) -> None:
        self.commits: list[Record] = []
        self.last: Record | None = None
        self.begun: Record = {}
        self.first_s: float | None = None
        self.events: deque[Record] = deque(maxlen=EVENTS)
        self.looks: deque[Record] = deque(maxlen=LOOKS)
        self._stride, self._since = 1, 0

    def update(self) -> bool:
        """Read on, and return whether there was anything new; any thread may, one at a time.

        Raises:
            RunError: a file cannot be read.
        """
        with self._lock:
            return any([self._read_metrics(), self._read_journal()])

    def _read_metrics(self) -> bool:
        anew, lines = self._metrics.lines()
        if anew:
            self.metrics = []
        self.metrics += _objects(lines)
        del self.metrics[:-METRICS]
        return anew or bool(lines)

    def _read_journal(self) -> bool:
        anew, lines = self._journal.lines()
        if anew:
            self._clear()
        for line in lines:
            if journal.COMMIT_MARK in line[:60] and journal.COMMIT.fullmatch(line):
                self._committed(line)
            else:
                for record in _objects([line]):
                    self._noted(record)
        return anew or bool(lines)

    def _committed(self, line: bytes) -> None:
        self._since += 1
        self.last = record = loads(line, "journal.jsonl")
        if self._since >= self._stride:
            self._since = 0
            self.commits.append(record)
            if len(self.commits) > 2 * COMMITS:
                self._stride *= 2
                del self.commits[::2]

    def _noted(self, record: Record) -> None:
        kind, step = record.get("kind"), record.get("step")
        if not isinstance(kind, str) or kind == "commit":
            return
        if self.first_s is None:
            self.first_s = moment(record)
        if kind in ("start", "resume"):
            self.begun = record
        if kind in journal.RETURNS and isinstance(step, int):  # the commits after that step are void
            self.commits = [commit for commit in self.commits if commit["step"] <= step]
        if kind == "sentinel":
            self.looks.append(record)
        if kind not in ("checkpoint", "epoch", "step") and (kind != "sentinel" or "message" in record):
            self.events.append(record)


def moment(record: Record) -> float | None:
    """Return the time of a journal line, s since 1970."""
    try:
        return datetime.fromisoformat(record["t"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _objects(lines: list[bytes]) -> Iterator[Record]:
    """Yield what can be read; the report names what cannot."""
    for line in lines:
        try:
            value = loads(line, "")
        except RunError:
            continue
        if isinstance(value, dict):
            yield value
