"""Check that a run folder is one's own: going on with a run executes what its files name.

`hil resume`, `use` and `replay` import the modules that config.toml and bench.toml name, and run the command of [alarm]. A
folder of another user, or one that other users may write to, is therefore asked about once, before anything of it is opened.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hil.errors import RunError
from hil.system import open_to_others, own

OPTION = "--trust"
EXECUTED = (
    "config.toml", "bench.toml", "search.toml", "calibration.toml", "projection.toml", "projection_calibration.toml",
    "origins.json", "checkpoints", "tape",
)  # fmt: skip
UNTOUCHED = "untouched; nothing was opened"
Ask = Callable[[str], bool]


def check(folder: Path, trusted: bool, ask: Ask | None = None) -> None:
    """Return if the folder may be executed.

    Args:
        folder: of a run, or of another file's.
        trusted: the user says so already.
        ask: puts a question to the user; None: there is a terminal, or nobody.

    Raises:
        RunError: it is somebody else's, and nobody says that it is meant.
    """
    found = "" if trusted else "; ".join(_doubts(folder))
    if not found:
        return
    question = f"{folder}: {found}. Going on with it executes what its files name. Go on?"
    if not (ask or _asked)(question):
        raise RunError(
            "this run folder is not yours alone", where=str(folder), got=found, allowed="a folder that only you write to",
            outputs=UNTOUCHED, todo=f"look at its config.toml and bench.toml; if you trust them, add {OPTION}",
        )  # fmt: skip


def _doubts(folder: Path) -> Iterator[str]:
    for path in (folder, *(folder / name for name in EXECUTED)):
        try:
            facts = path.stat()
        except (OSError, ValueError):
            continue  # whoever reads it says that it is not there
        name = path.name if path != folder else "the folder"
        if not own(facts):
            yield f"{name} belongs to user {facts.st_uid}"
        elif open_to_others(facts, stat.S_IWOTH):
            yield f"{name} is writable by every user"


def _asked(question: str) -> bool:
    """Ask on a terminal: y or N."""
    try:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except (AttributeError, OSError, ValueError):  # a stream that is closed, or was never there
        return False
