"""A TCP listener on the loopback interface, one daemon thread a connection.

Loopback only: a simulated instrument has no password, so no other machine may reach it. TCP_NODELAY is set on every
connection; without it a write, write, query sequence waits 40 ms for a delayed acknowledgement (RFC 1122, 4.2.3.2 and 4.2.3.4).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from hil.errors import ConfigError
from hil.system import listen_again

JOIN_S = 1.0
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing drops what was not sent, with RST
SMALL = 4096  # bytes; below it one joined buffer is faster than scattered ones


class Listener:
    """A loopback TCP port with a thread for each client.

    Args:
        serve: talks to one client until it goes; a ConnectionError out of it is the end of that client, nothing more.
        host, port: loopback address; port 0 takes a free one.
        name: of the threads.

    Raises:
        ConfigError: not a loopback address, or the port is taken.
    """

    def __init__(self, serve: Callable[[socket.socket], None], host: str, port: int, name: str) -> None:
        self._serve, self._name = serve, name
        self._socket = _bound(host, port, name)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._thread: threading.Thread | None = None
        self._closed = self._refusing = False

    def start(self) -> None:
        """Take clients, in threads of its own."""
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._accept, args=(self._socket,), name=f"{self._name} accept", daemon=True)
        self._thread.start()

    def refuse(self, seconds: float, healed: threading.Event, reset: bool = False) -> None:
        """Drop every client, with RST if `reset`, and refuse new ones until the time is over or `healed` is set."""
        with self._lock:
            if self._closed:
                return
            clients = list(self._clients)
            if seconds and not self._refusing:
                self._refusing = True
                _end(self._socket)
                self._socket = _bound(self.host, self.port, self._name)  # bound and not listening: the kernel refuses
                threading.Thread(target=self._reopen, args=(seconds, healed), name=f"{self._name} refuses", daemon=True).start()
        if reset:
            abort(*clients)
        for client in clients:
            hang_up(client)

    def _reopen(self, seconds: float, healed: threading.Event) -> None:
        healed.wait(seconds)
        with self._lock:
            self._refusing = False
            if not self._closed:
                self.start()

    def close(self) -> None:
        """Stop listening and drop every client. May be called twice."""
        with self._lock:
            self._closed = True
            clients = dict(self._clients)
            _end(self._socket)
        for client in clients:
            hang_up(client)
        for thread in [*clients.values(), *([self._thread] if self._thread else [])]:
            if thread is not threading.current_thread():
                thread.join(JOIN_S)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:  # the listener was closed
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._talk, args=(client,), name=f"{self._name} client", daemon=True)
            with self._lock:
                if self._closed or listening is not self._socket:  # the door was shut while this one came in
                    abort(client)
                    client.close()
                    return
                self._clients[client] = thread
                thread.start()

    def _talk(self, client: socket.socket) -> None:
        try:
            with suppress(ConnectionError):
                self._serve(client)
        finally:
            with self._lock:
                self._clients.pop(client, None)
            client.close()


def hang_up(client: socket.socket) -> None:
    """Wake the thread that reads from `client`; that thread closes it."""
    with suppress(OSError):  # the other end was faster
        resetting = client.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(AT_ONCE)) == AT_ONCE
        client.shutdown(socket.SHUT_RD if resetting else socket.SHUT_RDWR)  # FIN would be sent by the latter


def abort(*clients: socket.socket) -> None:
    """The same, and the other ends get RST instead of FIN."""
    for client in clients:  # all of them before the first thread wakes, which may hang up the others
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    for client in clients:
        hang_up(client)


def receive(client: socket.socket, count: int) -> bytearray:
    """Exactly `count` bytes.

    Raises:
        ConnectionResetError: the client went away first.
    """
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        n = client.recv_into(view[got:])
        if n == 0:
            raise ConnectionResetError("client went away")
        got += n
    return data


def send(client: socket.socket, *pieces: bytes | bytearray | memoryview) -> None:
    """Send all pieces, one after another; large ones are never copied."""
    if sum(map(len, pieces)) <= SMALL:
        client.sendall(b"".join(pieces))
        return
    views = [memoryview(piece).cast("B") for piece in pieces]
    sent = client.sendmsg(views) if hasattr(client, "sendmsg") else 0  # Windows has none
    for view in views:
        if sent < len(view):
            client.sendall(view[sent:])
        sent = max(0, sent - len(view))


def _end(listening: socket.socket) -> None:
    with suppress(OSError):  # not listening yet, or already shut
        listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def _bound(host: str, port: int, name: str) -> socket.socket:
    if not ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback:
        raise ConfigError(
            "a virtual bench listens on this machine only", where=name, got=host, allowed="127.0.0.1",
            todo="leave host out; to reach the bench from another machine use an ssh tunnel",
        )  # fmt: skip
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listen_again(bound)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError(
            "cannot listen at this address", where=name, got=f"{host} port {port}: {error.strerror}", allowed="a free port",
            todo="end the program that uses the port, or set port = 0 to take a free one",
        ) from error  # fmt: skip
    return bound
