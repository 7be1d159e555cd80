"""A run is a folder on disk; this file knows its names and how to write them without ever leaving half a file.

    config.toml  bench.toml  calibration.toml  origins.json  metrics.jsonl  journal.jsonl  summary.json  diagnostics.json
    checkpoints/  logs/  report.html  figures/  run.lock  control.json  notes.toml  output.log

Whole files are written to a temporary name, fsynced, renamed, and their folder fsynced. Lines are appended in one write each,
so a killed process leaves at most one torn last line, which readers report and skip. Every file is a regular one, and every
folder a real one: a link in the place of either is refused before anything is written, and none is followed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hil.errors import RunError
from hil.files import (
    TEMPORARY,
    append,
    loads,
    read_bytes,
    read_object,
    remove_tree,
    sweep,
    there,
    write_atomic,
)
from hil.hints import quoted
from hil.run.journal import Journal
from hil.run.lock import NAME, UNTOUCHED, owned

# before config.toml: a run begins with that
BEGUN = (
    "bench.toml", "calibration.toml", "projection.toml", "projection_calibration.toml", "origins.json", "search.toml",
    "output.log", "notes.toml", NAME,
)  # fmt: skip
FILES = (
    "config.toml", "replayed.toml", "metrics.jsonl", "journal.jsonl", "guardian.jsonl", "summary.json",
    "diagnostics.json", "bench.log", "report.html", "found.toml", "found_bench.toml", *BEGUN, "asked.toml", "control.json",
)  # fmt: skip
LOGS = "logs"  # what loggers write
PROJECTION = "projection"  # what the node of [projection] writes: its guardian, its wires
FOLDERS = ("checkpoints", "tape", "wire", "feedback", "figures", LOGS, PROJECTION)
MOST_METRICS_BYTES = 1 << 28


def _unused(path: Path) -> bool:
    """Empty, or left by a process of ours that was killed before there was a config.toml, so that nothing was begun."""
    entries = list(path.iterdir())
    ours = (path / NAME).is_file()  # nobody else makes that
    return all(_left(entry) and (ours or entry.name == "checkpoints") for entry in entries)


def _left(entry: Path) -> bool:
    if entry.is_symlink():
        return False
    if entry.name == "checkpoints":
        return entry.is_dir() and not any(entry.iterdir())
    return entry.is_file() and (entry.name in BEGUN or TEMPORARY.fullmatch(entry.name) is not None)


class RunFolder:
    """A run folder: its files, its journal, and who owns it.

    Args:
        path: of the folder; made by `create`, checked by `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")
        self._owned = False
        self._new = False  # the folder itself was made by `create`
        self._before: frozenset[str] | None = None  # what `create` found in it; None: it was not made by `create`

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Be the one process that writes here; inside another such block of this object it does nothing.

        Raises:
            RunError: another process is at work here; its pid is named.
        """
        if self._owned:
            yield
            return
        self._check_folders()
        with owned(self.path):
            self._owned = True
            try:
                yield
            finally:
                self._owned = False
                self.journal.close()

    def _check_folders(self) -> None:
        """Raises: RunError: a folder of the run is a link, or no folder."""
        for name in FOLDERS:
            path = self.path / name
            if there(path) and (path.is_symlink() or not path.is_dir()):
                raise RunError(
                    "not a folder of this run", where=str(path), got="a link" if path.is_symlink() else "a file",
                    allowed="a folder", outputs=UNTOUCHED, todo="put the folder itself there",
                )  # fmt: skip

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new, empty run folder.

        Raises:
            RunError: something is there already.
        """
        made = cls(path)
        try:
            if there(path) and (path.is_symlink() or not path.is_dir() or not _unused(path)):
                resumable = any((path / "checkpoints").glob("step-*.json"))
                raise RunError(
                    "a run folder must be new or empty",
                    where=str(path),
                    got="a link" if path.is_symlink() else "a folder with files in it" if path.is_dir() else "a file",
                    outputs=UNTOUCHED,
                    todo="choose another --run folder"
                    + (f", or continue that one: hil resume {quoted(path)}" if resumable else ""),
                )
            made._new = not path.exists()
            made._before = frozenset() if made._new else frozenset(entry.name for entry in path.iterdir())
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: no name that a folder can have
            raise RunError(
                "cannot make the run folder",
                where=str(path),
                got=(error.strerror if isinstance(error, OSError) else "") or str(error),
                allowed="a folder that you may write to",
                outputs=UNTOUCHED,
                todo="choose another --run folder",
            ) from error
        return made

    def clear(self) -> None:
        """Remove what a run wrote here, by name; what else is in the folder stays."""
        self.journal.close()
        sweep(self.path)
        for name in (*FOLDERS, *FILES):
            if name not in (self._before or ()):
                remove_tree(self.path / name)

    def discard(self) -> None:
        """Take back what was written here since `create`; what was there before stays."""
        if self._before is None:
            return
        self.clear()
        if self._new:
            with contextlib.suppress(OSError):  # somebody put something into it
                self.path.rmdir()

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder.

        Raises:
            RunError: it is not one.
        """
        if not (path / "config.toml").is_file():
            raise RunError(
                "not a run folder",
                where=str(path),
                got="no such folder" if not path.exists() else "no config.toml in it" if path.is_dir() else "a file",
                outputs=UNTOUCHED,
                todo="name a folder that hil train made; hil list runs shows them",
            )
        return cls(path)

    @property
    def config(self) -> Path:
        """Path of config.toml: the whole experiment."""
        return self.path / "config.toml"

    @property
    def checkpoints(self) -> Path:
        """Path of the folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """Path of report.html."""
        return self.path / "report.html"

    def write_config(self, text: str) -> None:
        """Raises: RunError: it cannot be written."""
        write_atomic(self.config, text.encode())

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file in the folder, whole or not at all; NaN is allowed."""
        write_atomic(self.path / name, (json.dumps(value, indent=1, allow_nan=True) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """The mapping in `name`, empty if there is no such file.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / name
        return read_object(path) if there(path) else {}

    def note(self, kind: str, **facts: object) -> None:
        """Write one line to the journal: what happened, when. Any thread may.

        Raises:
            RunError: it cannot be written.
        """
        self.journal.note(kind, **facts)

    def measure(self, *lines: Mapping[str, object]) -> None:
        """Append lines to metrics.jsonl, in one write and durably.

        Raises:
            RunError: they cannot be written.
        """
        path = self.path / "metrics.jsonl"
        try:
            append(path, "".join(json.dumps(line) + "\n" for line in lines).encode(), durable=True)
        except OSError as error:
            raise RunError(
                f"cannot write: {error.strerror}", where=str(path), allowed="a regular file, and free space",
                todo="free space, then hil resume",
            ) from error  # fmt: skip

    def forget_metrics_after(self, epoch: int) -> list[str]:
        """Drop metric lines of epochs that a resumed checkpoint has not finished: they will be made again.

        Returns what cannot be made again: damaged lines, and finished epochs that have none.
        """
        path = self.path / "metrics.jsonl"
        kept, seen, lost = [], set(), []
        for line in read_bytes(path, MOST_METRICS_BYTES).split(b"\n") if there(path) else []:
            try:
                facts = loads(line, str(path))
                of, split = int(facts["epoch"]), str(facts["split"])
            except (RunError, ValueError, TypeError, KeyError, OverflowError):  # a torn last line of a killed run, too
                continue
            if of <= epoch and (of, split) not in seen:
                seen.add((of, split))
                kept.append(line)
        for of in range(1, epoch + 1):
            gone = [split for split in ("train", "validation") if (of, split) not in seen]
            if gone:
                lost.append(f"metrics.jsonl: no readable line of epoch {of} ({', '.join(gone)}); the curves lack it")
        if there(path):
            write_atomic(path, b"".join(line + b"\n" for line in kept))
        return lost

    def sweep(self) -> None:
        """Remove what killed processes left half written."""
        for place in (self.path, self.checkpoints):
            sweep(place)

    @property
    def free_bytes(self) -> int:
        """Return the free bytes, for this user, of the disk that the folder lies on."""
        return shutil.disk_usage(self.path).free
