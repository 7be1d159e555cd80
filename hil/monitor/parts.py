"""Plain HTML elements for the pages: their text is text, never markup, and only changes are sent to the browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from hil.plain import plain

Action = Callable[[], Awaitable[None]]


class Text(TextElement):
    """An element with text of its own.

    Args:
        tag: of HTML.
        text: anything; control characters are shown as escapes.
        classes: of the style sheet.
        attributes: of HTML; a "_" in a name is a "-". Their values are given as they are, and never executed.
    """

    def __init__(self, tag: str, text: str = "", classes: str = "", **attributes: str) -> None:
        super().__init__(tag=tag, text=plain(text))
        self.classes(classes)
        for name, value in attributes.items():
            self.props[name.rstrip("_").replace("_", "-")] = value

    def say(self, text: str) -> None:
        """Show another text."""
        if self.text != (shown := plain(text)):
            self.set_text(shown)

    def look(self, classes: str) -> None:
        """Have other classes."""
        if " ".join(self._classes) != classes:
            self.classes(replace=classes)


def box(tag: str = "div", classes: str = "", **attributes: str) -> Text:
    """Return an element that holds others."""
    return Text(tag, "", classes, **attributes)


def button(text: str, do: Action, classes: str = "", **attributes: str) -> Text:
    """Return a button that calls `do`."""
    made = Text("button", text, f"button {classes}".strip(), type="button", **attributes)
    made.on("click", do)
    return made


def figure(svg: str) -> None:
    """Show a figure of hil.report, which is made here and holds no text that is not escaped."""
    ui.html(svg, sanitize=False)


class Tiles:
    """A row of figures, each with its name above it and a small note beneath.

    Args:
        names: of the figures, in their order.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.shown = False
        self._values: dict[str, Text] = {}
        self._notes: dict[str, Text] = {}
        with box("dl", "tiles"):
            for name in names:
                with box():
                    Text("dt", name)
                    with box("dd"):
                        self._values[name] = Text("span")
                        self._notes[name] = Text("small")

    def show(self, values: Mapping[str, tuple[str, str]]) -> None:
        """Show (figure, note) of each name."""
        self.shown = True
        for name, (value, note) in values.items():
            self._values[name].say(value)
            self._notes[name].say(note)
