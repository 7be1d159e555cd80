"""Search for modules of the user's that a file names, as in `use = "my_lab:Thing"`.

    1  Python's own library and what is installed: nothing that lies about can stand in for it
    2  the folder of the file that names it; for a copy in a run folder, the folders that origins.json names
    3  folders of other files of the same command (`also`)
    4  the working directory

A folder joins the end of `sys.path` when a name is found in it, and not before: a module of the user's finds its neighbours,
and processes that are started later find what this one does.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from hil.errors import RunError
from hil.files import read_object

ORIGINS = "origins.json"  # in a run folder: {"config.toml": ["/home/me/experiments"], ...}
LOCK = "run.lock"  # what every run folder has
_found: dict[str, str] = {}  # name of a module of the user's -> its folder
_folders: list[str] = []  # the end of sys.path, last asked for first
_also: list[Path] = []


def begin() -> None:
    """A command begins: what an earlier one in this process named is forgotten."""
    _also.clear()


def also(*files: Path) -> None:
    """Note that these files take part in the command, so modules beside them are found."""
    _also.extend(file.resolve().parent for file in files)


def origins(files: Mapping[str, Sequence[Path]]) -> bytes:
    """The content of origins.json.

    Args:
        files: name of a copy in the run folder -> files whose folders its modules are found in.
    """
    table = {name: [str(file.resolve().parent) for file in named] for name, named in files.items()}
    return (json.dumps(table, indent=1) + "\n").encode()


def imported(name: str, where: str) -> ModuleType:
    """The module `name`, named in `where`: a path, and what follows it after ": " or " (".

    Raises: whatever importing it raises.
    """
    top = name.partition(".")[0]
    if top in _found or not _known(top):
        folder = next((str(f) for f in _places(where) if PathFinder.find_spec(top, [str(f)]) is not None), None)
        if folder is not None and _found.get(top) != folder:
            _join(top, folder)
    return importlib.import_module(name)


def _known(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None
    except (ValueError, ImportError):  # made by hand, or a finder of somebody's fails: importing says what is wrong
        return True


def _join(top: str, folder: str) -> None:
    for module in [m for m in sys.modules if m == top or m.startswith(f"{top}.")]:
        del sys.modules[module]  # of the same name, from another folder
    _found[top] = folder
    kept = [entry for entry in sys.path if entry not in _folders]
    _folders[:] = [folder, *(entry for entry in _folders if entry != folder)]
    sys.path[:] = [*kept, *(entry for entry in _folders if entry not in kept)]
    importlib.invalidate_caches()


def folders(where: str) -> list[str]:
    """Return the folders that a module named in `where` is looked for in, the first one first."""
    return [str(folder) for folder in _places(where)]


def _places(where: str) -> Iterator[Path]:
    file = _file_of(where)
    if file is not None:
        yield from _beside(file)
    yield from _also
    yield Path.cwd()


def _beside(file: Path) -> Sequence[Path]:
    folder = file.resolve().parent
    if not os.path.lexists(folder / LOCK):
        return [folder]
    try:
        named = read_object(folder / ORIGINS).get(file.name)
    except RunError:  # an older run, or a damaged one: the working directory is left
        return []
    return [Path(entry) for entry in named if isinstance(entry, str) and "\0" not in entry] if isinstance(named, list) else []


def _file_of(where: str) -> Path | None:
    """The longest beginning of `where` that is a file."""
    ends = [len(where), *sorted((i for i in range(len(where)) if where.startswith((": ", " ("), i)), reverse=True)]
    return next((Path(where[:end]) for end in ends if os.path.isfile(where[:end])), None)
