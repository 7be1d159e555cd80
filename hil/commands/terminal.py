"""The console that everything is printed through: no markup, no control characters but its own.

A text is shown letter by letter: "[bold]" in a name is no style, ":boom:" no picture, an escape sequence is shown, not sent.
Colours come from `style=` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from hil.plain import plain


class Terminal(Console):
    """A rich Console. Args: those of rich's; markup, emoji and highlight are off unless asked for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **settings})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, and make plain every segment that is not a control segment of rich's own."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else plain(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style, segment.control)
