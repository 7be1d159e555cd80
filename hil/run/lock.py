"""run.lock: whose run folder this is. The file stays; the lock on it (flock) is there as long as the process that took it.

    {"pid": 4711, "host": "bench-pc", "since": "2026-11-25T01:15:42+00:00", "command": "hil resume runs/x"}

The kernel lets go of the lock when the process ends, however it ends, so a lock is never stale. A run is not kept on a disk
that cannot lock: a pid in a file says nothing of a process on another computer that has mounted the same disk.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hil.errors import UNTOUCHED as UNTOUCHED
from hil.errors import HilError, RunError
from hil.files import loads, open_to_write, opened
from hil.hints import quoted
from hil.system import LOCKED_BYTES, host_name, read_at, try_lock, write_at

NAME = "run.lock"
DYING_S = 0.3  # a process that was killed while it started another leaves the lock to that one for a moment
PATIENCE_S = 0.5  # somebody who only looks holds a shared lock for a moment
CONTENT_CAP = 1 << 16  # bytes


@dataclass(frozen=True)
class RunOwner:
    """The program that holds a run folder, or held it last.

    Args:
        alive: holds it now. pid 0: not known.
    """

    pid: int
    host: str
    since: str
    command: str
    alive: bool

    def __str__(self) -> str:
        return f"process {self.pid or 'unknown'} on {self.host or 'an unknown host'}, since {self.since or 'an unknown time'}"


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Be the one process that writes to `folder`.

    Raises:
        RunError: another process does, the folder is not writable, or its disk cannot lock.
    """
    path = folder / NAME
    try:
        file = open_to_write(path, os.O_RDWR)
    except OSError as error:
        raise RunError(
            f"cannot take the run folder: {error.strerror}", where=str(path), allowed="a folder that you may write to",
            outputs=UNTOUCHED, todo="make it writable",
        ) from error  # fmt: skip
    try:
        if not _locked(file, False, PATIENCE_S):
            raise RunError(
                "another process is at work in this run folder", where=str(folder), got=str(owner(folder)),
                outputs="untouched by this command; nothing was opened",
                todo=f"look at it: hil status {quoted(folder)}; to end it as Ctrl-C does: kill -INT {_read(file)[0] or 'PID'}",
            )  # fmt: skip
        _write(file)
    except OSError as error:
        os.close(file)
        raise RunError(
            "this disk cannot lock files", where=str(path), got=error.strerror or str(error),
            allowed="a local disk, or one that is mounted with locks; NFS and FUSE may have none", outputs=UNTOUCHED,
            todo="choose a --run folder on a local disk; move a run that is to go on there first",
        ) from error  # fmt: skip
    except BaseException:
        os.close(file)
        raise
    try:
        yield
    finally:
        os.close(file)  # and with it the lock


def owner(folder: Path, patience_s: float = DYING_S) -> RunOwner | None:
    """Return who has `folder`, or had it last; None if nobody ever took it. Touches nothing.

    Nobody has it where a disk cannot lock.

    Args:
        folder: of the run.
        patience_s: how long a lock must be held to count; 0 for those who look again soon.
    """
    try:
        with opened(folder / NAME) as file:
            try:
                alive = not _locked(file.fileno(), True, patience_s)
            except OSError:
                alive = False
            return RunOwner(*_read(file.fileno()), alive)
    except RunError:
        return None


def _locked(file: int, shared: bool, patience_s: float) -> bool:
    """Raises: OSError: this disk cannot lock."""
    end = time.monotonic() + patience_s
    while not try_lock(file, shared):
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True


def _write(file: int) -> None:
    """Write who owns the folder, if the disk takes it: a full one must not keep a run from being resumed."""
    facts = {
        "pid": os.getpid(),
        "host": host_name(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["hil", *sys.argv[1:]])[:500],
    }
    try:
        os.ftruncate(file, 0)
        write_at(file, (json.dumps(facts) + "\n").encode(), LOCKED_BYTES)
    except OSError:
        return


def _read(file: int) -> tuple[int, str, str, str]:
    try:
        facts = loads(read_at(file, CONTENT_CAP, LOCKED_BYTES), NAME)
        pid = facts["pid"]
        return pid if isinstance(pid, int) else 0, *(str(facts[name])[:500] for name in ("host", "since", "command"))  # type: ignore[return-value]
    except (OSError, HilError, KeyError, TypeError):
        return 0, "", "", ""
