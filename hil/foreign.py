"""Exceptions of code that is not hil's: a node, a learner, a data set, torch. Where they come in they become one of ours.

    with foreign("learner Mine, step 12"):
        learner.step(...)

Everything is mapped, SystemExit too, but a KeyboardInterrupt: that is the user's. What is said names the innermost lines of the
user's own code; lines of hil, of torch and of other libraries explain nothing to who wrote the rest.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hil.errors import ForeignError, HilError
from hil.own_packages import NAMES, confused

MADE_SAFE = "as after the last shot; they are made safe now"
AGAIN = "correct that code or the setting that leads there, then hil resume; until then a resume meets the same error again"
SMALLER = "make [train] batch or the network smaller, or free memory, then hil resume"
HERE = Path(__file__).resolve().parents[1]
OURS = tuple(str(HERE / name) + os.sep for name in ("hil", *NAMES))
PACKAGES = ("site-packages", "dist-packages")
STANDARD = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))
LIBRARIES = (
    "torch", "numpy", "scipy", "pydantic", "pyvisa", "pyvisa_py", "serial", "rich", "cyclopts", "matplotlib", "deap",
    "distributed", "dask", "safetensors", "pint", "_pytest", "pytest", "pluggy",
)  # fmt: skip
MOST_TEXT, MOST_LINES = 400, 3


class foreign:
    """A context around code that is not hil's; torch's default dtype and grad mode are afterwards what they were.

    Args:
        where: the place: which node, learner, data; and which step.
        kind: of error; a Refused where nothing was trained yet.
        outputs, todo: as of every error.

    Raises:
        kind: whatever was raised inside and is neither ours nor a KeyboardInterrupt.
    """

    def __init__(self, where: str, kind: type[HilError] = ForeignError, outputs: str = MADE_SAFE, todo: str = AGAIN) -> None:
        self._where, self._kind, self._outputs, self._todo = where, kind, outputs, todo

    def __enter__(self) -> None:
        self._defaults = _defaults()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _restored(self._defaults)
        if error is not None and not isinstance(error, HilError | KeyboardInterrupt):
            raise mapped(error, self._where, self._kind, self._outputs, self._todo) from error


def mapped(
    error: BaseException, where: str, kind: type[HilError] = ForeignError, outputs: str = MADE_SAFE, todo: str = AGAIN
) -> HilError:
    """Map `error` to one of ours."""
    got = said(error)
    if isinstance(error, MemoryError) or "out of memory" in got or "can't allocate memory" in got:
        todo = SMALLER
    todo = confused(error) or todo
    return kind(f"it raised {type(error).__name__}", where=where, got=got, outputs=outputs, todo=todo, at=own_lines(error))


def said(value: object, most: int = MOST_TEXT) -> str:
    """The text of an exception or of a value, in one line, whatever its class does when it is asked for it."""
    try:
        text = " ".join(str(value).split())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (it may be anybody's class)
        return f"no text, as __str__ of {type(value).__name__} raises {type(error).__name__}"
    return text if len(text) <= most else text[: most - 3] + "..."


def own_lines(error: BaseException) -> tuple[str, ...]:
    """Return the innermost frames that belong to the user, each "file:line, in function: source", the innermost last."""
    found: list[str] = []
    for frame in reversed(traceback.extract_tb(error.__traceback__, limit=-200)):
        if not _library(frame.filename):
            source = f": {frame.line}" if frame.line else ""
            line = f"{_short(frame.filename)}:{frame.lineno}, in {frame.name}{source}"
            found += [line] if line not in found else []  # of a recursion one
        if len(found) == MOST_LINES:
            break
    return tuple(reversed(found))


def _library(name: str) -> bool:
    path = os.path.abspath(name) if not name.startswith("<") else name
    if path.startswith(("<frozen", *OURS)):
        return True
    parts = path.split(os.sep)
    for folder in PACKAGES:  # of whichever environment
        if folder in parts[:-1]:
            return parts[parts.index(folder) + 1].removesuffix(".py") in LIBRARIES
    return path.startswith(STANDARD)


def _short(name: str) -> str:
    """Write a path relative to the working directory if it is below."""
    try:
        return name.removeprefix(os.getcwd() + os.sep)
    except OSError:  # the working directory is gone
        return name


def _defaults() -> Sequence[Any]:
    torch = sys.modules.get("torch")
    there = torch is not None and hasattr(torch, "get_default_dtype")
    return (torch.get_default_dtype(), torch.is_grad_enabled()) if torch is not None and there else ()


def _restored(before: Sequence[Any]) -> None:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "set_grad_enabled"):  # not there, or only half imported
        return
    dtype, grad = before or (torch.float32, True)
    if torch.get_default_dtype() is not dtype:
        torch.set_default_dtype(dtype)
    if torch.is_grad_enabled() is not grad:
        torch.set_grad_enabled(grad)
