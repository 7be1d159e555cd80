"""Formulas as MathML, made when the site is built: a browser draws it without a script."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

MARKED = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)  # by pymdownx.arithmatex
PRIME = re.compile(r"<msup>(<mi>.</mi>)<mi>(&#x02032;)</mi></msup>")
KINDS = {"span": "inline", "div": "block"}


def on_page_content(drawn: str, **_: Any) -> str:
    """Draw what arithmatex has marked."""
    return MARKED.sub(lambda found: mathml(html.unescape(found[2]).strip(), KINDS[found[1]]), drawn)


def mathml(formula: str, display: str) -> str:
    """A formula of LaTeX. A prime stands beside its letter: browsers draw a raised one too small."""
    return PRIME.sub(r'\1<mo lspace="0" rspace="0">\2</mo>', convert(formula, display=display))
