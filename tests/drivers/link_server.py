"""Small instruments on real sockets, for the tests of the links: each a thread, each as rude as a test wants it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

IDN = b"Hil Works,Model 7,SN-1,1.0"
HISLIP = struct.Struct("!2sBBIQ")

Answer = Callable[[bytes], bytes | None]


class Gone(Exception):
    """Raised by an answer: hang up now, after sending `last`."""

    def __init__(self, last: bytes = b"") -> None:
        self.last = last


class Deaf(Exception):
    """Raised by an answer: stop reading, keep the connection."""


def block(payload: bytes) -> bytes:
    digits = str(len(payload)).encode()
    return b"#%d%s%s" % (len(digits), digits, payload)


def polite(message: bytes) -> bytes | None:
    """The answers that most tests need."""
    name, _, rest = message.partition(b" ")
    if name == b"*IDN?":
        return IDN
    if name == b"*OPC?":
        return b"1"
    if name == b"ECHO?":
        return rest
    if name == b"SLOW?":
        seconds, _, text = rest.partition(b" ")
        time.sleep(float(seconds))
        return text
    if name == b"BLOCK?":
        return block(b"\n" * int(rest))
    if name == b"DIE?":
        raise Gone(bytes.fromhex(rest.decode()))
    if name == b"DEAF":
        raise Deaf
    return None


class Served:
    """A listening socket and the threads behind it."""

    host = "127.0.0.1"

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, 0), family=family)
        self.port = self._listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self._serve = serve
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(connection)
            hang_up(connection)

    def kill(self) -> None:
        hang_up(self._listener)
        for connection in self.connections:
            hang_up(connection)


def hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def lines(answer: Answer, terminator: bytes = b"\n") -> Callable[[socket.socket], None]:
    """Serve messages that end with `terminator`."""

    def serve(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while message := stream.readline():
            try:
                reply = answer(message.removesuffix(terminator))
            except Gone as gone:
                connection.sendall(gone.last)
                return
            except Deaf:
                threading.Event().wait(30)
                return
            if reply is not None:
                connection.sendall(reply + terminator)

    return serve


class HislipServer(Served):
    """HiSLIP 1.0, synchronized mode, one client; replies in Data messages of `piece` bytes and a DataEnd."""

    def __init__(self, answer: Answer, piece: int = 100_000, newline: bytes = b"\n") -> None:
        self._answer, self._piece, self._newline = answer, piece, newline
        self.received: list[bytes] = []
        self.delivered: list[int] = []  # the RMT-delivered flag of each message
        self.lock_answer = "granted"
        super().__init__(self._channel)

    def _channel(self, sock: socket.socket) -> None:
        message = b""
        while True:
            kind, control, parameter, payload = self._receive(sock)
            if kind == 0:
                self._send(sock, 1, 0, (0x0100 << 16) | 1)
            elif kind == 17:
                self._send(sock, 18, 0, 0)
            elif kind == 15:
                self._send(sock, 16, 0, 0, payload)
            elif kind == 4:
                self._answer_lock(sock)
            elif kind == 19:
                if self.lock_answer == "late":
                    self._send(sock, 5, 1, 0)
                self._send(sock, 23, 0, 0)
            elif kind == 8:
                message = b""
                self._send(sock, 9, control, 0)
            elif kind in (6, 7):
                self.delivered.append(control)
                message += payload
                if kind == 7:
                    self.received.append(message)
                    self._reply(sock, message, parameter)
                    message = b""

    def _answer_lock(self, sock: socket.socket) -> None:
        if self.lock_answer == "unknown type":
            self._send(sock, 3, 1, 0, b"unrecognized message type")
        elif self.lock_answer in ("granted", "error"):
            self._send(sock, 5, 1 if self.lock_answer == "granted" else 3, 0)

    def _reply(self, sock: socket.socket, message: bytes, parameter: int) -> None:
        try:
            reply = self._answer(message)
        except Gone as gone:
            sock.sendall(HISLIP.pack(b"HS", 7, 0, parameter, len(gone.last) + 1000) + gone.last)
            hang_up(sock)
            return
        except Deaf:
            threading.Event().wait(30)
            return
        if reply is None:
            return
        reply += self._newline
        while len(reply) > self._piece:
            self._send(sock, 6, 0, parameter, reply[: self._piece])
            reply = reply[self._piece :]
        self._send(sock, 7, 0, parameter, reply)

    @staticmethod
    def _send(sock: socket.socket, kind: int, control: int, parameter: int, payload: bytes = b"") -> None:
        sock.sendall(HISLIP.pack(b"HS", kind, control, parameter, len(payload)) + payload)

    @staticmethod
    def _receive(sock: socket.socket) -> tuple[int, int, int, bytes]:
        _, kind, control, parameter, size = HISLIP.unpack(_exactly(sock, HISLIP.size))
        return kind, control, parameter, _exactly(sock, size)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = sock.recv(min(count - len(data), 1 << 20))
        if not more:
            raise ConnectionResetError
        data += more
    return bytes(data)


@contextlib.contextmanager
def socket_instrument(answer: Answer = polite, terminator: bytes = b"\n") -> Iterator[tuple[str, Served]]:
    """A SOCKET resource string, and the server behind it."""
    server = Served(lines(answer, terminator))
    try:
        yield f"TCPIP::127.0.0.1::{server.port}::SOCKET", server
    finally:
        server.kill()


@contextlib.contextmanager
def hislip_instrument(
    answer: Answer = polite, piece: int = 100_000, newline: bytes = b"\n"
) -> Iterator[tuple[str, HislipServer]]:
    server = HislipServer(answer, piece, newline)
    try:
        yield f"TCPIP::127.0.0.1::hislip0,{server.port}::INSTR", server
    finally:
        server.kill()


class Vxi11Server(Served):
    """VXI-11 core channel (RFC 1057 calls: create_link, device_write, device_read, device_clear, destroy_link)."""

    def __init__(self, answer: Answer = polite, newline: bytes = b"\n", most: int = 100_000) -> None:
        self._answer, self._newline, self._most = answer, newline, most
        self._message, self._reply = b"", b""
        super().__init__(self._channel)

    def _channel(self, sock: socket.socket) -> None:
        while True:
            call = _exactly(sock, struct.unpack("!I", _exactly(sock, 4))[0] & 0x7FFF_FFFF)
            xid, _, _, _, _, procedure = struct.unpack_from("!6I", call)
            try:
                results = self._call(procedure, call[40:])  # after two empty credentials
            except Gone:
                return
            reply = struct.pack("!6I", xid, 1, 0, 0, 0, 0) + results
            sock.sendall(struct.pack("!I", 0x8000_0000 | len(reply)) + reply)

    def _call(self, procedure: int, arguments: bytes) -> bytes:
        if procedure == 10:
            return struct.pack("!4I", 0, 1, 0, self._most)
        if procedure == 11:
            flags, size = struct.unpack_from("!12xII", arguments)
            self._message += arguments[20 : 20 + size]
            if flags & 8:
                message, self._message = self._message, b""
                reply = self._answer(message)
                self._reply = b"" if reply is None else reply + self._newline
            return struct.pack("!II", 0, size)
        if procedure == 12:
            if not self._reply:
                return struct.pack("!III", 15, 0, 0)
            wanted = struct.unpack_from("!4xI", arguments)[0]
            data, self._reply = self._reply[:wanted], self._reply[wanted:]
            reason = (1 if len(data) == wanted else 0) | (0 if self._reply else 4)
            return struct.pack("!III", 0, reason, len(data)) + data + bytes(-len(data) % 4)
        if procedure == 13:
            return struct.pack("!II", 0, 16 if self._reply else 0)
        self._reply = b""
        return struct.pack("!I", 0)


@contextlib.contextmanager
def vxi11_instrument(answer: Answer = polite, newline: bytes = b"\n") -> Iterator[tuple[str, Served]]:
    server = Vxi11Server(answer, newline)
    try:
        yield f"TCPIP::127.0.0.1,{server.port}::inst0::INSTR", server
    finally:
        server.kill()
