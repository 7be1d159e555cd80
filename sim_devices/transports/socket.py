"""A raw SCPI socket: one simulated box at `TCPIP::127.0.0.1::PORT::SOCKET`.

    program message NL  ->  response NL          NL = 0x0A (VISA: read_termination = write_termination = newline)

No framing but the newline, no device clear, no status byte beside the messages. Messages may be pipelined: what came in one
segment is executed in order. See sim_devices/transports/framing.py for what ends a message.
"""

from __future__ import annotations

import socket
from typing import Protocol, runtime_checkable

from sim_devices.instruments.box import Box
from sim_devices.instruments.faults import Faults
from sim_devices.transports.faulty_line import FaultyLine, SocketOutlet, raw
from sim_devices.transports.framing import Scanner
from sim_devices.transports.listener import Listener, send

FIRST_ROOM = 1 << 16  # bytes
MESSAGE_CAP = 1 << 28  # bytes


@runtime_checkable
class Loaded(Protocol):
    """A box that clients reach through a library that they load, which speaks to its socket."""

    def library(self) -> str:
        """Return the path of the library."""


class SocketServer:
    """Serves `box` to any number of clients.

    Args:
        terminator: what ends a reply; a message ends with newline, and this in front of it is taken off. None: that of the
            box, newline if it has none.
        faults: of the box.

    Raises:
        ConfigError: not a loopback address, or the port is taken.
    """

    def __init__(
        self, box: Box, host: str = "127.0.0.1", port: int = 0, terminator: bytes | None = None, faults: Faults | None = None
    ) -> None:
        own: bytes = getattr(box, "terminator", b"\n")
        self._box, self._terminator, self._faults = box, own if terminator is None else terminator, faults or Faults(box.name)
        self._listener = Listener(self._serve, host, port, f"socket {box.name}")
        self._faults.doors.append(self._listener)

    @property
    def port(self) -> int:
        """TCP port that it listens at."""
        return self._listener.port

    @property
    def resource(self) -> str:
        """VISA resource string."""
        return f"TCPIP::{self._listener.host}::{self.port}::SOCKET"

    def start(self) -> None:
        """Take clients, in threads of its own."""
        self._listener.start()

    def close(self) -> None:
        """Drop every client. May be called twice."""
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        stream, faults = _Stream(client), self._faults
        line, framing = FaultyLine(self._box, faults, SocketOutlet(client)), raw(self._terminator)
        while True:
            message = stream.message().removesuffix(self._terminator[:-1])
            if not message:
                continue
            if faults.on_wire:
                line.reply(message, self._box.execute(line.command(message)), framing)
            elif (reply := self._box.execute(message)) is not None:
                send(client, reply, self._terminator)


class _Stream:
    """Cuts the bytes of one client into messages. `_data[_start:_end]` is what came and was not yet handed out."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._data = bytearray(FIRST_ROOM)
        self._start = self._end = 0
        self._scanner = Scanner()

    def message(self) -> bytes:
        """The next program message, without its newline.

        Raises:
            ConnectionError: the client went away, or sends a message beyond every bound.
        """
        while (stop := self._scanner.find(self._data, self._end)) < 0:
            self._more()
        message = bytes(memoryview(self._data)[self._start : stop])
        self._start = stop + 1
        if self._start == self._end:
            self._scanner.rebase(self._start)
            self._start = self._end = 0
        return message

    def _more(self) -> None:
        self._make_room()
        got = self._client.recv_into(memoryview(self._data)[self._end :])
        if got == 0:
            raise ConnectionResetError("client went away")
        self._end += got

    def _make_room(self) -> None:
        """Room for the block that is arriving, or for a part of it; at least one byte more."""
        wanted = max(self._scanner.position, self._end) + 1 - self._start
        if wanted > MESSAGE_CAP:
            raise ConnectionAbortedError(f"a message of {wanted} bytes")
        if self._start + wanted <= len(self._data):
            return
        held = memoryview(self._data)[self._start : self._end]
        room = min(wanted, 4 * len(self._data))  # what a header promises is believed step by step
        grown = bytearray(max(room, FIRST_ROOM, len(held) + 1))
        grown[: len(held)] = held
        self._data = grown
        self._scanner.rebase(self._start)
        self._start, self._end = 0, len(held)
