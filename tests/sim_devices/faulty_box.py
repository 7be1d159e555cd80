"""Clients that see every byte that a faulty box sends, over HiSLIP, VXI-11 and a raw socket, and a box to see it from."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Protocol

from memory_box import MemoryBox

from sim_devices.instruments.faults import FaultSchedule
from sim_devices.transports.hislip import HislipServer
from sim_devices.transports.socket import SocketServer
from sim_devices.transports.vxi11 import Vxi11Server

HEADER = struct.Struct("!2sBBIQ")
BLOCK = b"#6000512" + bytes(range(256)) * 2
HEAD = 8


class Client(Protocol):
    """message: the next one, whole. rest: what comes until silence or the end, and which of them: open, FIN or RST."""

    def put(self, message: bytes) -> None: ...

    def message(self) -> bytes: ...

    def rest(self, quiet_s: float = 0.15) -> tuple[bytes, str]: ...

    def close(self) -> None: ...


def until_quiet(channel: socket.socket, quiet_s: float) -> tuple[bytes, str]:
    channel.settimeout(quiet_s)
    got = b""
    try:
        while more := channel.recv(1 << 20):
            got += more
    except TimeoutError:
        return got, "open"
    except ConnectionResetError:
        return got, "RST"
    finally:
        channel.settimeout(3)
    return got, "FIN"


def until_blocked(channel: socket.socket, data: memoryview) -> int:
    """Send until nothing goes for as long as the channel's timeout; how much went."""
    sent = 0
    try:
        while sent < len(data):
            sent += channel.send(data[sent : sent + (1 << 16)])
    except TimeoutError:
        pass
    return sent


def exactly(channel: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = channel.recv(count - len(got))
        if not more:
            raise ConnectionResetError(f"closed after {len(got)} of {count} bytes")
        got += more
    return got


class RawClient:
    def __init__(self, port: int) -> None:
        self.channel = socket.create_connection(("127.0.0.1", port), timeout=3)

    def put(self, message: bytes) -> None:
        self.channel.sendall(message + b"\n")

    def message(self) -> bytes:
        """A block with its newline, or a line."""
        first = exactly(self.channel, 1)
        if first == b"#":
            digits = exactly(self.channel, 1)
            count = exactly(self.channel, int(digits))
            return first + digits + count + exactly(self.channel, int(count) + 1)
        while not first.endswith(b"\n"):
            first += exactly(self.channel, 1)
        return first

    def rest(self, quiet_s: float = 0.15) -> tuple[bytes, str]:
        return until_quiet(self.channel, quiet_s)

    def close(self) -> None:
        self.channel.close()


class HislipClient:
    """A client by hand, which shows the payloads as they come."""

    def __init__(self, port: int) -> None:
        self.channel = socket.create_connection(("127.0.0.1", port), timeout=3)
        self._send(self.channel, 0, 0x0100 << 16, b"hislip0")
        number = self._receive(self.channel)[2] & 0xFFFF
        self.other = socket.create_connection(("127.0.0.1", port), timeout=3)
        self._send(self.other, 17, number)
        self._receive(self.other)
        self.number = 0
        self.numbers: list[int] = []  # of the DataEnds that came

    def _send(self, channel: socket.socket, kind: int, parameter: int, payload: bytes = b"") -> None:
        channel.sendall(HEADER.pack(b"HS", kind, 0, parameter, len(payload)) + payload)

    def _receive(self, channel: socket.socket) -> tuple[int, int, int, bytes]:
        _, kind, control, parameter, length = HEADER.unpack(exactly(channel, 16))
        return kind, control, parameter, exactly(channel, length)

    def put(self, message: bytes) -> None:
        self.number += 2
        self._send(self.channel, 7, self.number, message)

    def message(self) -> bytes:
        got = b""
        while True:
            kind, _, number, payload = self._receive(self.channel)
            got += payload
            if kind == 7:
                self.numbers.append(number)
                return got

    def rest(self, quiet_s: float = 0.15) -> tuple[bytes, str]:
        """Payloads of whatever arrives, the last one perhaps cut."""
        data, ended = until_quiet(self.channel, quiet_s)
        got = b""
        while len(data) >= 16:
            length = HEADER.unpack(data[:16])[4]
            got, data = got + data[16 : 16 + length], data[16 + length :]
        return got, ended

    def close(self) -> None:
        self.channel.close()
        self.other.close()


class Vxi11Client:
    """A client by hand; it reads what has come, until it has to wait."""

    def __init__(self, port: int) -> None:
        self.channel = socket.create_connection(("127.0.0.1", port), timeout=3)
        self.ended = ""  # how the connection ended, when a write found that
        self.link = struct.unpack("!4I", self.call(10, struct.pack("!3I", 1, 0, 0) + opaque(b"inst0")))[1]

    def send(self, procedure: int, arguments: bytes) -> None:
        record = struct.pack("!10I", 7, 0, 2, 0x0607AF, 1, procedure, 0, 0, 0, 0) + arguments
        self.channel.sendall(struct.pack("!I", 0x8000_0000 | len(record)) + record)

    def call(self, procedure: int, arguments: bytes) -> bytes:
        """What follows the head of the reply."""
        self.send(procedure, arguments)
        mark = struct.unpack("!I", exactly(self.channel, 4))[0]
        record = exactly(self.channel, mark & 0x7FFF_FFFF)
        assert struct.unpack("!6I", record[:24]) == (7, 1, 0, 0, 0, 0)
        return record[24:]

    def put(self, message: bytes) -> None:
        try:
            assert self.write(message) == 0
        except ConnectionError as error:
            self.ended = "RST" if error.errno else "FIN"

    def write(self, message: bytes, timeout_ms: int = 3000, flags: int = 8) -> int:
        """The error."""
        reply = self.call(11, struct.pack("!4I", self.link, timeout_ms, 0, flags) + opaque(message))
        error, size = struct.unpack("!2I", reply)
        assert size == (0 if error else len(message))
        return int(error)

    def read_call(self, timeout_ms: int, size: int = 1 << 20, flags: int = 0, char: int = 0) -> bytes:
        return struct.pack("!6I", self.link, size, timeout_ms, 0, flags, char)

    def read(self, timeout_ms: int = 3000, size: int = 1 << 20, flags: int = 0, char: int = 0) -> tuple[int, int, bytes]:
        """Error, reason and data."""
        reply = self.call(12, self.read_call(timeout_ms, size, flags, char))
        error, reason, length = struct.unpack("!3I", reply[:12])
        return error, reason, reply[12 : 12 + length]

    def message(self) -> bytes:
        got, reason = b"", 0
        while not reason & 4:
            error, reason, data = self.read()
            assert error == 0
            got += data
        return got

    def rest(self, quiet_s: float = 0.15) -> tuple[bytes, str]:
        got = b""
        while not self.ended:
            try:
                error, _, data = self.read(round(quiet_s * 1000))
            except ConnectionError as error:
                self.ended = "RST" if error.errno else "FIN"
                break
            if error:
                return got, "open"
            got += data
        return got, self.ended

    def close(self) -> None:
        self.channel.close()


def opaque(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data + bytes(-len(data) % 4)


class Bench:
    """A memory box that holds BLOCK, its server, and a client of it."""

    def __init__(self, transport: str) -> None:
        self.box = MemoryBox()
        self.box.held = BLOCK
        self.schedule = FaultSchedule({"scope": "scope"}, seed=3)
        self.transport = transport
        self.server: SocketServer | HislipServer | Vxi11Server
        make: Callable[[int], Client]
        if transport == "socket":
            self.server, make = SocketServer(self.box, faults=self.schedule.of["scope"]), RawClient
        elif transport == "vxi11":
            self.server, make = Vxi11Server(self.box, faults=self.schedule.of["scope"]), Vxi11Client
        else:
            self.server, make = HislipServer(self.box, faults=self.schedule.of["scope"]), HislipClient
        self.server.start()
        self._make = make
        self.client = make(self.server.port)
        self.clients = [self.client]

    def fault(self, kind: str, **settings: object) -> str:
        return self.schedule.add({"box": "scope", "kind": kind, **settings})

    def another(self) -> Client:
        """A client that is already being served."""
        client = self._make(self.server.port)
        self.clients.append(client)
        client.put(b"*IDN?")
        client.message()
        return client

    def ask(self, message: bytes = b"GET?") -> bytes:
        self.client.put(message)
        return self.client.message()

    def heard(self, message: bytes = b"GET?") -> tuple[bytes, str]:
        self.client.put(message)
        return self.client.rest()

    def close(self) -> None:
        self.schedule.heal()
        for client in self.clients:
            client.close()
        self.server.close()
