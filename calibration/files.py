"""A file that is there whole or not at all: written under another name, brought to the disk, renamed."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, payload: bytes) -> None:
    """Put `payload` at `path`; what stood there is replaced only by all of it.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
