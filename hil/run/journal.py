"""journal.jsonl: what happened in a run, an object a line, only ever appended to.

    {"t":"2026-11-25T01:15:42.123+00:00","kind":"commit","step":7,"epoch":1,"batch":7,"loss":0.31,"passes":14336,"device_s":1.52}
    {"t":"…","kind":"resume","step":5,…}      commits after step 5 are void: they are made again; so it is after a "roll_back"
    {"t":"…","kind":"fault","message":"…"}    any other kind: an event

A line leaves in one write to a file that stays open, so it outlives the process; a thread brings the file to the disk once a
second, and `sync` does at every checkpoint. A killed machine may leave a torn last line: readers name and skip it, and
whoever appends ends it first and says so ("torn").
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hil.errors import RunError
from hil.files import lines, loads, open_to_write, opened, there
from hil.system import read_at, to_disk

SYNC_S = 1.0
COMMIT_MARK = b'","kind":"commit",'
WHOLE = rb"(?:0|[1-9]\d{0,17})"  # what matches a commit is JSON
COMMIT = re.compile(
    rb'\{"t":"[0-9T:.+-]{29}","kind":"commit","step":#,"epoch":#,"batch":#,"loss":-?#(?:\.\d+)?(?:e[+-]?\d+)?,"passes":#,'
    rb'"device_s":#\.\d+(,"faults":#)?\}\n?'.replace(b"#", WHOLE)
)
COMMITTED = ("step", "epoch", "batch", "loss", "passes", "device_s")
COUNTS = ("step", "epoch", "batch", "passes", "faults", "epochs", "batches_per_epoch", "in_all")
NUMBERS = (*COUNTS, "device_s", "accuracy", "score")  # what is computed with, wherever it stands
LARGEST = 10**18  # of a count
TAIL_BYTES = 1 << 16
HEAD_BYTES = 1 << 12
MOST_BYTES = 1 << 33  # some fifty million steps
RETURNS = ("resume", "roll_back")  # what brings a run back to the step that they name

Record = dict[str, Any]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """Appends to the file at `path`, which is opened at the first line and ended properly if its last line is torn.

    heard: called with the kind and the facts of every event that was written, from any thread; must neither block nor raise.

    Args:
        sync_s: how long a committed step may stay away from the disk.
        now: the time of a line, ISO 8601 with offset.
    """

    def __init__(self, path: Path, sync_s: float = SYNC_S, now: Callable[[], str] = _now) -> None:
        self._path, self._sync_s, self._now = path, sync_s, now
        self.heard: Callable[[str, Mapping[str, object]], None] | None = None
        self._lock = threading.Lock()
        self._file: int | None = None
        self._dirty = False
        self._late: OSError | None = None  # what the thread could not bring to the disk
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, kind: str, **facts: object) -> None:
        """Write one event; its facts are JSON values, anything else is written as text.

        Raises:
            RunError: it cannot be written, for example as the disk is full; the file is as before.
        """
        self._append((json.dumps({"t": self._now(), "kind": kind, **facts}, default=str) + "\n").encode())
        if self.heard is not None:
            self.heard(kind, facts)

    def commit(self, step: int, epoch: int, batch: int, loss: float, passes: int, device_s: float, faults: int = 0) -> None:
        """Note a step that counts.

        Args:
            step: of the run, from 1.
            epoch: it belongs to.
            batch: of the epoch.
            loss: finite.
            passes: node evaluations since the run began.
            device_s: device time since the run began, s.
            faults: recovered since the run began.

        Raises:
            RunError: as of `note`.
        """
        more = f',"faults":{faults}' if faults else ""
        self._append(
            f'{{"t":"{self._now()}","kind":"commit","step":{step},"epoch":{epoch},"batch":{batch},"loss":{loss!r},'
            f'"passes":{passes},"device_s":{device_s:.3f}{more}}}\n'.encode()
        )

    def sync(self) -> None:
        """Wait until everything appended so far is on the disk.

        Raises:
            RunError: it is not.
        """
        with self._lock:
            if self._file is not None:
                self._dirty = False
                try:
                    to_disk(self._file)
                except OSError as error:
                    raise self._refusal(error) from error

    def close(self) -> None:
        """Bring the rest to the disk and let go of the file; the next line opens it again. May be called twice."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            file, self._file, self._thread = self._file, None, None
        self._closing.clear()
        if file is not None:
            try:
                to_disk(file)
            except OSError as error:
                raise self._refusal(error) from error
            finally:
                os.close(file)

    def _append(self, line: bytes) -> None:
        with self._lock:
            if self._late is not None:
                late, self._late = self._late, None
                raise self._refusal(late)
            try:
                file = self._opened()
                written = os.write(file, line)
                if written != len(line):
                    _completed(file, line, written)
            except OSError as error:
                raise self._refusal(error) from error
            self._dirty = True

    def _opened(self) -> int:
        if self._file is None:
            file = open_to_write(self._path, os.O_RDWR | os.O_APPEND)
            try:
                torn = _torn_bytes(file)
                if torn:
                    said = json.dumps({"t": self._now(), "kind": "torn", "bytes": torn})
                    os.write(file, f"\n{said}\n".encode())
            except OSError:
                os.close(file)
                raise
            self._file = file
            self._thread = threading.Thread(target=self._syncing, name="journal", daemon=True)
            self._thread.start()
        return self._file

    def _syncing(self) -> None:
        while not self._closing.wait(self._sync_s):
            file = self._file
            if self._dirty and file is not None:
                self._dirty = False
                try:
                    to_disk(file)  # without the lock: a step need not wait for the disk
                except OSError as error:
                    self._late = error

    def _refusal(self, error: OSError) -> RunError:
        return RunError(
            f"cannot write: {error.strerror or error}", where=str(self._path), allowed="a writable file with free space",
            todo="free space, then hil resume",
        )  # fmt: skip

    @staticmethod
    def read(path: Path) -> list[Record]:
        """Read all that can be read, in order; see `contents` for what cannot.

        Raises:
            RunError: the file is there and cannot be read at all.
        """
        return contents(path).records


def _completed(file: int, line: bytes, written: int) -> None:
    """The disk became full within `line`: write the rest, or take back what there is of it.

    Raises:
        OSError: taken back; it says why.
    """
    before = os.fstat(file).st_size - written
    try:
        if written + os.write(file, line[written:]) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(file, before)
        raise


def _torn_bytes(file: int) -> int:
    """Return how long the last line is if it has no end, else 0."""
    size = os.fstat(file).st_size
    tail = read_at(file, TAIL_BYTES, max(0, size - TAIL_BYTES))
    return len(tail) - (tail.rfind(b"\n") + 1)


@dataclass
class Contents:
    """The content of a journal.

    Args:
        records: in order; of the commits all, or some, as asked for.
        last: the last commit.
        torn: where a killed process left half a line.
        damaged: lines that no kill can explain, and why.
    """

    records: list[Record] = field(default_factory=list)
    last: Record | None = None
    torn: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def events(self) -> list[Record]:
        """All but commits."""
        return [record for record in self.records if record["kind"] != "commit"]


def contents(path: Path, most: int | None = None) -> Contents:
    """Read the journal at `path`; no file is an empty one.

    Args:
        path: of journal.jsonl.
        most: keep no more than about so many commits, evenly; None: all of them.

    Raises:
        RunError: it cannot be read at all.
    """
    found = Contents()
    wrong: list[tuple[int, str, bool]] = []  # line number, why, whether a "torn" follows
    stride, next_kept, newest, skipped, number, last_ended = _stride(path, most), 0, b"", b"", 0, True
    if not there(path):
        return found
    with opened(path, most=MOST_BYTES) as file:
        offset = 0
        for number, raw in enumerate(lines(file, str(path)), 1):
            offset += len(raw)
            if COMMIT_MARK in raw[:60] and COMMIT.fullmatch(raw):
                newest = skipped = raw
                if offset < next_kept or most == 0:
                    continue
                next_kept = offset + stride
            elif skipped and most:  # the last commit before an event is always kept
                found.records.append(json.loads(skipped))
            skipped = b""
            record = _parsed(raw, number, wrong)
            if record is not None and wrong and record["kind"] == "torn" and wrong[-1][0] == number - 1:
                wrong[-1] = (*wrong[-1][:2], True)
            if record is not None:
                found.records.append(record)
            last_ended = raw.endswith(b"\n")
        if wrong and wrong[-1][0] == number and not last_ended:
            wrong[-1] = (*wrong[-1][:2], True)
        if skipped and most:
            found.records.append(json.loads(skipped))
    found.last = json.loads(newest) if newest else None
    for number, why, torn in wrong:
        (found.torn if torn else found.damaged).append(f"line {number}: {why}")
    return found


def ends(path: Path, first: int = HEAD_BYTES, last: int = TAIL_BYTES) -> tuple[list[Record], list[Record], int]:
    """Read the first and the last lines of the journal at `path`, in a time that does not grow with its length.

    Args:
        path: of journal.jsonl; no file is an empty one.
        first: bytes at its beginning.
        last: bytes at its end.

    Returns:
        records of the first lines; of the last lines; how many whole lines among them cannot be read. Of commits that follow
        each other the first and the last are kept. A torn last line is left out.

    Raises:
        RunError: it cannot be read at all.
    """
    if not there(path):
        return [], [], 0
    with opened(path, most=MOST_BYTES) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            head = b"" if size <= last else file.read(first)
            file.seek(max(0, size - last))
            tail = file.read(last)
        except OSError as error:
            raise RunError("cannot read this file", where=str(path), got=error.strerror or str(error)) from error
    wrong: list[tuple[int, str, bool]] = []
    pieces = head.split(b"\n")[:-1], tail.split(b"\n")[1 if size > last else 0 : -1]  # parts of lines are left out
    found = [[record for raw in _outer(piece) if (record := _parsed(raw, 0, wrong)) is not None] for piece in pieces]
    return found[0] or found[1][:1], found[1], len(wrong)


def _outer(raws: Sequence[bytes]) -> Iterator[bytes]:
    """Leave out of commits that follow each other all but the first and the last."""
    inner = b""
    before = False
    for raw in raws:
        commit = COMMIT_MARK in raw[:60] and COMMIT.fullmatch(raw) is not None
        if commit and before:
            inner = raw
            continue
        if inner:
            yield inner
        inner, before = b"", commit
        yield raw
    if inner:
        yield inner


def _stride(path: Path, most: int | None) -> int:
    try:
        return path.stat().st_size // most if most else 0
    except OSError:
        return 0


def _parsed(raw: bytes, number: int, wrong: list[tuple[int, str, bool]]) -> Record | None:
    if not raw.strip():
        return None
    try:
        record = loads(raw, f"line {number}")
    except RunError as error:
        wrong.append((number, error.got, False))
        return None
    why = _odd(record)
    if why:
        wrong.append((number, why, False))
        return None
    return record  # type: ignore[no-any-return]


def _odd(record: object) -> str:
    """Say why nobody can go by what a line says, or ""."""
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return "not an object with a kind"
    due = COMMITTED if record["kind"] == "commit" else ()
    for name in (*due, *(name for name in NUMBERS if record.get(name) is not None)):
        value: Any = record.get(name)
        if type(value) not in (int, float) or not (math.isfinite(value) if isinstance(value, float) else abs(value) < LARGEST):
            return f"{name} = {str(value)[:40]}"
    whole = [name for name in COUNTS if isinstance(record.get(name), float)]
    return f"{whole[0]} = {record[whole[0]]}" if whole else ""


def committed(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The commits that count after any number of resumes and returns: each of them to step N voids the commits after N."""
    kept: list[Mapping[str, Any]] = []
    for record in records:
        step = record.get("step")
        if not isinstance(step, int):
            continue
        if record.get("kind") in RETURNS:
            while kept and kept[-1]["step"] > step:
                kept.pop()
        elif record.get("kind") == "commit":
            kept.append(record)
    return kept


def missing(commits: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Say what is wrong with a sequence of committed steps, which must be 1, 2, 3 …; nothing if it is whole."""
    due = 1
    for record in commits:
        step = record["step"]
        if step != due:
            yield f"step {step} where {due} was due"
        due = step + 1


def message(event: Mapping[str, Any]) -> str:
    """Return what an event says besides its time and kind: its message, then its facts."""
    said = [str(event[key]) for key in ("message", "what") if key in event]
    rest = [f"{key} {_short(value)}" for key, value in event.items() if key not in ("t", "kind", "message", "what")]
    return "; ".join([*said, *([", ".join(rest)] if rest else [])])


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_short(inner)}" for key, inner in value.items()) + ")"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
