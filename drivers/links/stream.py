"""A TCP byte stream as a wire: messages end at a terminator, blocks by count.

    command terminator  ->          <-  text terminator      or      <-  '#' d c...c payload terminator

What a socket does not do by itself and a bench needs: Nagle's algorithm off (write, write, query costs 44 ms otherwise), an end
of file told from silence, a deadline on writes, and no unread byte left over between two exchanges.

Source: LXI / VISA raw socket convention (VPP-4.3, TCPIP SOCKET resources): the same bytes as on a serial line, no framing.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

import numpy as np
from typing_extensions import Buffer

from drivers.links.link import Deadline
from hil.errors import Desync, Disconnected, LinkTimeout

LINE_LIMIT_BYTES = 16 << 20
CHUNK_BYTES = 64 << 10
JOIN_BYTES = 64 << 10
RECEIVED_BYTES = 1 << 20
SHOWN_BYTES = 32


class BenchSocket(socket.socket):
    """A connected TCP socket with the manners that a bench needs, for any code that uses sockets.

    `sendall` fails after its timeout without progress, however large the message (the usual one counts the whole message), and
    `recv` raises at the end of the connection (PyVISA-py takes b"" for patience). Nagle's algorithm is off; keep-alive probes
    find a peer that lost its power in about half a minute of silence.
    """

    @classmethod
    def adopt(cls, sock: socket.socket) -> BenchSocket:
        """Take over the connection of `sock`, which is closed to its former owner."""
        timeout_s = sock.gettimeout()
        own = cls(sock.family, sock.type, sock.proto, fileno=sock.detach())
        own.settimeout(timeout_s)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            option = getattr(socket, name, None)  # not every system has them all
            if option is not None:
                own.setsockopt(socket.IPPROTO_TCP, option, value)
        return own

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Send all of `data`.

        Raises:
            TimeoutError: no byte went out for the socket's timeout, or the whole took too long for its size.
        """
        view = memoryview(data).cast("B")
        silence_s = self.gettimeout()
        deadline = None if silence_s is None else Deadline.after(silence_s, len(view))
        sent = 0
        try:
            while sent < len(view):
                if deadline is not None and silence_s is not None:
                    self.settimeout(min(silence_s, deadline.left_s()))
                sent += self.send(view[sent:], flags)
        finally:
            self.settimeout(silence_s)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive up to `bufsize` bytes, and no more than RECEIVED_BYTES.

        Raises:
            ConnectionResetError: the other end closed the connection.
        """
        data = super().recv(min(bufsize, RECEIVED_BYTES), flags)  # whoever takes a damaged length for one gets no memory for it
        if bufsize and not data:
            raise ConnectionResetError("the end of the connection")
        return data

    def fill(self, view: memoryview, silence_s: float, deadline: Deadline, where: str) -> None:
        """Receive exactly `view`.

        Raises:
            LinkTimeout: nothing for `silence_s`, or not all of it before the deadline.
            Disconnected: the end of the connection.
        """
        got = 0
        while got < len(view):
            try:
                self.settimeout(min(deadline.left_s(), silence_s))
                arrived = self.recv_into(view[got:])
            except TimeoutError as late:
                raise timed_out(where, f"{got} of {len(view)} bytes", silence_s) from late
            if not arrived:
                raise gone(where, f"{got} of {len(view)} bytes, then the end of the connection")
            got += arrived

    def glimpse(self, count: int) -> bytes | None:
        """Return what has arrived, without taking it; None for nothing.

        Raises:
            ConnectionError: the end of the connection.
        """
        self.setblocking(False)
        try:
            return self.recv(count, socket.MSG_PEEK)
        except BlockingIOError:
            return None


class SocketStream:
    """Messages on a TCP stream whose end a terminator marks.

    Args:
        sock: this object is the only one that reads or writes it.
        terminator: ends every message, both ways.
        where: for messages.
        timeout_s: longest silence.
    """

    def __init__(self, sock: BenchSocket, terminator: bytes, where: str, timeout_s: float) -> None:
        self._sock, self._terminator, self._where = sock, terminator, where
        self.timeout_s = timeout_s

    @property
    def endings(self) -> frozenset[bytes]:
        """The terminator: it must follow every payload."""
        return frozenset({self._terminator})

    def send(self, parts: Sequence[memoryview]) -> None:
        """Send `parts` and the terminator as one message, in one packet if it is small.

        Raises:
            Desync: bytes of an older reply are still unread.
        """
        self._refuse_unread()
        pieces = [*parts, memoryview(self._terminator)]
        size = sum(len(piece) for piece in pieces)
        if size <= JOIN_BYTES:
            pieces = [memoryview(b"".join(pieces))]
        self._sock.settimeout(self.timeout_s)
        for piece in pieces:
            self._sock.sendall(piece)

    def line(self) -> bytes:
        """Read one reply, without its terminator."""
        deadline = Deadline.after(self.timeout_s)
        reply = bytearray()
        scanned = 0
        while (end := reply.find(self._terminator, scanned)) < 0:
            if len(reply) > LINE_LIMIT_BYTES:
                raise self._desync("the text reply does not end", bytes(reply[:SHOWN_BYTES]), f"{LINE_LIMIT_BYTES} bytes")
            scanned = max(0, len(reply) - len(self._terminator) + 1)
            reply += self._recv(deadline, len(reply))
        rest = bytes(reply[end + len(self._terminator) :])
        if rest:
            raise self._desync("bytes follow the reply", rest[:SHOWN_BYTES], "one reply to one question")
        return bytes(reply[:end])

    def take(self, count: int) -> memoryview:
        """Read `count` bytes into a buffer of their own.

        Raises:
            LinkTimeout: silence for `timeout_s`, or too slow for the size.
            Disconnected: the other end is gone.
        """
        view = np.empty(count, np.uint8).data  # empty, not bytearray: zeroing a megabyte is no small part of receiving it
        self._sock.fill(view, self.timeout_s, Deadline.after(self.timeout_s, count), self._where)
        return view

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        """Read the last `count` bytes and the terminator; what came beyond it, up to SHOWN_BYTES, is returned with it."""
        view = self.take(count + len(self._terminator))
        return view[:count], bytes(view[count:]) + self.glimpse(SHOWN_BYTES)

    def glimpse(self, count: int) -> bytes:
        """Return at most `count` bytes that have arrived, without taking them; b"" if the peer is gone."""
        try:
            return self._sock.glimpse(max(count, 0)) or b""
        except ConnectionError:  # a lost peer shows at the next use; what has come is still good
            return b""

    def _recv(self, deadline: Deadline, so_far: int) -> bytes:
        try:
            self._sock.settimeout(deadline.left_s())
            return self._sock.recv(CHUNK_BYTES)
        except TimeoutError as late:
            raise timed_out(self._where, f"{so_far} bytes of a text reply", self.timeout_s) from late

    def _refuse_unread(self) -> None:
        """Check before a question that the other end is there and has nothing left to say."""
        unread = self._sock.glimpse(SHOWN_BYTES)
        if unread:
            raise self._desync("a reply that nobody asked for is waiting", unread, "nothing unread before a message")

    def _desync(self, what: str, seen: bytes, allowed: str) -> Desync:
        return out_of_step(what, self._where, seen, allowed)


def timed_out(where: str, got: str, timeout_s: float) -> LinkTimeout:
    """The error of a wire on which nothing came for `timeout_s` seconds; `got` says what had come before."""
    return LinkTimeout(
        f"no answer for {timeout_s:g} s",
        where=where,
        got=got,
        outputs="presumed as last set",
        todo="recover() the session, read the error queue; for slow commands raise timeout_s",
    )


def gone(where: str, got: str) -> Disconnected:
    """The error of a wire whose other end closed the connection."""
    return Disconnected(
        "the other end closed the connection",
        where=where,
        got=got,
        outputs="unknown until read back",
        todo="check power and cable, then recover() the session and set the instrument again",
    )


def out_of_step(what: str, where: str, seen: bytes, allowed: str) -> Desync:
    """The error of a reply that is not what was due; it shows the first SHOWN_BYTES of `seen` in hex."""
    return Desync(
        what,
        where=where,
        got=f"bytes {seen[:SHOWN_BYTES].hex(' ')}",
        allowed=allowed,
        outputs="as they were; a read changes none",
        todo="recover() the session and repeat the whole shot",
    )
