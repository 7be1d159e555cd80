"""A program message, taken apart: units, headers and parameters.

    message   = unit *( ";" unit )                     unit = header [ white parameter *( "," parameter ) ]
    header    = "*" keyword ["?"]  |  [":"] keyword *( ":" keyword ) ["?"]
    parameter = text | "string" | 'string' | block
    block     = "#" d count(d digits) bytes(count)  |  "#0" bytes up to the end of the message

The bytes of a block are stepped over, never looked at: newline, comma, semicolon and quote may be in there.

Source: IEEE 488.2-1992, sections 7.3-7.7; SCPI-1999 volume 1, chapter 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sim_devices.instruments.box import Message

HEADER = re.compile(rb"[\s]*(\*[A-Za-z]+\??|:?[A-Za-z][A-Za-z0-9_]*(?::[A-Za-z][A-Za-z0-9_]*)*\??)(?=[\s;]|$)")
TEXT_END = re.compile(rb"[,;]")
STRING = re.compile(rb"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'")
SPACE = re.compile(rb"\s*")
EXPRESSION = re.compile(rb"\([^()]*\)")


class ScpiError(Exception):
    """A refusal that belongs into the error queue: a code of SCPI-1999 volume 2, chapter 21, or of the maker (above 0)."""

    def __init__(self, code: int, detail: str = "") -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code} {detail}")


@dataclass(frozen=True, slots=True)
class Block:
    """The payload of a block: a view into the message, valid while the message is executed."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class Quoted:
    """A string parameter, its quotes removed."""

    text: str


Token = str | Quoted | Block


@dataclass(frozen=True, slots=True)
class Unit:
    """A command or query. `header` has its leading colon and question mark removed."""

    header: str
    query: bool
    rooted: bool
    tokens: tuple[Token, ...]

    @property
    def common(self) -> bool:
        """True if this is a common command of IEEE 488.2, which begins with "*"."""
        return self.header.startswith("*")


def units(message: Message) -> Iterator[Unit]:
    """The units of a message, parsed as they are asked for: what stands before a syntax error is still executed.

    Raises:
        ScpiError: -101 to -161, at the unit that breaks the syntax.
    """
    view = memoryview(message)
    at, end = 0, len(view)
    while at < end:
        at = _after_space(view, at)
        if at < end and view[at] == ord(";"):  # an empty unit
            at += 1
            continue
        if at == end:
            return
        header = HEADER.match(view, at)
        if header is None:
            raise ScpiError(-102, _shown(view, at))
        text = bytes(header[1]).decode("ascii")
        tokens, at = _parameters(view, header.end())
        yield Unit(text.lstrip(":").rstrip("?"), text.endswith("?"), text.startswith(":"), tokens)


def blocked(data: bytes, digits: int | None = None) -> bytes:
    """``#<d><bytes><data>``: a block as a reply has it.

    Args:
        data: what it holds.
        digits: of its length; None: as many as it has.
    """
    length = f"{len(data)}" if digits is None else f"{len(data):0{digits}d}"
    return f"#{len(length)}{length}".encode() + data


def _parameters(view: memoryview, at: int) -> tuple[tuple[Token, ...], int]:
    """Split off all parameters up to the semicolon or the end; return them and where the next unit begins."""
    at = _after_space(view, at)
    if at == len(view) or view[at] == ord(";"):
        return (), at + 1
    found: list[Token] = []
    while True:
        token, at = _parameter(view, _after_space(view, at))
        found.append(token)
        at = _after_space(view, at)
        if at == len(view) or view[at] == ord(";"):
            return tuple(found), at + 1
        if view[at] != ord(","):
            raise ScpiError(-103, _shown(view, at))
        at += 1


def _parameter(view: memoryview, at: int) -> tuple[Token, int]:
    first = view[at : at + 1].tobytes()
    if first == b"#" and view[at + 1 : at + 2].tobytes().isdigit():
        return _block(view, at)
    if first in (b'"', b"'"):
        quoted = STRING.match(view, at)
        if quoted is None:
            raise ScpiError(-151, _shown(view, at))
        mark = first.decode()
        return Quoted(bytes(quoted[0])[1:-1].decode("latin-1").replace(mark * 2, mark)), quoted.end()
    expression = EXPRESSION.match(view, at)
    stop = TEXT_END.search(view, expression.end() if expression else at)
    end = stop.start() if stop else len(view)
    text = view[at:end].tobytes().decode("latin-1").strip()
    if not text:
        raise ScpiError(-109, "empty parameter")
    return text, end


def _block(view: memoryview, at: int) -> tuple[Block, int]:
    digits = view[at + 1] - ord("0")
    if digits == 0:  # indefinite: up to the end of the message, which the transport knows
        return Block(view[at + 2 :]), len(view)
    count = view[at + 2 : at + 2 + digits].tobytes()
    start = at + 2 + digits
    if len(count) != digits or not count.isdigit() or start + int(count) > len(view):
        raise ScpiError(-161, _shown(view, at))
    return Block(view[start : start + int(count)]), start + int(count)


def _after_space(view: memoryview, at: int) -> int:
    space = SPACE.match(view, at)
    return space.end() if space else at


def _shown(view: memoryview, at: int) -> str:
    return view[at : at + 24].tobytes().decode("ascii", "replace").strip()
