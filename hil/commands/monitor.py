"""What `hil monitor` does: find the folders, and serve the page about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hil.errors import UNTOUCHED, ConfigError
from hil.run.index import Index

ROOTS = ("runs", "compare", "calibrations")  # where the other commands put what they make


def monitor(roots: Sequence[Path], port: int, read_only: bool, out: Console) -> None:
    """Serve the page about everything in `roots` until Ctrl-C.

    Args:
        roots: folders of runs; none: those that the other commands write to, as far as they are there.
        port: to listen at; 0: a free one.
        read_only: nobody may change anything.
        out: where the addresses are printed.

    Raises:
        ConfigError: NiceGUI is not installed, or one of `roots` is no folder. OpenFailed: the port is taken.
    """
    wrong = [root for root in roots if not root.is_dir()]
    if wrong:
        raise ConfigError(
            "nothing to look at", where="hil monitor", got=f"{wrong[0]}: {'a file' if wrong[0].exists() else 'no such folder'}",
            allowed="folders of runs, comparisons, searches or calibrations", outputs=UNTOUCHED, todo="name another folder",
        )  # fmt: skip
    try:
        from hil.monitor.server import serve
    except ModuleNotFoundError as error:
        if error.name != "nicegui":
            raise
        raise ConfigError(
            "the package nicegui is not installed", where="hil monitor", got="no module named nicegui",
            allowed="NiceGUI 3 or later", outputs=UNTOUCHED, todo='pip install "hil[monitor]"',
        ) from error  # fmt: skip

    def say(lines: Sequence[str]) -> None:
        for line in lines:
            out.print(line, markup=False, soft_wrap=True)

    shown = tuple(roots) or tuple(path for path in map(Path, ROOTS) if path.is_dir()) or (Path(ROOTS[0]),)
    serve(Index(shown), port, read_only, say)
    out.print("monitor ended; no run was touched")
