"""run.lock: whose run folder this is. The file stays; the lock on it (flock) is there as long as the process that took it.

    {"pid": 4711, "host": "bench-pc", "since": "2026-11-25T01:15:42+00:00", "command": "hil resume runs/x"}

The kernel lets go of the lock when the process ends, however it ends, so a lock is never stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hil.errors import RunError
from hil.files import open_to_write, opened, read_object

NAME = "run.lock"
MOST_BYTES = 1 << 16
DYING_S = 0.3  # a process that was killed while it started another leaves the lock to that one for a moment
PATIENCE_S = 0.5  # somebody who only looks holds a shared lock for a moment
UNTOUCHED = "untouched; nothing was opened"


@dataclass(frozen=True)
class Owner:
    """Who holds a run folder, or held it last. alive: holds it now. pid 0: not known."""

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
        RunError: another process does, or the folder is not writable.
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
        if not _locked(file, fcntl.LOCK_EX, PATIENCE_S):
            raise RunError(
                "another process is at work in this run folder", where=str(folder), got=str(owner(folder)),
                outputs="untouched by this command; nothing was opened",
                todo=f"look at it: hil status {folder}; to end it as Ctrl-C does: kill -INT {_read(path)[0] or 'PID'}",
            )  # fmt: skip
        _write(file)
        yield
    finally:
        os.close(file)  # and with it the lock


def owner(folder: Path) -> Owner | None:
    """Who has `folder`, or had it last; None if nobody ever took it. Touches nothing."""
    path = folder / NAME
    try:
        with opened(path) as file:
            alive = not _locked(file.fileno(), fcntl.LOCK_SH, DYING_S)
    except RunError:
        return None
    return Owner(*_read(path), alive)


def _locked(file: int, kind: int, patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        else:
            return True


def _write(file: int) -> None:
    """Best told, not vital: a full disk must not keep a run from being resumed."""
    facts = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["hil", *sys.argv[1:]])[:500],
    }
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, (json.dumps(facts) + "\n").encode(), 0)
    except OSError:
        return


def _read(path: Path) -> tuple[int, str, str, str]:
    try:
        facts = read_object(path, MOST_BYTES)
        pid = facts["pid"]
        return pid if isinstance(pid, int) else 0, *(str(facts[name])[:500] for name in ("host", "since", "command"))  # type: ignore[return-value]
    except (RunError, KeyError):
        return 0, "", "", ""
