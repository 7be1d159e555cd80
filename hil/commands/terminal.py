"""The console that everything is printed through: no markup, no control characters but its own.

A line that is longer than the terminal is wide is broken at a blank, and goes on below its text: "data    digits: …" below
"digits". Words are never broken, so that a path can be copied. Where nobody said how wide it is, as in a log, lines stay whole.

What is printed can be kept in a file besides, for those who look later: see `keep`.

A text is shown letter by letter: "[bold]" in a name is no style, ":boom:" no picture, an escape sequence is shown, not sent.
Colours come from `style=` alone.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.control import Control
from rich.segment import Segment

from hil.files import open_to_write
from hil.plain import plain
from hil.telling import Teller

LABEL = re.compile(r"\s*\S+(?: \S+)?\s{2,}(?=\S)|\s*")  # what a line begins with: "data    ", " epoch  1/12  "
GAP = re.compile(r"(?<=\S) {3,}(?=\S)")
URGENT = re.compile(r"\s*(beware|paused|!)")  # how a line begins that nobody may miss
LOG, LOG_WIDTH = "output.log", 160  # of a run folder
Level = Literal["quiet", "normal", "debug"]


class Terminal(Console):
    """A rich Console. Markup, emoji and highlight are off unless asked for.

    copy: what is printed goes there too; None: nowhere.

    Args:
        breaks: long lines are broken at the width.
        level: "quiet" shows what nobody may miss alone; the copy gets all.
        settings: those of rich's.
    """

    def __init__(self, *, breaks: bool = False, level: Level = "normal", **settings: Any) -> None:
        plainly = {"force_terminal": False} if level == "quiet" else {}  # no bar that moves
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **plainly, **settings})
        self._breaks, self.level = breaks, level
        self.copy: Terminal | None = None

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print as rich does; texts as this console breaks them."""
        of_display = bool(objects) and all(isinstance(part, Control) for part in objects)
        if self.copy is not None and not of_display:
            self.copy.print(*objects, **settings)
        if self.level == "quiet" and not of_display and not (objects and URGENT.match(str(objects[0]))):
            return
        if self._breaks and settings.get("soft_wrap"):
            width = self.width
            objects = tuple("\n".join(broken(part, width)) if isinstance(part, str) else part for part in objects)
        super().print(*objects, **settings)

    def keep(self, folder: Path, title: str) -> None:
        """Keep what is printed in output.log of a run folder as well, at its end; nothing is kept if it cannot be opened.

        Args:
            folder: of the run.
            title: what began, for the first line.
        """
        self.leave()
        with suppress(OSError):
            stream = os.fdopen(open_to_write(folder / LOG, os.O_APPEND), "a", encoding="utf-8")
            self.copy = Terminal(file=cast(IO[str], Teller(stream)), width=LOG_WIDTH, color_system=None)
            self.copy.print(f"--- {datetime.now():%Y-%m-%d %H:%M:%S}  {title}, process {os.getpid()}", soft_wrap=True)

    def leave(self) -> None:
        """Keep nothing any more."""
        if self.copy is not None:
            cast(Teller, self.copy.file).shut()
            self.copy = None

    @contextmanager
    def kept(self, folder: Path, title: str) -> Iterator[None]:
        """Keep what is printed meanwhile, unless it is kept already."""
        if self.copy is not None:
            yield
            return
        self.keep(folder, title)
        try:
            yield
        finally:
            self.leave()

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, and make plain every segment that is not a control segment of rich's own."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else plain(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style, segment.control)


def broken(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a text, none longer than `width` unless a word is.

    >>> for line in broken("data    digits: 1,437 train · 180 validation", 34):
    ...     print(line)
    data    digits: 1,437 train · 180
            validation
    """
    for line in text.split("\n"):
        if len(line) <= width:
            yield line
            continue
        label = LABEL.match(line)
        hang = len(label[0]) if label is not None and len(label[0]) <= width // 2 else 4
        now = line[:hang]
        for number, part in enumerate(GAP.split(line[hang:])):  # first between facts, then within one
            if number and len(now) + 2 + len(part) <= width:
                now += f"  {part}"
                continue
            if number:
                yield now
                now = " " * hang
            *whole, now = textwrap.wrap(
                now + part, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False
            ) or [now]  # fmt: skip
            yield from whole
        yield now
