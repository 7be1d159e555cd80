"""logs/metrics.csv: a row for each number, `time_s, step, epoch, name, value`, which any table program and pandas can pivot."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hil.files import append, read_text, there, write_atomic
from hil.loggers.logger import Entry, Told

HEAD = ("time_s", "step", "epoch", "name", "value")
MOST_BYTES = 1 << 30


class CsvFile:
    """A Logger that appends the numbers of every step and epoch in one write."""

    def begin(self, told: Told) -> None:
        """Begin the file, or take the rows of steps that are made again out of it."""
        self._path: Path = told.folder / "metrics.csv"
        kept: list[list[str]] = []
        if there(self._path):
            rows = csv.reader(io.StringIO(read_text(self._path, MOST_BYTES)))
            kept = [row for row in rows if len(row) == len(HEAD) and row[1].isdecimal() and int(row[1]) <= told.step]
        write_atomic(self._path, _text([HEAD, *kept]))

    def log(self, entry: Entry) -> None:
        """Append its numbers."""
        place = (f"{entry.time_s:.3f}", str(entry.step), str(entry.epoch))
        append(self._path, _text((*place, name, repr(value)) for name, value in entry.values.items()))

    def end(self, summary: Mapping[str, Any]) -> None:
        """Do nothing: every row is written already."""


def _text(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
