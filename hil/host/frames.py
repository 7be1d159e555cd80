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

import numpy as np

from hil.errors import Desync, Disconnected
from hil.files import loads

LENGTHS = struct.Struct("<IQ")
MOST_HEAD, MOST_BODY = 1 << 24, 1 << 33
FOREVER = float("inf")
BEGIN = 1 << 12  # bytes that are asked for first: a head, and a small body, come in one piece
WHOLE = 1 << 18  # a larger body is not copied to stand behind its head
Bytes = bytes | bytearray | memoryview


class Wire:
    """An end of the socket.

    Args:
        end: connected; owned from now on.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._bound_s = end.gettimeout()
        self._ahead = bytearray()  # of the next message, came with the last

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
        if len(body) <= WHOLE:
            self._put(b"".join((first, body)), until_s)
        else:
            self._put(first, until_s)
            self._put(body, until_s)

    def receive(self, until_s: float = FOREVER) -> tuple[dict[str, Any], memoryview]:
        """Return head and body of the next message; the body can be written to.

        Raises:
            TimeoutError: it was not whole before `until_s`. Disconnected, OSError: the other end is gone.
            Desync: bytes that are no message.
        """
        begin = self._begin(LENGTHS.size, until_s)
        head_size, body_size = LENGTHS.unpack_from(begin)
        if head_size > MOST_HEAD or body_size > MOST_BODY:
            raise Desync("not a message", where="worker", got=f"{head_size:,} and {body_size:,} bytes")
        end = LENGTHS.size + head_size
        begin = self._begin(end, until_s)
        head = loads(bytes(begin[LENGTHS.size : end]), "worker", Desync)
        if not isinstance(head, dict):
            raise Desync("not a message", where="worker", got=type(head).__name__, allowed="a JSON object")
        body, came = room(body_size), begin[end : end + body_size]
        self._ahead = begin[end + body_size :]
        body[: len(came)] = came
        self._fill(body[len(came) :], until_s)
        return head, body

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _put(self, data: Bytes, until_s: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(until_s)
            view = view[self._end.send(view) :]

    def _begin(self, size: int, until_s: float) -> bytearray:
        """The begin of a message, `size` bytes at least."""
        while (lack := size - len(self._ahead)) > 0:
            self._wait(until_s)
            piece = self._end.recv(max(BEGIN, lack))
            if not piece:
                raise Disconnected("the other end is gone", where="worker")
            self._ahead += piece
        return self._ahead

    def _fill(self, view: memoryview, until_s: float) -> None:
        while view:
            self._wait(until_s)
            got = self._end.recv_into(view)
            if not got:
                raise Disconnected("the other end is gone", where="worker")
            view = view[got:]

    def _wait(self, until_s: float) -> None:
        """Bound the next use of the socket."""
        left_s = None if until_s == FOREVER else until_s - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise TimeoutError
        if left_s != self._bound_s:
            self._end.settimeout(left_s)
            self._bound_s = left_s


def room(size: int) -> memoryview:
    """Return so many bytes of memory, which nobody has written to."""
    return np.empty(size, np.uint8).data
