"""What all pages have: style, the line at the top, and the choice between light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicegui import ui
from nicegui.element import Element

from hil.files import read_text
from hil.monitor.gate import Role
from hil.monitor.parts import Text, box
from hil.report import page as report

THEMES = re.compile(r"^:root \{(.*?)\}|^  :root \{(.*?)^  \}", re.S | re.M)  # of the report's style: light, then dark
START = (
    "<script>{const t=localStorage.getItem('hil-theme');"
    "if(t==='light'||t==='dark')document.documentElement.dataset.theme=t;"
    "document.documentElement.lang='en'}</script>"
)


class ThemeSwitch(Element, component="theme_switch.js"):
    """A choice of colours: as the system says, light or dark; the browser remembers it."""


def style() -> str:
    """Return the style sheet: that of the reports, its colours by choice, and that of these pages."""
    shared = read_text(Path(report.__file__).with_name("style.css"))
    light, dark = (one or other for one, other in THEMES.findall(shared))
    chosen = f':root[data-theme="light"] {{ {light} }}\n:root[data-theme="dark"] {{ {dark} }}\n'
    return shared + chosen + read_text(Path(__file__).with_name("style.css"))


def prepare() -> None:
    """Give every page its style."""
    ui.add_head_html(f"{START}<style>{style()}</style>", shared=True)


@contextmanager
def framed(title: str, role: Role, here: str = "") -> Iterator[None]:
    """The contents of a page.

    Args:
        title: of the browser's window.
        role: of who looks.
        here: what stands behind the link to all runs; "" on that page itself.
    """
    ui.page_title(f"{title} · hil monitor" if title else "hil monitor")
    with box("header", "top"):
        with box("nav", "where", aria_label="Pages"):
            Text("a", "hil monitor", href="/", **({} if here else {"aria_current": "page"}))
            if here:
                Text("span", "/", aria_hidden="true")
                Text("span", here, "here")
        if role == "look":
            Text("span", "read-only", "badge plain", title="This link may look, and change nothing.")
        ThemeSwitch()
    with box("div", "page"):
        yield


def missing(role: Role, what: str = "There is no such run here; it may have been moved or removed.") -> None:
    """Say that an address leads nowhere."""
    with framed("Not found", role, "not found"):
        Text("h1", "Not found")
        Text("p", what, "note")
        Text("a", "All runs", href="/")
