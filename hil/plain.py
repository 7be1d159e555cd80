r"""Text that came from outside, made safe to be shown: nothing in it moves a cursor, sets a clipboard or turns a line round.

A file name, an instrument's answer, a note in a journal may hold anything. A terminal obeys control characters (ESC, and the
C1 codes in one character), so each is shown as an escape of Python instead: \x1b, \u202e.
"""

from __future__ import annotations

import re

# C0 but newline and tab, DEL, C1; marks, embeddings, overrides and isolates of direction; line and paragraph separators;
# lone surrogates, which no stream can encode
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]")


def plain(text: str) -> str:
    """`text` with what a terminal would obey shown as escapes; the same text if there is nothing of that kind."""
    return HIDDEN.sub(_escaped, text) if HIDDEN.search(text) else text


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
