"""hil status: a run at a glance, once or again and again; read from its files alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from rich.live import Live
from rich.text import Text

from hil.commands.terminal import LOG, Terminal, broken
from hil.errors import RunError
from hil.files import opened
from hil.hints import quoted
from hil.run import status
from hil.run.lock import owner
from hil.run.outputs import outputs_of
from hil.telling import Teller

EVERY_S, SHARE = 1.0, 0.05  # between two looks; of the time that may be spent on looking
SHOWN = 8  # last lines of what the run printed
TAIL_BYTES = 1 << 15


def lines(path: Path) -> Iterator[str]:
    """The status of a run for people, line by line.

    Raises:
        RunError: it is no run folder, or its journal cannot be read.
    """
    found = status.read(path)
    yield from status.lines(found)
    if not (found.owner and found.owner.alive) and (outputs := outputs_of(path)):
        todo = "; hil resume makes them safe first, or switch them off at the instrument" if outputs == "unknown" else ""
        yield f"outputs {outputs}{todo}"


def watch(path: Path, out: Terminal, every_s: float = EVERY_S) -> None:
    """Show the status of a run, and what it prints, until it ends.

    On a terminal both are drawn in the same place; elsewhere the lines that the run prints follow each other, and its status
    comes at the beginning and at the end.

    Args:
        path: of the run folder.
        out: where it is shown.
        every_s: between two looks.

    Raises:
        RunError: it is no run folder.
    """
    held = owner(path)
    if held is None or not held.alive:
        for line in lines(path):
            out.print(line, soft_wrap=True)
        return
    try:
        if out.is_terminal:
            with Live(console=out, auto_refresh=False, transient=True) as live:
                for found in _looks(path, out, every_s):
                    live.update(_drawn(path, found, out), refresh=True)
        else:
            _followed(path, out, every_s)
    except KeyboardInterrupt:
        out.print(f"the watching is over; look again: hil status --watch {quoted(path)}", soft_wrap=True)
        return
    for line in lines(path):
        out.print(line, soft_wrap=True)


def _looks(path: Path, out: Terminal, every_s: float) -> Iterator[status.Status]:
    """Read the status again and again, until nobody is at work there, or nobody sees it."""
    while not cast(Teller, out.file).lost:
        begin = time.monotonic()
        found = status.read(path)
        if found.owner is None or not found.owner.alive:
            return
        yield found
        time.sleep(max(every_s, (time.monotonic() - begin) / SHARE))


def _drawn(path: Path, found: status.Status, out: Terminal) -> Text:
    said = _tail(path / LOG)[-SHOWN:]
    text = [line for raw in [*said, "", *status.lines(found)] for line in broken(raw, out.width)]
    return Text("\n".join(text[-max(4, out.height - 1) :]))


def _followed(path: Path, out: Terminal, every_s: float) -> None:
    """Print what the run prints, as it comes."""
    for line in [*lines(path), *_tail(path / LOG)[-SHOWN:]]:
        out.print(line, soft_wrap=True)
    place, state = _size(path / LOG), ""
    for found in _looks(path, out, every_s):
        if found.state != state and state:
            out.print(f"state   {found.state}", soft_wrap=True)
        state = found.state
        place = _printed(path / LOG, place, out)
    _printed(path / LOG, place, out)


def _printed(path: Path, place: int, out: Terminal) -> int:
    """Print the whole lines behind `place`, and return where the next one begins."""
    try:
        with opened(path) as file:
            file.seek(place)
            payload = file.read(TAIL_BYTES)
    except (RunError, OSError):
        return place
    whole = payload[: payload.rfind(b"\n") + 1]
    for line in whole.decode("utf-8", "replace").splitlines():
        out.print(line, soft_wrap=True)
    return place + len(whole)


def _tail(path: Path) -> list[str]:
    """The last lines of a file; none if it cannot be read."""
    try:
        with opened(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except (RunError, OSError):
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
