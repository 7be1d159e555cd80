"""HiSLIP messages as a wire: the reader under PyVISA-py's HiSLIP session.

    'H' 'S' type:u8 control:u8 parameter:u32 size:u64 payload        big-endian, 16 bytes of header

A reply is any number of Data messages and one DataEnd, whose parameter is the id of the message that asked. A reply with
another id answers an older question and is thrown away, so a late answer cannot be taken for the next one. DataEnd marks the
end, a newline may stand before it.

PyVISA-py opens, initialises and sends. Reading is done here, on its synchronous socket, for three reasons: one deadline for a
whole reply, an end of file noticed also while a stale reply is thrown away, payloads received into their final buffer. A device
clear is completed here too: PyVISA-py's gives up when the rest of a reply stands before the acknowledgement.

A shared lock of the instrument keeps out programs of other computers, and those that do not know our lock files. Its string is
that of this computer, so all connections of this computer share it: the lock of a connection that died without a word (a cable,
a power cut) lasts as long as the instrument believes in that connection, and an exclusive one would meanwhile keep out who
comes to make safe. For that reason no exclusive lock is taken, here or over VXI-11, which has no other.

Source: IVI-6.1 HiSLIP 2.0 (2020), tables 3 and 4, sections 3.1.1-3.1.3, 6.5 (locks).
"""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from drivers.links.link import Deadline
from drivers.links.stream import LINE_LIMIT_BYTES, BenchSocket, gone, out_of_step
from hil.errors import Desync, LinkError, LinkTimeout
from hil.files import read_text

HEADER = struct.Struct("!2sBBIQ")
FATAL_ERROR, ERROR, LOCK, LOCK_RESPONSE, DATA, DATA_END = 2, 3, 4, 5, 6, 7
DEVICE_CLEAR_COMPLETE, DEVICE_CLEAR_ACKNOWLEDGE = 8, 9
DEVICE_CLEAR, DEVICE_CLEAR_STARTED = 19, 23  # on the asynchronous channel
LOCK_WAIT_S = 0.3  # who holds a lock may be about to end
LOCK_ANSWER_S = 0.4  # and this much later an instrument that knows of locks has answered
ANY_MESSAGE = 0xFFFF_FFFF
FIRST_MESSAGE = 0xFFFF_FF00  # message ids begin here, and again after a device clear


Granted = Literal["granted", "refused", "none"]


@cache
def lock_string() -> str:
    """The same for all programs of this computer, at any time, and for no other computer."""
    known = ""
    with suppress(LinkError):
        known = read_text(Path("/etc/machine-id"), 1 << 10, LinkError).strip()
    return "hil " + hashlib.sha256(f"hil {known or socket.gethostname()}".encode()).hexdigest()[:16]


class Client(Protocol):
    """The part of PyVISA-py's `hislip.Instrument` that is used here."""

    last_message_id: int | None
    _message_id: int
    _rmt: int
    _sync: socket.socket
    _async: socket.socket

    def send(self, data: bytes) -> int:
        """Send one message on the synchronous channel; return the number of bytes sent."""

    def async_device_clear(self) -> int:
        """Begin a device clear on the asynchronous channel; return the feature bits of the server's reply."""


class HislipWire:
    """Read and write the messages of a HiSLIP connection on its synchronous channel.

    Args:
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
        self._owed = False  # the answer to a request of a lock may still come

    def send(self, parts: Sequence[memoryview]) -> None:
        """Send `parts` as one message; what was left of an older reply is forgotten."""
        data = b"".join(parts)
        self._left, self._last = 0, False
        self._sock.settimeout(self.timeout_s)
        self._client.send(data)

    def lock(self) -> Granted:
        """Ask for the shared lock of this computer. "none": the instrument knows no such lock.

        Raises:
            LinkError: the wire.
        """
        self._client._async = BenchSocket.adopt(self._client._async)
        try:
            said = self._asked(LOCK, 1, round(LOCK_WAIT_S * 1000), lock_string().encode(), LOCK_RESPONSE)
        except LinkTimeout:
            self._owed = True
            return "none"
        except Desync:  # "unrecognized message type"
            return "none"
        return {0: "refused", 1: "granted", 2: "granted"}.get(said, "none")  # type: ignore[return-value]

    def _asked(self, kind: int, control: int, parameter: int, payload: bytes, answer: int) -> int:
        """The control code of the answer on the asynchronous channel; other messages there are thrown away."""
        channel = self._client._async
        assert isinstance(channel, BenchSocket)
        deadline = Deadline.after(LOCK_WAIT_S + LOCK_ANSWER_S if kind == LOCK else self.timeout_s)
        channel.settimeout(self.timeout_s)
        channel.sendall(HEADER.pack(b"HS", kind, control, parameter, len(payload)) + payload)
        while True:
            head = bytearray(HEADER.size)
            channel.fill(memoryview(head), self.timeout_s, deadline, self._where)
            prologue, got, said, _, size = HEADER.unpack(head)
            if prologue != b"HS" or size > LINE_LIMIT_BYTES:
                raise gone(self._where, f"no HiSLIP message: {head.hex(' ')}")
            channel.fill(memoryview(bytearray(size)), self.timeout_s, deadline, self._where)
            if got == answer:
                return int(said)
            if got == FATAL_ERROR:
                raise gone(self._where, f"a HiSLIP fatal error (code {said})")
            if got == ERROR and not self._owed:
                raise out_of_step("the instrument reports a HiSLIP error", self._where, bytes(head), "an answer")

    def clear(self) -> None:
        """Clear the device. The rest of a reply that was under way, and whole replies behind it, are read and thrown away."""
        left, self._left, self._last = self._left, 0, False
        deadline = Deadline.after(self.timeout_s, left)
        self._sock.settimeout(self.timeout_s)
        self._client._async.settimeout(self.timeout_s)
        if self._owed:  # what PyVISA-py would take for the answer may come first
            feature = self._asked(DEVICE_CLEAR, 0, 0, b"", DEVICE_CLEAR_STARTED)
        else:
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
        """Read one text reply to its end, without its newline.

        Raises:
            Desync: the reply is longer than LINE_LIMIT_BYTES.
        """
        reply = self._some(LINE_LIMIT_BYTES, Deadline.after(self.timeout_s))
        if not self._ended():
            raise out_of_step("the text reply does not end", self._where, reply, f"{LINE_LIMIT_BYTES} bytes")
        return reply.removesuffix(b"\n").removesuffix(b"\r")

    def take(self, count: int) -> memoryview:
        """Read `count` bytes of the reply; fewer only if the message ended."""
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
        """Read the last `count` bytes of the payload, then the ending: up to three bytes, so that too many show."""
        payload = self.take(count)
        ending = self._some(3, Deadline.after(self.timeout_s))  # one byte more than the longest ending
        return payload, ending

    def glimpse(self, count: int) -> bytes:
        """Return at most `count` bytes of the current message that have already arrived, without taking them."""
        try:
            return self._sock.glimpse(max(min(count, self._left), 0)) or b""
        except ConnectionError:
            return b""

    def _some(self, count: int, deadline: Deadline) -> bytes:
        """Read at most `count` bytes of this reply, fewer only if it ends."""
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
