"""The console that everything is printed through: no markup, no control characters but its own.

A line that is longer than the terminal is wide is broken at a blank, and goes on below its text: "data    digits: …" below
"digits". Words are never broken, so that a path can be copied. Where nobody said how wide it is, as in a log, lines stay whole.

A text is shown letter by letter: "[bold]" in a name is no style, ":boom:" no picture, an escape sequence is shown, not sent.
Colours come from `style=` alone.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from hil.plain import plain

LABEL = re.compile(r"\s*\S+(?: \S+)?\s{2,}(?=\S)|\s*")  # what a line begins with: "data    ", " epoch  1/12  "
GAP = re.compile(r"(?<=\S) {3,}(?=\S)")


class Terminal(Console):
    """A rich Console. Markup, emoji and highlight are off unless asked for.

    Args:
        breaks: long lines are broken at the width.
        settings: those of rich's.
    """

    def __init__(self, *, breaks: bool = False, **settings: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **settings})
        self._breaks = breaks

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print as rich does; texts as this console breaks them."""
        if self._breaks and settings.get("soft_wrap"):
            width = self.width
            objects = tuple("\n".join(broken(part, width)) if isinstance(part, str) else part for part in objects)
        super().print(*objects, **settings)

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
