"""Sun's remote procedure calls over TCP, and the port mapper that tells where a program listens.

    record   = { fragment }          fragment = last:1 length:31 bytes          big-endian, as all that follows
    call     = xid 0 2 program version procedure credentials verifier arguments     credentials, verifier = flavor opaque
    reply    = xid 1 0 verifier status results        status: 0 done, 1 no program, 2 other version, 3 no procedure, 4 garbage
    refusal  = xid 1 1 0 2 2                          the call was not of version 2 of the protocol
    opaque   = length bytes, filled with zeros to a multiple of four

The port mapper is program 100000, version 2, port 111: procedure 3 takes (program, version, protocol, 0) and returns the port,
or 0. A client that looks for instruments sends that call as a broadcast, and hears from each that has one.

Source: RFC 5531 (RPC version 2; record marking, section 11), RFC 4506 (XDR), RFC 1833 section 3 (port mapper).
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from hil.errors import ConfigError
from sim_devices.transports.listener import Listener, receive, send

LAST = 0x8000_0000
CREDENTIALS_CAP = 400  # bytes, RFC 5531 section 8.2
PORT_MAPPER, PORT_MAPPER_VERSION, PORT_MAPPER_PORT = 100_000, 2, 111
TCP = 6
DONE, NO_PROGRAM, OTHER_VERSION, NO_PROCEDURE, GARBAGE = range(5)
LOOPBACK_BROADCAST = "127.255.255.255"
DATAGRAM_BYTES = 8192

Pieces = Sequence[bytes | bytearray | memoryview]
Call = Callable[[int, "Arguments"], Pieces]
"""(procedure, arguments) -> results. Raises NoProcedure, GarbageArguments, CutShort."""


class NoProcedure(Exception):
    """The program has no procedure of this number."""


class GarbageArguments(Exception):
    """The arguments are not those of the procedure."""


class CutShort(Exception):
    """The reply ends in the middle: these results are sent, `missing` bytes fewer than were announced, and then FIN."""

    def __init__(self, results: Pieces, missing: int) -> None:
        super().__init__("cut short")
        self.results, self.missing = results, missing


class Arguments:
    """Takes values from the front of XDR data; what is not there is a GarbageArguments."""

    def __init__(self, data: memoryview) -> None:
        self._left = data

    def unsigned(self, count: int) -> tuple[int, ...]:
        """Take `count` unsigned 32-bit integers."""
        return struct.unpack(f"!{count}I", self._taken(4 * count))

    def opaque(self, limit: int | None = None) -> memoryview:
        """Take bytes of a length that stands before them.

        Args:
            limit: most of them.
        """
        (size,) = self.unsigned(1)
        if limit is not None and size > limit:
            raise GarbageArguments
        data = self._taken(size)
        self._taken(-size % 4)
        return data

    def _taken(self, count: int) -> memoryview:
        if count > len(self._left):
            raise GarbageArguments
        taken, self._left = self._left[:count], self._left[count:]
        return taken


def unsigned(*values: int) -> bytes:
    """Integers as XDR."""
    return struct.pack(f"!{len(values)}I", *values)


def opaque(data: bytes | bytearray | memoryview) -> Pieces:
    """Bytes as XDR."""
    return [unsigned(len(data)), data, bytes(-len(data) % 4)]


def serve_calls(channel: socket.socket, program: tuple[int, int], call: Call, largest: int) -> None:
    """Answer the calls of one client until it goes.

    Args:
        channel: the connection.
        program: its number and its version.
        call: does what is asked.
        largest: bytes of a call that are taken.

    Raises:
        ConnectionError: the client went away, or broke the protocol.
    """
    while True:
        record = memoryview(_record(channel, largest))
        try:
            reply, missing = _reply(record, program, call), 0
        except CutShort as cut:
            reply, missing = [bytes(record[:4]), unsigned(1, 0, 0, 0, DONE), *cut.results], cut.missing
        send(channel, unsigned(LAST | sum(map(len, reply)) + missing), *reply)
        if missing:
            channel.shutdown(socket.SHUT_WR)


def _record(channel: socket.socket, largest: int) -> bytearray:
    record, last = bytearray(), False
    while not last:
        (mark,) = struct.unpack("!I", receive(channel, 4))
        last, size = bool(mark & LAST), mark & ~LAST
        if len(record) + size > largest:
            raise ConnectionAbortedError(f"a call of {len(record) + size} bytes")
        record = record + receive(channel, size) if record else receive(channel, size)
    return record


def _reply(record: memoryview, program: tuple[int, int], call: Call) -> Pieces:
    """The reply to a call, without its record mark.

    Raises:
        ConnectionAbortedError: it is not a call.
    """
    arguments = Arguments(record)
    try:
        xid, kind, protocol, number, version, procedure = arguments.unsigned(6)
        for _ in ("credentials", "verifier"):
            arguments.unsigned(1)
            arguments.opaque(CREDENTIALS_CAP)
    except GarbageArguments:
        raise ConnectionAbortedError("not a call") from None
    if kind != 0:
        raise ConnectionAbortedError("not a call")
    if protocol != 2:
        return [unsigned(xid, 1, 1, 0, 2, 2)]
    accepted = unsigned(xid, 1, 0, 0, 0)
    if number != program[0]:
        return [accepted, unsigned(NO_PROGRAM)]
    if version != program[1]:
        return [accepted, unsigned(OTHER_VERSION, program[1], program[1])]
    try:
        results = call(procedure, arguments) if procedure else ()
    except NoProcedure:
        return [accepted, unsigned(NO_PROCEDURE)]
    except GarbageArguments:
        return [accepted, unsigned(GARBAGE)]
    return [accepted, unsigned(DONE), *results]


class PortMapper:
    """Tells clients that know a host alone where its programs listen: over TCP, over UDP, and to broadcasts.

    Args:
        programs: (program, version) -> TCP port.
        host: loopback address.
        port: 0 takes a free one, where only those find it who know it.

    Raises:
        ConfigError: the port is taken, or the user may not have it.
    """

    def __init__(self, programs: Mapping[tuple[int, int], int], host: str = "127.0.0.1", port: int = PORT_MAPPER_PORT) -> None:
        self._programs = dict(programs)
        try:
            self._listener = Listener(self._serve, host, port, f"port mapper of {host}")
        except ConfigError as error:
            error.allowed = f"a free port; {PORT_MAPPER_PORT} is root's, and that of rpcbind where it runs"
            error.todo = "leave the port mapper out and write the port into the address: TCPIP::127.0.0.1,PORT::inst0::INSTR"
            raise
        self._datagrams = [_datagrams(host, self.port)]
        with suppress(OSError):  # not on every system
            self._datagrams.append(_datagrams(LOOPBACK_BROADCAST, self.port))

    @property
    def port(self) -> int:
        """Port that it listens at, of TCP and of UDP."""
        return self._listener.port

    def start(self) -> None:
        """Answer, in threads of its own."""
        self._listener.start()
        for channel in self._datagrams:
            threading.Thread(target=self._answer, args=(channel,), name="port mapper", daemon=True).start()

    def close(self) -> None:
        """Stop answering. May be called twice."""
        self._listener.close()
        for channel in self._datagrams:
            with suppress(OSError):  # wakes the thread; a datagram socket is not connected
                channel.shutdown(socket.SHUT_RDWR)
            channel.close()

    def _serve(self, channel: socket.socket) -> None:
        serve_calls(channel, (PORT_MAPPER, PORT_MAPPER_VERSION), self._call, DATAGRAM_BYTES)

    def _answer(self, channel: socket.socket) -> None:
        with suppress(OSError):  # it was closed
            while True:
                call, client = channel.recvfrom(DATAGRAM_BYTES)
                with suppress(ConnectionAbortedError):
                    reply = _reply(memoryview(call), (PORT_MAPPER, PORT_MAPPER_VERSION), self._call)
                    self._datagrams[0].sendto(b"".join(reply), client)  # from the host's own address

    def _call(self, procedure: int, arguments: Arguments) -> Pieces:
        if procedure == 3:
            program, version, protocol, _ = arguments.unsigned(4)
            return [unsigned(self._programs.get((program, version), 0) if protocol == TCP else 0)]
        if procedure == 4:
            listed = [unsigned(1, program, version, TCP, port) for (program, version), port in self._programs.items()]
            return [*listed, unsigned(0)]
        raise NoProcedure


def _datagrams(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # each hears a broadcast
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
