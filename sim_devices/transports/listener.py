"""A TCP listener on the loopback interface, one daemon thread a connection.

Loopback only: a simulated instrument has no password, so no other machine may reach it. TCP_NODELAY is set on every
connection; without it a write, write, query sequence waits 40 ms for a delayed acknowledgement (RFC 1122, 4.2.3.2 and 4.2.3.4).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from hil.errors import ConfigError

JOIN_S = 1.0
SMALL = 4096  # bytes; below it one joined buffer is faster than scattered ones


class Listener:
    """Args: serve: talks to one client until it goes; a ConnectionError out of it is the end of that client, nothing more.

    host, port: loopback address; port 0 takes a free one. name: of the threads.

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
        self._closed = False

    def start(self) -> None:
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._accept, name=f"{self._name} accept", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and drop every client. May be called twice."""
        with self._lock:
            self._closed = True
            clients = dict(self._clients)
        with suppress(OSError):  # not listening yet, or already shut
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for client in clients:
            hang_up(client)
        for thread in [*clients.values(), *([self._thread] if self._thread else [])]:
            if thread is not threading.current_thread():
                thread.join(JOIN_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:  # the listener was closed
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._talk, args=(client,), name=f"{self._name} client", daemon=True)
            with self._lock:
                if self._closed:
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
        client.shutdown(socket.SHUT_RDWR)


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
    """All pieces, one after another; large ones are never copied."""
    if sum(map(len, pieces)) <= SMALL:
        client.sendall(b"".join(pieces))
        return
    views = [memoryview(piece).cast("B") for piece in pieces]
    sent = client.sendmsg(views)
    for view in views:
        if sent < len(view):
            client.sendall(view[sent:])
        sent = max(0, sent - len(view))


def _bound(host: str, port: int, name: str) -> socket.socket:
    if not ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback:
        raise ConfigError(
            "a virtual bench listens on this machine only", where=name, got=host, allowed="127.0.0.1",
            todo="leave host out; to reach the bench from another machine use an ssh tunnel",
        )  # fmt: skip
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError(
            "cannot listen at this address", where=name, got=f"{host} port {port}: {error.strerror}", allowed="a free port",
            todo="end the program that uses the port, or set port = 0 to take a free one",
        ) from error  # fmt: skip
    return bound
