"""A run is a folder on disk; this file knows its names and how to write them without ever leaving half a file.

    config.toml  bench.toml  calibration.toml  metrics.jsonl  journal.jsonl  summary.json  diagnostics.json
    checkpoints/  report.html  run.lock

Whole files are written to a temporary name, fsynced, renamed, and their folder fsynced. Lines are appended in one write each,
so a killed process leaves at most one torn last line, which readers report and skip.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hil.errors import RunError
from hil.files import write_atomic
from hil.hints import quoted
from hil.run.journal import Journal
from hil.run.owner import UNTOUCHED, owned


def _unused(path: Path) -> bool:
    """Empty, or left by a process that was killed before there was a config.toml, so that nothing was begun."""
    return all(
        entry.name in ("bench.toml", "calibration.toml", "run.lock")
        or entry.name.endswith(".part")
        or (entry.is_dir() and not any(entry.iterdir()))
        for entry in path.iterdir()
    )


class RunFolder:
    """Args: path: of the folder; made by `create`, checked by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")
        self._owned = False

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Be the one process that writes here; inside another such block of this object it does nothing.

        Raises:
            RunError: another process is at work here; its pid is named.
        """
        if self._owned:
            yield
            return
        with owned(self.path):
            self._owned = True
            try:
                yield
            finally:
                self._owned = False
                self.journal.close()

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new, empty run folder.

        Raises:
            RunError: something is there already.
        """
        try:
            if path.exists() and (not path.is_dir() or not _unused(path)):
                resumable = any((path / "checkpoints").glob("step-*.json"))
                raise RunError(
                    "a run folder must be new or empty",
                    where=str(path),
                    got="a folder with files in it" if path.is_dir() else "a file",
                    outputs=UNTOUCHED,
                    todo="choose another --run folder"
                    + (f", or continue that one: hil resume {quoted(path)}" if resumable else ""),
                )
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
        return cls(path)

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
        return self.path / "config.toml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def write_config(self, text: str) -> None:
        """Raises: RunError: it cannot be written."""
        write_atomic(self.config, text.encode())

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        write_atomic(self.path / name, (json.dumps(value, indent=1, allow_nan=True) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """The mapping in `name`, empty if there is no such file.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / name
        if not path.exists():
            return {}
        try:
            value = json.loads(path.read_text())
        except (ValueError, OSError, RecursionError) as error:
            raise RunError("a damaged file", where=str(path), got=str(error), todo="restore it, or start a new run") from error
        if not isinstance(value, dict):
            raise RunError("a damaged file", where=str(path), got=type(value).__name__, allowed="a JSON object")
        return value

    def note(self, kind: str, **facts: object) -> None:
        """One line in the journal: what happened, when. Any thread may.

        Raises:
            RunError: it cannot be written.
        """
        self.journal.note(kind, **facts)

    def measure(self, *lines: Mapping[str, object]) -> None:
        """Lines in metrics.jsonl, in one write and durably.

        Raises:
            RunError: they cannot be written.
        """
        path = self.path / "metrics.jsonl"
        try:
            with path.open("ab") as file:
                before = file.tell()
                try:
                    file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        os.truncate(path, before)  # half a line is worse than none
                    raise
        except OSError as error:
            raise RunError(f"cannot write: {error.strerror}", where=str(path), todo="free space, then hil resume") from error

    def forget_metrics_after(self, epoch: int) -> list[str]:
        """Drop metric lines of epochs that a resumed checkpoint has not finished: they will be made again.

        Returns what cannot be made again: damaged lines, and finished epochs that have none.
        """
        path = self.path / "metrics.jsonl"
        kept, seen, lost = [], set(), []
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                facts = json.loads(line)
                of, split = int(facts["epoch"]), str(facts["split"])
            except (
                ValueError,
                TypeError,
                KeyError,
                OverflowError,
                RecursionError,
            ):  # a torn last line of a killed run is dropped too
                continue
            if of <= epoch and (of, split) not in seen:
                seen.add((of, split))
                kept.append(line)
        for of in range(1, epoch + 1):
            gone = [split for split in ("train", "validation") if (of, split) not in seen]
            if gone:
                lost.append(f"metrics.jsonl: no readable line of epoch {of} ({', '.join(gone)}); the curves lack it")
        if path.exists():
            write_atomic(path, b"".join(line + b"\n" for line in kept))
        return lost

    def sweep(self) -> None:
        """Remove what killed processes left half written."""
        for place in (self.path, self.checkpoints):
            for path in place.glob(".*.part"):
                with contextlib.suppress(OSError):
                    path.unlink()

    @property
    def free_bytes(self) -> int:
        """Of the disk that the folder lies on, for who writes here."""
        return shutil.disk_usage(self.path).free
