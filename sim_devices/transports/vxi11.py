"""A VXI-11 server: one simulated box at `TCPIP::127.0.0.1,PORT::inst0::INSTR`.

Remote procedure calls (see sim_devices/transports/rpc.py), integers of 32 bits, times in ms:

    core    0x0607AF   create_link 10    client lock lock_timeout device       -> error link abort_port largest
                       device_write 11   link timeout lock_timeout flags data  -> error size
                       device_read 12    link size timeout lock_timeout flags char -> error reason data
                       device_readstb 13 link flags lock_timeout timeout       -> error status;     14 trigger, 15 clear,
                                                                               16 remote, 17 local  -> error
                       device_lock 18    link flags lock_timeout -> error      unlock 19, destroy_link 23: link -> error
    abort   0x0607B0   device_abort 1    link -> error                         on the port that create_link told

    flags   1 wait for the lock, 8 the message ends here, 128 `char` ends a read
    reason  1 `size` bytes, 2 `char`, 4 the end of the reply; none: there is more, or it is not there yet

A client that names the port needs no port mapper. Interrupts (create_intr_chan, device_enable_srq) are refused as operations
that are not supported: neither PyVISA-py 0.8.1 nor python-vxi11 0.9 can take one.

A message is executed after its write was answered, in a thread of the link, so a read ends after its own timeout, however long
the box takes. One message may wait while another is executed; a write beyond that waits for its timeout. A message that comes
before the reply to the one before was read discards that reply, and is a query error -410 of the box; a read when nothing was
asked is a query error -420 (IEEE 488.2-1992, 6.3.1.7). Device clear discards what is under way and ends what the box waits for.

Source: VXI-11 (TCP/IP Instrument Protocol, VXIbus Consortium, revision 1.0, 1995): sections B.5 and B.6, tables B.1 to B.3.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from sim_devices.instruments.box import Box, Message
from sim_devices.instruments.faults import Faults
from sim_devices.transports.faulty_line import FaultyLine, raw
from sim_devices.transports.framing import messages
from sim_devices.transports.hislip import INTERRUPTED, MAV, MESSAGE_CAP
from sim_devices.transports.listener import Listener, abort, hang_up
from sim_devices.transports.rpc import (
    PORT_MAPPER_PORT,
    Arguments,
    CutShort,
    NoProcedure,
    Pieces,
    PortMapper,
    opaque,
    serve_calls,
    unsigned,
)

CORE, ABORT = (0x0607AF, 1), (0x0607B0, 1)
DEVICES = ("", "inst0")
LARGEST = 1 << 20  # bytes of a message that one call carries, either way
CALL_BYTES = LARGEST + 1024
UNTERMINATED = -420
WAIT_LOCK, END, SET_CHAR = 1, 8, 128
BY_COUNT, BY_CHAR, BY_END = 1, 2, 4
FOR_EVER = 0xFFFF_FFFF  # ms


class Error(IntEnum):
    """Device_ErrorCode, VXI-11 table B.2."""

    NONE = 0
    NO_DEVICE = 3
    NO_LINK = 4
    NOT_SUPPORTED = 8
    NO_ROOM = 9
    LOCKED = 11
    NOT_LOCKED = 12
    TIMEOUT = 15
    IO = 17
    ABORTED = 23


@dataclass(slots=True)
class _Reply:
    """A response message in the output queue: what the box has given of it so far."""

    data: bytearray | bytes = b""
    ended: bool = False
    at: int = 0  # bytes that were read
    cut: bool = False  # nothing more comes, not even its end


@dataclass(slots=True, eq=False)
class _Link:
    """A client's link to the box. `turn` counts what ends the wish for older replies: a message that begins, a clear."""

    number: int
    channel: socket.socket
    pieces: list[bytes] = field(default_factory=list)
    collected: int = 0
    waiting: deque[tuple[int, bytes]] = field(default_factory=deque)  # (turn, message)
    output: deque[_Reply] = field(default_factory=deque)
    turn: int = 0
    cleared: int = 0  # the turn of the last clear
    busy: bool = False
    answered: bool = False  # the last message had a reply, and its end was not read
    aborted: bool = False
    failed: bool = False
    cut: bool = False  # its connection is being dropped
    gone: bool = False
    thread: threading.Thread | None = None
    line: FaultyLine | None = None  # made when the first fault is scheduled

    def empty(self) -> None:
        self.pieces, self.collected = [], 0
        self.waiting.clear()
        self.output.clear()
        self.answered = False


class Vxi11Server:
    """Serves `box` to any number of clients.

    Args:
        faults: of the box.

    Raises:
        ConfigError: not a loopback address, or the port is taken.
    """

    def __init__(self, box: Box, host: str = "127.0.0.1", port: int = 0, faults: Faults | None = None) -> None:
        self._box, self._faults = box, faults or Faults(box.name)
        self._listener = Listener(self._serve, host, port, f"vxi-11 {box.name}")
        self._aborts = Listener(self._serve_aborts, host, 0, f"vxi-11 abort {box.name}")
        self._faults.doors.append(self)
        self._mapper: PortMapper | None = None
        self._links: dict[int, _Link] = {}
        self._last_number = 0
        self._state = threading.Condition()  # guards the links and the lock; the box is never called with it held
        self._holder: _Link | None = None

    @property
    def port(self) -> int:
        """TCP port of the core channel."""
        return self._listener.port

    @property
    def resource(self) -> str:
        """VISA resource string; it names the port unless a port mapper tells it."""
        port = "" if self._mapper is not None and self._mapper.port == PORT_MAPPER_PORT else f",{self.port}"
        return f"TCPIP::{self._listener.host}{port}::inst0::INSTR"

    def map_port(self, port: int = PORT_MAPPER_PORT) -> PortMapper:
        """Add a port mapper, for clients that know the host alone. Before `start`.

        Raises:
            ConfigError: its port is taken, or root's.
        """
        self._mapper = PortMapper({CORE: self.port}, self._listener.host, port)
        return self._mapper

    def start(self) -> None:
        """Take clients, in threads of its own."""
        self._aborts.start()
        self._listener.start()
        if self._mapper is not None:
            self._mapper.start()

    def refuse(self, seconds: float, healed: threading.Event, reset: bool = False) -> None:
        """See Door."""
        for listener in (self._listener, self._aborts):
            listener.refuse(seconds, healed, reset)
        self._cut()

    def close(self) -> None:
        """Drop every client. May be called twice."""
        if self._mapper is not None:
            self._mapper.close()
        self._cut()
        self._listener.close()
        self._aborts.close()

    def _cut(self, link: _Link | None = None) -> None:
        """End the calls that wait, of one link or of all."""
        with self._state:
            for one in self._links.values() if link is None else (link,):
                one.cut = True
            self._state.notify_all()

    # The abort channel

    def _serve_aborts(self, channel: socket.socket) -> None:
        serve_calls(channel, ABORT, self._abort, CALL_BYTES)

    def _abort(self, procedure: int, arguments: Arguments) -> Pieces:
        if procedure != 1:
            raise NoProcedure
        (number,) = arguments.unsigned(1)
        with self._state:
            link = self._links.get(number)
            if link is not None:
                link.aborted = True
                self._state.notify_all()
        return [unsigned(Error.NONE if link is not None else Error.NO_LINK)]

    # The core channel

    def _serve(self, channel: socket.socket) -> None:
        links: dict[int, _Link] = {}
        try:
            serve_calls(channel, CORE, lambda number, arguments: self._call(channel, links, number, arguments), CALL_BYTES)
        finally:
            for link in links.values():
                self._leave(link)

    def _call(self, channel: socket.socket, links: dict[int, _Link], procedure: int, arguments: Arguments) -> Pieces:
        if procedure == 10:
            return self._create(channel, links, arguments)
        if procedure in (20, 22, 25, 26):
            return [unsigned(Error.NOT_SUPPORTED), *(opaque(b"") if procedure == 22 else ())]
        if procedure not in PROCEDURES:
            raise NoProcedure
        do, results = PROCEDURES[procedure]
        (number,) = arguments.unsigned(1)
        link = links.get(number)
        if link is None:
            return [unsigned(Error.NO_LINK, *[0] * results)]
        with self._state:
            link.aborted = False
        if procedure == 23:
            del links[number]
        return do(self, link, arguments)

    def _create(self, channel: socket.socket, links: dict[int, _Link], arguments: Arguments) -> Pieces:
        _client, locked, timeout = arguments.unsigned(3)
        name = bytes(arguments.opaque(256))
        if name.decode("latin-1").lower() not in DEVICES:
            return [unsigned(Error.NO_DEVICE, 0, 0, 0)]
        with self._state:
            self._last_number += 1
            link = _Link(self._last_number, channel)
            if locked and (error := self._turn(link, WAIT_LOCK, timeout)):
                return [unsigned(error, 0, 0, 0)]
            self._holder = link if locked else self._holder
            self._links[link.number] = links[link.number] = link
        return [unsigned(Error.NONE, link.number, self._aborts.port, LARGEST)]

    def _destroy(self, link: _Link, _arguments: Arguments) -> Pieces:
        self._leave(link)
        return [unsigned(Error.NONE)]

    def _leave(self, link: _Link) -> None:
        with self._state:
            link.gone = True
            self._links.pop(link.number, None)
            if self._holder is link:
                self._holder = None
            self._state.notify_all()

    def _lock(self, link: _Link, arguments: Arguments) -> Pieces:
        flags, timeout = arguments.unsigned(2)
        with self._state:
            if self._holder is link:
                return [unsigned(Error.LOCKED)]
            error = self._turn(link, flags, timeout)
            self._holder = self._holder if error else link
        return [unsigned(error)]

    def _unlock(self, link: _Link, _arguments: Arguments) -> Pieces:
        with self._state:
            if self._holder is not link:
                return [unsigned(Error.NOT_LOCKED)]
            self._holder = None
            self._state.notify_all()
        return [unsigned(Error.NONE)]

    def _turn(self, link: _Link, flags: int, timeout_ms: int) -> Error:
        """May `link` go on, another one holding the lock? With the state held.

        Raises:
            ConnectionAbortedError: the client is being dropped, or went away while it waited.
        """
        waited = self._holder not in (None, link)
        error = self._wait(link, lambda: self._holder in (None, link), timeout_ms if flags & WAIT_LOCK else 0, Error.LOCKED)
        if waited and not error and _went(link.channel):
            raise ConnectionAbortedError("the client went away while it waited for the lock")
        return error

    def _wait(self, link: _Link, done: Callable[[], bool], timeout_ms: int, late: Error) -> Error:
        """Wait until `done`; an error when something else comes first. With the state held.

        Raises:
            ConnectionAbortedError: the client is being dropped.
        """
        limit = None if timeout_ms == FOR_EVER else timeout_ms / 1000
        self._state.wait_for(lambda: done() or link.aborted or link.failed or link.cut, limit)
        if link.cut:
            raise ConnectionAbortedError("the line is cut")
        if link.aborted:
            return Error.ABORTED
        if link.failed:
            return Error.IO
        return Error.NONE if done() else late

    def _write(self, link: _Link, arguments: Arguments) -> Pieces:
        timeout, lock_timeout, flags = arguments.unsigned(3)
        data = bytes(arguments.opaque(LARGEST))
        unread = False
        with self._state:
            if error := self._turn(link, flags, lock_timeout):
                return [unsigned(error, 0)]
            if not link.pieces:
                link.turn += 1
                unread = bool(link.output)
                link.output.clear()
                self._state.notify_all()
            if link.collected + len(data) > MESSAGE_CAP:
                link.empty()
                return [unsigned(Error.NO_ROOM, 0)]
            if not flags & END:
                link.pieces.append(data)
                link.collected += len(data)
            else:
                error = self._wait(link, lambda: not link.waiting, timeout, Error.TIMEOUT)
        if unread:
            self._box.query_error(INTERRUPTED)
        if flags & END and not error:
            self._hand_over(link, data)
        return [unsigned(error, 0 if error else len(data))]

    def _hand_over(self, link: _Link, last: bytes) -> None:
        """Give the message that is whole now to the thread of the link."""
        with self._state:
            link.waiting.append((link.turn, b"".join([*link.pieces, last]) if link.pieces else last))
            link.pieces, link.collected = [], 0
            if link.thread is None:
                link.thread = threading.Thread(
                    target=self._work, args=(link,), name=f"vxi-11 {self._box.name} link {link.number}", daemon=True
                )
                link.thread.start()
            self._state.notify_all()

    def _read(self, link: _Link, arguments: Arguments) -> Pieces:
        size, timeout, lock_timeout, flags, char = arguments.unsigned(5)
        error, reason, data, unasked = self._turned(link, flags, lock_timeout), 0, b"", False
        if not error:
            with self._state:
                error = self._wait(link, lambda: _readable(link), timeout, Error.TIMEOUT)
                if not error:
                    reason, data = _take(link, size, char & 0xFF if flags & SET_CHAR else None)
                    self._state.notify_all()
                unasked = error is Error.TIMEOUT and not (link.busy or link.waiting or link.answered)
        if unasked:
            self._box.query_error(UNTERMINATED)
        return [unsigned(error, reason), *opaque(data)]

    def _status(self, link: _Link, arguments: Arguments) -> Pieces:
        flags, lock_timeout, _ = arguments.unsigned(3)
        if error := self._turned(link, flags, lock_timeout):
            return [unsigned(error, 0)]
        with self._state:
            available = MAV if link.output else 0
        return [unsigned(Error.NONE, (self._box.status_byte() & ~MAV & 0xFF) | available)]

    def _trigger(self, link: _Link, arguments: Arguments) -> Pieces:
        flags, lock_timeout, timeout = arguments.unsigned(3)
        with self._state:
            error = self._turn(link, flags, lock_timeout)
            if not error:  # in its place behind what was written before
                error = self._wait(link, lambda: not (link.busy or link.waiting), timeout, Error.TIMEOUT)
        if not error:
            self._box.trigger()
        return [unsigned(error)]

    def _clear(self, link: _Link, arguments: Arguments) -> Pieces:
        flags, lock_timeout, _ = arguments.unsigned(3)
        error = self._turned(link, flags, lock_timeout)
        if not error:
            with self._state:
                link.turn += 1
                link.cleared = link.turn
                link.empty()
                if link.line is not None:
                    link.line.forget()
                self._state.notify_all()
            self._box.clear()
        return [unsigned(error)]

    def _remote(self, link: _Link, arguments: Arguments) -> Pieces:
        flags, lock_timeout, _ = arguments.unsigned(3)
        return [unsigned(self._turned(link, flags, lock_timeout))]

    def _turned(self, link: _Link, flags: int, lock_timeout: int) -> Error:
        with self._state:
            return self._turn(link, flags, lock_timeout)

    # The thread of a link

    def _work(self, link: _Link) -> None:
        outlet = _Queue(self._state, link, self._box.query_error)
        while True:
            with self._state:
                link.busy = False
                self._state.notify_all()
                self._state.wait_for(lambda: link.waiting or link.gone or link.cut)
                if link.cut or not link.waiting:  # what a client said before it left is still done
                    return
                outlet.turn, whole = link.waiting.popleft()
                link.busy, link.answered = True, False
                self._state.notify_all()
            try:
                self._execute(link, memoryview(whole), outlet)
            except ConnectionError:  # a fault cut the line
                hang_up(link.channel)
                self._cut(link)
                return
            except BaseException:
                with self._state:
                    link.failed = True
                    self._state.notify_all()
                raise

    def _execute(self, link: _Link, whole: memoryview, outlet: _Queue) -> None:
        for message in messages(whole):
            if link.cleared > outlet.turn:
                return
            if self._faults.on_wire:
                self._disturbed(link, message, outlet)
                continue
            reply = self._box.execute(message)
            if reply is not None:
                link.answered = True
                outlet.put((reply + b"\n", True))

    def _disturbed(self, link: _Link, message: Message, outlet: _Queue) -> None:
        """The same, while faults are scheduled."""
        if link.line is None:
            link.line = FaultyLine(self._box, self._faults, outlet, lambda: link.cleared > outlet.turn or link.gone)
        reply = self._box.execute(link.line.command(message))
        link.answered = reply is not None
        link.line.reply(message, reply, raw(b"\n"))


class _Queue:
    """The outlet of a link: its output queue. turn: that of the message whose replies are put.

    Args:
        state: of the server.
        query_error: of the box.
    """

    def __init__(self, state: threading.Condition, link: _Link, query_error: Callable[[int], None]) -> None:
        self._state, self._link, self._query_error = state, link, query_error
        self.turn = 0

    def put(self, *parts: tuple[bytes, bool]) -> None:
        """See Outlet. What nobody waits for any more is dropped."""
        link = self._link
        with self._state:
            unwanted = link.turn != self.turn
            for data, ended in () if unwanted else parts:
                if link.output and not link.output[-1].ended:
                    link.output[-1].data += data
                else:
                    link.output.append(_Reply(data if ended else bytearray(data)))
                link.output[-1].ended = ended
            cleared = link.cleared > self.turn
            self._state.notify_all()
        if unwanted and parts and not cleared:
            self._query_error(INTERRUPTED)

    def heard(self, seconds: float) -> bool:
        """See Outlet."""
        with self._state:
            return self._state.wait_for(lambda: self._link.turn != self.turn, seconds)

    def reset(self) -> None:
        """See Outlet."""
        abort(self._link.channel)

    def finish(self) -> None:
        """See Outlet: who reads what was put gets no more."""
        with self._state:
            if not self._link.output or self._link.output[-1].ended:
                self._link.output.append(_Reply(bytearray()))
            self._link.output[-1].cut = True
            self._state.notify_all()


def _went(channel: socket.socket) -> bool:
    return bool(select.select([channel], [], [], 0)[0]) and not channel.recv(1, socket.MSG_PEEK)


def _readable(link: _Link) -> bool:
    if not link.output:
        return False
    first = link.output[0]
    return first.at < len(first.data) or first.ended or first.cut


def _take(link: _Link, size: int, char: int | None) -> tuple[int, bytes]:
    """(reason, data): what a read of `size` bytes gets of the first reply. With the state held."""
    reply = link.output[0]
    data = bytes(memoryview(reply.data)[reply.at : reply.at + min(size, LARGEST)])
    reason = 0
    if char is not None and (stop := data.find(char)) >= 0:
        data, reason = data[: stop + 1], BY_CHAR
    reply.at += len(data)
    if len(data) == size:
        reason |= BY_COUNT
    if reply.at == len(reply.data):
        if reply.cut:
            raise CutShort([unsigned(Error.NONE, 0, len(data) + 4), data], -len(data) % 4 + 4)
        if reply.ended:
            reason |= BY_END
            link.output.popleft()
            link.answered = bool(link.output)
    return reason, data


PROCEDURES: dict[int, tuple[Callable[[Vxi11Server, _Link, Arguments], Pieces], int]] = {
    11: (Vxi11Server._write, 1),
    12: (Vxi11Server._read, 2),
    13: (Vxi11Server._status, 1),
    14: (Vxi11Server._trigger, 0),
    15: (Vxi11Server._clear, 0),
    16: (Vxi11Server._remote, 0),
    17: (Vxi11Server._remote, 0),
    18: (Vxi11Server._lock, 0),
    19: (Vxi11Server._unlock, 0),
    23: (Vxi11Server._destroy, 0),
}
"""Procedure -> what it does, and how many integers its results have beside the error."""
