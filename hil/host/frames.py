"""Messages between the host and its worker, over a socket of this computer.

    u32 length of head | u64 length of body | head: one JSON object | body: raw bytes      integers little-endian

A call has "call", a number, and "do"; its answer has the same number, and "fault" if it failed. An array is a body with "shape"
in the head, float32, little-endian, C order. One call is under way at a time; an answer with another number is refused.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from hil.errors import Desync, Disconnected
from hil.files import loads

LENGTHS = struct.Struct("<IQ")
MOST_HEAD, MOST_BODY = 1 << 24, 1 << 33
FOREVER = float("inf")
Bytes = bytes | bytearray | memoryview


class Wire:
    """One end of the socket.

    Args:
        end: connected; owned from now on.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, head: Mapping[str, Any], body: Bytes = b"", until_s: float = FOREVER) -> None:
        """Send a message.

        Args:
            head: JSON values.
            body: raw bytes.
            until_s: when to give up, by time.monotonic.

        Raises:
            TimeoutError: it was not taken before `until_s`. OSError: the other end is gone.
        """
        text = json.dumps(head).encode()
        first = LENGTHS.pack(len(text), len(body)) + text
        if len(body) <= 1 << 18:
            self._put(first + bytes(body), until_s)
        else:
            self._put(first, until_s)
            self._put(body, until_s)

    def receive(self, until_s: float = FOREVER) -> tuple[dict[str, Any], bytearray]:
        """Return head and body of the next message.

        Raises:
            TimeoutError: it was not whole before `until_s`. Disconnected, OSError: the other end is gone.
            Desync: bytes that are no message.
        """
        head_size, body_size = LENGTHS.unpack(self._take(LENGTHS.size, until_s))
        if head_size > MOST_HEAD or body_size > MOST_BODY:
            raise Desync("not a message", where="worker", got=f"{head_size:,} and {body_size:,} bytes")
        head = loads(bytes(self._take(head_size, until_s)), "worker", Desync)
        if not isinstance(head, dict):
            raise Desync("not a message", where="worker", got=type(head).__name__, allowed="a JSON object")
        return head, self._take(body_size, until_s)

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _put(self, data: Bytes, until_s: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(until_s)
            view = view[self._end.send(view) :]

    def _take(self, size: int, until_s: float) -> bytearray:
        found = bytearray(size)
        view = memoryview(found)
        while view:
            self._wait(until_s)
            got = self._end.recv_into(view)
            if not got:
                raise Disconnected("the other end is gone", where="worker")
            view = view[got:]
        return found

    def _wait(self, until_s: float) -> None:
        """Bound the next use of the socket."""
        left_s = None if until_s == FOREVER else until_s - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise TimeoutError
        self._end.settimeout(left_s)
