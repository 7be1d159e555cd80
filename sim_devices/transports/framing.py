"""The end of a program message in a stream of bytes.

    message    = unit { ";" unit } NL          NL = 0x0A, or the END mark of a transport that has one
    block      = "#" d count payload           d: one digit 1-9, count: d digits, payload: count bytes, any value
    indefinite = "#0" payload                  ends with END; on a transport without END the first NL has to do

IEEE 488.2-1992, 7.5 (terminators) and 7.7.6 (arbitrary block program data). A newline inside a definite block never ends a
message, and a "#" inside a quoted string begins no block. A newline inside a string does end the message: one stray quote
must not swallow everything that follows; the parser then complains about the string.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

NEWLINE = 0x0A
_HASH, _ZERO, _NINE = 0x23, 0x30, 0x39
_PLAIN = re.compile(rb"[\n\"'#]")
_QUOTED = {ord(quote): re.compile(rb"[\n" + quote + rb"]") for quote in (b'"', b"'")}


class Scanner:
    """Finds message ends, and keeps its place while bytes are still arriving.

    Args:
        has_end: the transport marks the end of a message itself, so an indefinite block runs up to that mark.
    """

    __slots__ = ("_has_end", "_quote", "position")

    def __init__(self, has_end: bool = False) -> None:
        self._has_end = has_end
        self._quote = 0
        self.position = 0  # next byte to look at; beyond the bytes at hand while inside a block

    def find(self, data: bytes | bytearray | memoryview, end: int) -> int:
        """Index of the newline that ends the message in data[:end], or -1: more bytes are needed."""
        while self.position < end:
            hit = _QUOTED.get(self._quote, _PLAIN).search(data, self.position, end)
            if hit is None:
                self.position = end
                return -1
            at = hit.start()
            if data[at] == NEWLINE:
                self.position, self._quote = at + 1, 0
                return at
            if data[at] != _HASH:
                self._quote = 0 if self._quote else data[at]
                self.position = at + 1
            elif not self._skip_block(data, at, end):
                return -1
        return -1

    def _skip_block(self, data: bytes | bytearray | memoryview, at: int, end: int) -> bool:
        """Move past the block that may begin at `at`; False if its header is not all here."""
        self.position = at
        if at + 1 >= end:
            return False
        digits = data[at + 1] - _ZERO
        if digits == 0 and self._has_end:
            self.position = sys.maxsize
            return True
        if not 1 <= digits <= 9:  # "#H1F" and its like, or nonsense that the parser will refuse
            self.position = at + 1
            return True
        first = at + 2
        header = bytes(data[first : min(first + digits, end)])
        if header and not header.isdigit():
            self.position = at + 1
            return True
        if len(header) < digits:
            return False
        self.position = first + digits + int(header)
        return True

    def rebase(self, removed: int) -> None:
        """Note that `removed` bytes were taken from the front."""
        self.position -= removed


def messages(data: memoryview, raw: bytes = b"") -> Iterator[memoryview]:
    """The program messages in what an END mark closed; newlines are taken off, empty messages skipped.

    Args:
        data: all bytes up to the mark.
        raw: of an instrument without blocks: what follows this word is bytes, up to the mark.
    """
    scanner, start, end = Scanner(has_end=True), 0, len(data)
    while start < end:
        stop = scanner.find(data, end)
        if raw and raw in bytes(data[start : stop if stop >= 0 else end]):
            stop = end
        if stop < 0:
            stop = end
        if stop > start:
            yield data[start:stop]
        start = stop + 1
