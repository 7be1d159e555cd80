"""HiSLIP messages as a wire: the reader under PyVISA-py's HiSLIP session.

    'H' 'S' type:u8 control:u8 parameter:u32 size:u64 payload        big-endian, 16 bytes of header

A reply is any number of Data messages and one DataEnd, whose parameter is the id of the message that asked. A reply with
another id answers an older question and is thrown away, so a late answer cannot be taken for the next one. DataEnd marks the
end, a newline may stand before it.

PyVISA-py opens, initialises and sends. Reading is done here, on its synchronous socket, for three reasons: one deadline for a
whole reply, an end of file noticed also while a stale reply is thrown away, payloads received into their final buffer. A device
clear is completed here too: PyVISA-py's gives up when the rest of a reply stands before the acknowledgement.

Source: IVI-6.1 HiSLIP 2.0 (2020), tables 3 and 4, sections 3.1.1-3.1.3.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from drivers.link import Deadline
from drivers.stream import LINE_LIMIT_BYTES, BenchSocket, gone, out_of_step

HEADER = struct.Struct("!2sBBIQ")
FATAL_ERROR, ERROR, DATA, DATA_END = 2, 3, 6, 7
DEVICE_CLEAR_COMPLETE, DEVICE_CLEAR_ACKNOWLEDGE = 8, 9
ANY_MESSAGE = 0xFFFF_FFFF
FIRST_MESSAGE = 0xFFFF_FF00  # message ids begin here, and again after a device clear


class Client(Protocol):
    """What is used of PyVISA-py's `hislip.Instrument`."""

    last_message_id: int | None
    _message_id: int
    _rmt: int
    _sync: socket.socket
    _async: socket.socket

    def send(self, data: bytes) -> int: ...

    def async_device_clear(self) -> int: ...


class HislipWire:
    """Args:
    client: PyVISA-py's protocol object, open. Its synchronous channel is taken over.
    where: for messages.
    timeout_s: longest silence.
    """

    endings = frozenset({b"", b"\n", b"\r\n"})

    def __init__(self, client: Client, where: str, timeout_s: float) -> None:
        self._client, self._where = client, where
        self._sock = client._sync = BenchSocket.adopt(client._sync)
        self.timeout_s = timeout_s
        self._left = 0  # payload bytes of the current message that were not read
        self._last = False  # the current message is a DataEnd

    def send(self, parts: Sequence[memoryview]) -> None:
        data = b"".join(parts)
        self._left, self._last = 0, False
        self._sock.settimeout(self.timeout_s)
        self._client.send(data)

    def clear(self) -> None:
        """Device clear. The rest of a reply that was under way, and whole replies behind it, are read and thrown away."""
        left, self._left, self._last = self._left, 0, False
        deadline = Deadline.after(self.timeout_s, left)
        self._sock.settimeout(self.timeout_s)
        self._client._async.settimeout(self.timeout_s)
        feature = self._client.async_device_clear()
        self._sock.sendall(HEADER.pack(b"HS", DEVICE_CLEAR_COMPLETE, feature, 0, 0))
        self._discard(left, deadline)
        while self._waste(deadline) != DEVICE_CLEAR_ACKNOWLEDGE:
            pass
        self._client._message_id = FIRST_MESSAGE
        self._client._rmt = 0

    def _waste(self, deadline: Deadline) -> int:
        """The kind of the next message, which is thrown away."""
        head = bytearray(HEADER.size)
        self._fill(memoryview(head), deadline)
        prologue, kind, _, _, size = HEADER.unpack(head)
        if prologue != b"HS":
            raise out_of_step("this is not a HiSLIP message", self._where, bytes(head), "'HS' first")
        self._discard(size, deadline)
        return int(kind)

    def line(self) -> bytes:
        reply = self._some(LINE_LIMIT_BYTES, Deadline.after(self.timeout_s))
        if not self._ended():
            raise out_of_step("the text reply does not end", self._where, reply, f"{LINE_LIMIT_BYTES} bytes")
        return reply.removesuffix(b"\n").removesuffix(b"\r")

    def take(self, count: int) -> memoryview:
        buffer = np.empty(count, np.uint8).data
        deadline = Deadline.after(self.timeout_s, count)
        got = 0
        while got < count and self._more(deadline):
            size = min(self._left, count - got)
            self._fill(buffer[got : got + size], deadline)
            self._consume(size)
            got += size
        return buffer[:got]

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        payload = self.take(count)
        ending = self._some(3, Deadline.after(self.timeout_s))  # one byte more than the longest ending
        return payload, ending

    def glimpse(self, count: int) -> bytes:
        try:
            return self._sock.glimpse(max(min(count, self._left), 0)) or b""
        except ConnectionError:
            return b""

    def _some(self, count: int, deadline: Deadline) -> bytes:
        """At most `count` bytes of this reply, fewer only if it ends."""
        pieces = bytearray()
        while len(pieces) < count and self._more(deadline):
            piece = bytearray(min(self._left, count - len(pieces)))
            self._fill(memoryview(piece), deadline)
            self._consume(len(piece))
            pieces += piece
        return bytes(pieces)

    def _ended(self) -> bool:
        return self._last and not self._left

    def _consume(self, size: int) -> None:
        self._left -= size
        if self._ended():
            self._client._rmt = 1  # the next message tells the instrument that its reply was read

    def _more(self, deadline: Deadline) -> bool:
        """True when payload is waiting, False when the reply is over."""
        while not self._left:
            if self._last:
                self._client._rmt = 1
                return False
            self._next(deadline)
        return True

    def _next(self, deadline: Deadline) -> None:
        head = bytearray(HEADER.size)
        self._fill(memoryview(head), deadline)
        prologue, kind, control, message_id, size = HEADER.unpack(head)
        if prologue != b"HS":
            raise out_of_step("this is not a HiSLIP message", self._where, bytes(head), "'HS' first")
        if kind in (DATA, DATA_END) and message_id in (self._client.last_message_id, ANY_MESSAGE):
            self._left, self._last = size, kind == DATA_END
            return
        if kind in (FATAL_ERROR, ERROR):
            text = bytearray(min(size, 256))
            self._fill(memoryview(text), deadline)
            said = f"{text.decode('ascii', 'replace')} (code {control})"
            if kind == FATAL_ERROR:
                raise gone(self._where, f"a HiSLIP fatal error: {said}")
            raise out_of_step(f"the instrument reports a HiSLIP error: {said}", self._where, bytes(head), "a reply")
        self._discard(size, deadline)

    def _discard(self, size: int, deadline: Deadline) -> None:
        waste = memoryview(bytearray(min(size, 64 << 10)))
        while size:
            piece = waste[: min(size, len(waste))]
            self._fill(piece, deadline)
            size -= len(piece)

    def _fill(self, view: memoryview, deadline: Deadline) -> None:
        self._sock.fill(view, self.timeout_s, deadline, self._where)
