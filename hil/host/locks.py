"""Locks of a host's own, where it cannot inherit those of its trainer.

    trainer   locks the device, and is the one who is named to others     gone with the trainer
    host      locks a second file, before it opens the device             gone with the host

The trainer that comes next may own the device at once, and its host waits here: no host opens a device that another one still
makes safe. Where files are inherited the host holds the trainer's own, and none of these.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from hil import system
from hil.errors import RunError

PAUSE_S = 0.2


def hold(paths: Sequence[str], within_s: float) -> tuple[int, ...]:
    """Lock files until this process ends; they are made if they are not there.

    Args:
        paths: of the files.
        within_s: how long a host is waited for that has one.

    Returns:
        their descriptors, open.

    Raises:
        RunError: another host still has one, or this disk cannot lock.
    """
    until_s = time.monotonic() + within_s
    return tuple(_held(Path(path), until_s) for path in paths)


def _held(path: Path, until_s: float) -> int:
    while True:
        try:
            file = system.open_file(path, os.O_RDWR | os.O_CREAT, 0o600, follow=False)
            try:
                if system.try_lock(file) and _is_at(path, file):
                    return file
            except OSError:
                os.close(file)
                raise
        except OSError as error:
            raise RunError(
                "this device cannot be locked", where=str(path), got=error.strerror or str(error), allowed="a local disk",
                outputs="untouched; nothing was opened",
            ) from error  # fmt: skip
        os.close(file)
        if time.monotonic() > until_s:
            raise RunError(
                "a host of an earlier program still has this device", where=str(path), allowed="one host at a time",
                outputs="untouched; that host makes them safe", todo="wait until it has ended, or end that process",
            )  # fmt: skip
        time.sleep(PAUSE_S)


def _is_at(path: Path, file: int) -> bool:
    """False if the file was swept away while it was opened."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file))
    except FileNotFoundError:
        return False
