"""Start of a Python process of ours: with our modules, and none that lie in the working directory.

Python puts the folder that it is started in, or that of a script, before its own library: a `json.py` there would be run. A
child of ours is started with a safe path (-P), and finds what this process finds in the same order, except that folders which
nobody named in PYTHONPATH come last: there, a module of the user's is found, and none of Python's or of a package is hidden.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

SAFE = "PYTHONSAFEPATH"
NAMES = (
    "SIGKILL", "SIGSTOP", "SIGCONT", "SIGCHLD",
    "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS",
)  # fmt: skip
KEPT = {getattr(signal, name) for name in NAMES if hasattr(signal, name)}  # not every system has all of them
"""What cannot be ignored, or tells of a fault of this process itself."""


def deaf() -> None:
    """Ignore every other signal: the trainer's end is what counts, whatever a terminal, a timer or a batch system says."""
    for number in signal.valid_signals() - KEPT:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def importing() -> Iterator[None]:
    """Inside, modules are imported without garbage collections, which find nothing; later ones leave alone what is there now.

    It saves a sixth of the time that torch takes, and later a pause of a tenth of a second now and then.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def command(module: str) -> list[str]:
    """The command line of `python -m module`."""
    return [sys.executable, "-P", "-m", module]


def environment(more: Mapping[str, str] = {}) -> dict[str, str]:
    """Return the environment of a child: ours, with the search path and `more`."""
    return {**os.environ, **more, "PYTHONPATH": os.pathsep.join(search_path())}


def search_path() -> list[str]:
    """`sys.path`, absolute: without the working directory that stands for "" in it, and with added folders last."""
    library = os.path.realpath(sysconfig.get_path("stdlib"))
    named = {os.path.realpath(entry or os.curdir) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    known = [os.path.realpath(entry) for entry in sys.path if entry]
    begin = known.index(library) if library in known else 0
    early, late = known[:begin], known[begin:]
    zipped = [entry for entry in early if entry.endswith(".zip") and os.path.dirname(entry) == os.path.dirname(library)]
    first = [entry for entry in early if entry in zipped or ("PYTHONPATH" in os.environ and entry in named)]
    return list(dict.fromkeys([*first, *late, *(entry for entry in early if entry not in first)]))


@contextmanager
def safely_spawning() -> Iterator[None]:
    """Inside, processes that multiprocessing starts have a safe path too; they take `sys.path` over from this one."""
    before = os.environ.get(SAFE)
    os.environ[SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE]
        else:
            os.environ[SAFE] = before
