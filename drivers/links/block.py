"""The IEEE 488.2 definite-length block: one strict reader, one header writer.

    '#' d c...c payload terminator       d: one digit 1-9; c...c: d digits, the payload's size in bytes

The payload is bytes: a newline in it means nothing. The terminator is due right after it. The indefinite form ``#0`` has no
size, ends only where the wire marks ends, and is refused.

Source: IEEE 488.2-1992, 8.7.9 (definite length arbitrary block response data), 8.7.10 (the indefinite form).
"""

from __future__ import annotations

from typing import Protocol

from hil.errors import BadBlock, ContractError

SHOWN_BYTES = 32
MAX_DIGITS = 9


class Reply(Protocol):
    """The bytes of one reply, in order, as a wire gives them."""

    @property
    def endings(self) -> frozenset[bytes]:
        """Return what may follow the payload: a newline on a byte stream; nothing where the wire marks the end itself."""

    def take(self, count: int) -> bytes | bytearray | memoryview:
        """The next `count` bytes, fewer only if the reply ended."""

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        """The next `count` bytes in a buffer of their own, and what follows them: the ending, or more if more came."""

    def glimpse(self, count: int) -> bytes:
        """Return at most `count` bytes that are already here, without taking them; for messages."""


def header(size_bytes: int) -> bytes:
    """The header of a block.

    >>> header(1024)
    b'#41024'

    Raises:
        ContractError: more than 999,999,999 bytes.
    """
    digits = str(size_bytes)
    if size_bytes < 0 or len(digits) > MAX_DIGITS:
        raise ContractError(
            "this cannot be one IEEE 488.2 block",
            got=f"{size_bytes} bytes",
            allowed="at most 999,999,999 bytes",
            outputs="unchanged; nothing was sent",
            todo="send it in parts",
        )
    return f"#{len(digits)}{digits}".encode("ascii")


def read_block(reply: Reply, item_bytes: int, limit_bytes: int, where: str) -> memoryview:
    """The payload of the block that `reply` holds: exactly what the header says, or BadBlock."""
    head = bytes(reply.take(2))
    if len(head) != 2 or head[:1] != b"#" or not head[1:].isdigit():
        raise _bad("the reply is not a block", where, head + reply.glimpse(SHOWN_BYTES - len(head)), "'#', a digit, the size")
    if head == b"#0":
        raise _bad(
            "the block has no length (#0), so its end cannot be checked",
            where,
            head + reply.glimpse(SHOWN_BYTES - 2),
            "a definite length, #1 to #9",
            todo="switch the instrument's streaming or indefinite-length mode off",
        )
    digits = bytes(reply.take(int(head[1:])))
    if len(digits) != int(head[1:]) or not digits.isdigit():
        seen = head + digits
        raise _bad("the block's length is not a number", where, seen + reply.glimpse(SHOWN_BYTES - len(seen)), "digits")
    size = int(digits)
    if size > limit_bytes:
        raise _bad(f"the block announces {size} bytes", where, head + digits, f"at most {limit_bytes} bytes")
    if size % item_bytes:
        raise _bad(f"{size} bytes are not whole items", where, head + digits, f"a multiple of {item_bytes} bytes")
    payload, ending = reply.take_rest(size)
    if len(payload) != size:
        seen = head + digits + bytes(payload[:SHOWN_BYTES])
        raise _bad(f"the reply ended after {len(payload)} of {size} bytes", where, seen[:SHOWN_BYTES], f"{size} bytes")
    if ending not in reply.endings:
        due = " or ".join(sorted(repr(e) if e else "the end of the message" for e in reply.endings))
        raise _bad(f"the block of {size} bytes is not followed by its terminator", where, ending[:SHOWN_BYTES], due)
    return payload


def _bad(what: str, where: str, seen: bytes, allowed: str, todo: str = "") -> BadBlock:
    return BadBlock(
        what,
        where=where,
        got=f"bytes {seen.hex(' ') or '(none)'}",
        allowed=allowed,
        outputs="as they were; a read changes none",
        todo=todo or "recover() the session and repeat the whole shot; if it comes back, check the data format settings",
    )
