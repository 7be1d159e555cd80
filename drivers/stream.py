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

from drivers.link import Deadline
from hil.errors import Desync, Disconnected, LinkTimeout

LINE_LIMIT_BYTES = 16 << 20
CHUNK_BYTES = 64 << 10
JOIN_BYTES = 64 << 10
SHOWN_BYTES = 32


class SocketStream:
    """Args:
    sock: connected; this object is the only one that reads or writes it.
    terminator: ends every message, both ways.
    where: for messages.
    timeout_s: longest silence.
    """

    def __init__(self, sock: socket.socket, terminator: bytes, where: str, timeout_s: float) -> None:
        self._sock, self._terminator, self._where = sock, terminator, where
        self.timeout_s = timeout_s
        keep_awake(sock)

    @property
    def endings(self) -> frozenset[bytes]:
        return frozenset({self._terminator})

    def send(self, parts: Sequence[memoryview]) -> None:
        self._refuse_unread()
        pieces = [*parts, memoryview(self._terminator)]
        size = sum(len(piece) for piece in pieces)
        if size <= JOIN_BYTES:
            pieces = [memoryview(b"".join(pieces))]
        deadline = Deadline.after(self.timeout_s, size)
        for piece in pieces:
            self._sock.settimeout(deadline.left_s())
            self._sock.sendall(piece)  # its timeout is for the whole call, not for each chunk

    def line(self) -> bytes:
        """One reply without its terminator."""
        deadline = Deadline.after(self.timeout_s)
        reply = bytearray()
        scanned = 0
        while (end := reply.find(self._terminator, scanned)) < 0:
            if len(reply) > LINE_LIMIT_BYTES:
                raise self._desync("the text reply does not end", bytes(reply[:SHOWN_BYTES]), f"{LINE_LIMIT_BYTES} bytes")
            scanned = max(0, len(reply) - len(self._terminator) + 1)
            reply += self._recv(CHUNK_BYTES, deadline, f"{len(reply)} bytes of a text reply")
        rest = bytes(reply[end + len(self._terminator) :])
        if rest:
            raise self._desync("bytes follow the reply", rest[:SHOWN_BYTES], "one reply to one question")
        return bytes(reply[:end])

    def take(self, count: int) -> memoryview:
        view = np.empty(count, np.uint8).data  # empty, not bytearray: zeroing a megabyte is no small part of receiving it
        self._fill(view, f"of {count} bytes")
        return view

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        view = self.take(count + len(self._terminator))
        return view[:count], bytes(view[count:]) + self.glimpse(SHOWN_BYTES)

    def glimpse(self, count: int) -> bytes:
        try:
            return self._peek(max(count, 0))
        except (BlockingIOError, ConnectionError):  # a lost peer shows at the next use; what has come is still good
            return b""

    def _fill(self, view: memoryview, wanted: str) -> None:
        deadline = Deadline.after(self.timeout_s, len(view))
        got = 0
        while got < len(view):
            try:
                self._sock.settimeout(min(deadline.left_s(), self.timeout_s))
                arrived = self._sock.recv_into(view[got:])
            except TimeoutError as late:
                raise self._late(f"{got} {wanted}") from late
            if not arrived:
                raise self._gone(f"{got} {wanted}, then the end of the connection")
            got += arrived

    def _recv(self, count: int, deadline: Deadline, so_far: str) -> bytes:
        try:
            self._sock.settimeout(deadline.left_s())
            data = self._sock.recv(count)
        except TimeoutError as late:
            raise self._late(so_far) from late
        if not data:
            raise self._gone(f"{so_far}, then the end of the connection")
        return data

    def _peek(self, count: int) -> bytes:
        self._sock.setblocking(False)
        return self._sock.recv(count, socket.MSG_PEEK)

    def _refuse_unread(self) -> None:
        """Before a question: the other end must be there, and must have nothing left to say."""
        try:
            unread = self._peek(SHOWN_BYTES)
        except BlockingIOError:
            return
        if not unread:
            raise self._gone("the end of the connection")
        raise self._desync("a reply that nobody asked for is waiting", unread, "nothing unread before a message")

    def _late(self, got: str) -> LinkTimeout:
        return timed_out(self._where, got, self.timeout_s)

    def _gone(self, got: str) -> Disconnected:
        return gone(self._where, got)

    def _desync(self, what: str, seen: bytes, allowed: str) -> Desync:
        return out_of_step(what, self._where, seen, allowed)


def keep_awake(sock: socket.socket) -> None:
    """No Nagle delay, and keep-alive probes: a peer that lost its power is noticed in about half a minute of silence."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        option = getattr(socket, name, None)  # not every system has them all
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def timed_out(where: str, got: str, timeout_s: float) -> LinkTimeout:
    return LinkTimeout(
        f"no answer for {timeout_s:g} s",
        where=where,
        got=got,
        outputs="presumed as last set",
        todo="recover() the session, read the error queue; for slow commands raise timeout_s",
    )


def gone(where: str, got: str) -> Disconnected:
    return Disconnected(
        "the other end closed the connection",
        where=where,
        got=got,
        outputs="unknown until read back",
        todo="check power and cable, then recover() the session and set the instrument again",
    )


def out_of_step(what: str, where: str, seen: bytes, allowed: str) -> Desync:
    return Desync(
        what,
        where=where,
        got=f"bytes {seen[:SHOWN_BYTES].hex(' ')}",
        allowed=allowed,
        outputs="as they were; a read changes none",
        todo="recover() the session and repeat the whole shot",
    )
