"""A HiSLIP 1.0 server: one simulated box at `TCPIP::127.0.0.1::hislip0,PORT::INSTR`.

Every message on the wire, big-endian (IVI-6.1, High-Speed LAN Instrument Protocol, 2.1 and table 4):

    "HS" | type u8 | control u8 | parameter u32 | length u64 | payload of `length` bytes

A client opens two connections. Initialize makes the first one the synchronous channel (Data, DataEnd, Trigger; a reply carries
the id of the DataEnd that asked for it), AsyncInitialize with the session number makes the second one the asynchronous channel
(status, device clear, locks).

Synchronised mode: a message is executed, and its reply sent, before the next one is read. A message that comes while a reply
was not reported as delivered (control bit 0, RMT) is a query error -410 of the box. Interrupted is not sent: the client drops
the old reply by its id, and PyVISA-py 0.8.1 would take an AsyncInterrupted for the answer to its next status query.

Device clear (IVI-6.1, 6.12): AsyncDeviceClear aborts what the box does and discards what is under way; the synchronous
channel is deaf until DeviceClearComplete has come through it. MAV (bit 4 of the status byte) belongs to the transport: it is
set from the sending of a reply until the client says that it was delivered.

Locks (AsyncLock: control 1 requests, waiting for as many ms as the parameter says; 0 releases; the payload is the lock string,
empty for the exclusive lock): one client may hold the exclusive lock; any number that name the same string share the shared
one, and one of those may take the exclusive lock besides. The messages of all others wait. A lock ends with its connection.
"""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from sim_devices.instruments.box import Box, Message
from sim_devices.instruments.faults import Faults
from sim_devices.transports.faulty_line import FaultyLine, SocketOutlet
from sim_devices.transports.framing import messages
from sim_devices.transports.listener import Listener, hang_up, receive, send

HEADER = struct.Struct("!2sBBIQ")
VERSION = 0x0100
VENDOR = int.from_bytes(b"ZZ", "big")
SUB_ADDRESSES = (b"", b"hislip0")
LARGEST_MESSAGE = 64 << 20  # bytes, what the server takes in one Data message
CLIENT_LARGEST = 1 << 20  # bytes, until the client says otherwise
MESSAGE_CAP = 1 << 28  # bytes, of a program message collected from many Data messages
MAV = 0x10
INTERRUPTED = -410


class Kind(IntEnum):
    """Message types, IVI-6.1 table 4."""

    INITIALIZE = 0
    INITIALIZE_RESPONSE = 1
    FATAL_ERROR = 2
    ERROR = 3
    ASYNC_LOCK = 4
    ASYNC_LOCK_RESPONSE = 5
    DATA = 6
    DATA_END = 7
    DEVICE_CLEAR_COMPLETE = 8
    DEVICE_CLEAR_ACKNOWLEDGE = 9
    ASYNC_REMOTE_LOCAL = 10
    ASYNC_REMOTE_LOCAL_RESPONSE = 11
    TRIGGER = 12
    ASYNC_MAXIMUM_SIZE = 15
    ASYNC_MAXIMUM_SIZE_RESPONSE = 16
    ASYNC_INITIALIZE = 17
    ASYNC_INITIALIZE_RESPONSE = 18
    ASYNC_DEVICE_CLEAR = 19
    ASYNC_STATUS = 21
    ASYNC_STATUS_RESPONSE = 22
    ASYNC_DEVICE_CLEAR_ACKNOWLEDGE = 23
    ASYNC_LOCK_INFO = 24
    ASYNC_LOCK_INFO_RESPONSE = 25


class Fatal(IntEnum):
    """Control codes of FatalError; the connection ends."""

    UNIDENTIFIED = 0
    BAD_HEADER = 1
    CHANNELS = 2
    BAD_INITIALIZE = 3


class Complaint(IntEnum):
    """Control codes of Error; the message is dropped and the connection goes on."""

    UNKNOWN_TYPE = 1
    TOO_LARGE = 4


class Lock(IntEnum):
    """Control codes of AsyncLockResponse. FAILURE: not granted in time. ERROR: held already, or released without being held."""

    FAILURE = 0
    SUCCESS = 1
    SUCCESS_SHARED_RELEASED = 2
    ERROR = 3


class Header(NamedTuple):
    """The header of a HiSLIP message.

    Args:
        kind: message type.
        control: control code.
        parameter: message parameter.
        length: bytes of the payload.
    """

    kind: int
    control: int
    parameter: int
    length: int


@dataclass(slots=True, eq=False)
class _Session:
    """A client: its two channels and what is under way on them."""

    number: int
    sync: socket.socket
    asynchronous: socket.socket | None = None
    largest: int = CLIENT_LARGEST
    pieces: list[bytearray] = field(default_factory=list)
    collected: int = 0
    too_large: bool = False
    unread: bool = False  # a reply was sent and not yet reported as delivered
    clearing: bool = False
    gone: bool = False  # its asynchronous channel has ended
    line: FaultyLine | None = None  # made when the first fault is scheduled

    def forget(self) -> None:
        self.pieces, self.collected, self.too_large = [], 0, False


class _ProtocolError(ConnectionError):
    """The client broke the protocol; it is told and dropped."""

    def __init__(self, code: Fatal, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class HislipServer:
    """Serves `box` to any number of clients, one message at a time for each of them.

    Args:
        faults: of the box.

    Raises:
        ConfigError: not a loopback address, or the port is taken.
    """

    def __init__(self, box: Box, host: str = "127.0.0.1", port: int = 0, faults: Faults | None = None) -> None:
        self._box, self._faults = box, faults or Faults(box.name)
        self._listener = Listener(self._serve, host, port, f"hislip {box.name}")
        self._faults.doors.append(self._listener)
        self._sessions: dict[int, _Session] = {}
        self._last_number = 0
        self._state = threading.Condition()  # guards the sessions and the locks
        self._holder: _Session | None = None  # of the exclusive lock
        self._sharers: list[_Session] = []  # holders of the shared lock, all with the same string
        self._string = b""

    @property
    def port(self) -> int:
        """TCP port that it listens at."""
        return self._listener.port

    @property
    def resource(self) -> str:
        """VISA resource string."""
        return f"TCPIP::{self._listener.host}::hislip0,{self.port}::INSTR"

    def start(self) -> None:
        """Take clients, in threads of its own."""
        self._listener.start()

    def close(self) -> None:
        """Drop every client. May be called twice."""
        self._listener.close()

    def _serve(self, channel: socket.socket) -> None:
        try:
            first = _header(channel)
            if first.kind == Kind.INITIALIZE:
                self._serve_sync(channel, first)
            elif first.kind == Kind.ASYNC_INITIALIZE:
                self._serve_async(channel, first)
            else:
                raise _ProtocolError(Fatal.BAD_INITIALIZE, "the first message must be Initialize or AsyncInitialize")
        except _ProtocolError as error:
            _answer(channel, Kind.FATAL_ERROR, error.code, 0, error.text.encode())

    # The synchronous channel

    def _serve_sync(self, channel: socket.socket, first: Header) -> None:
        if first.length > 256 or bytes(receive(channel, first.length)) not in SUB_ADDRESSES:
            raise _ProtocolError(Fatal.BAD_INITIALIZE, "unknown sub-address; this box is hislip0")
        session = self._enter(channel)
        try:
            _answer(channel, Kind.INITIALIZE_RESPONSE, 0, VERSION << 16 | session.number)
            while True:
                self._sync_message(session, _header(channel))
        finally:
            self._leave(session)

    def _enter(self, channel: socket.socket) -> _Session:
        with self._state:
            while True:
                self._last_number = self._last_number % 0xFFFF + 1
                if self._last_number not in self._sessions:
                    break
            session = _Session(self._last_number, channel)
            self._sessions[session.number] = session
            return session

    def _leave(self, session: _Session) -> None:
        with self._state:
            self._sessions.pop(session.number, None)
            if self._holder is session:
                self._holder = None
            if session in self._sharers:
                self._sharers.remove(session)
            self._state.notify_all()
        if session.asynchronous is not None:
            hang_up(session.asynchronous)

    def _sync_message(self, session: _Session, header: Header) -> None:
        if header.kind in (Kind.DATA, Kind.DATA_END):
            self._data(session, header)
            return
        _discard(session.sync, header.length)
        if header.kind == Kind.TRIGGER:
            if not session.clearing:
                self._await_turn(session)
                self._interrupt(session, header)
                self._box.trigger()
        elif header.kind == Kind.DEVICE_CLEAR_COMPLETE:
            session.forget()
            if session.line is not None:
                session.line.forget()
            session.clearing = session.unread = False
            _answer(session.sync, Kind.DEVICE_CLEAR_ACKNOWLEDGE, 0, 0)
        elif header.kind == Kind.FATAL_ERROR:
            raise ConnectionAbortedError("the client gave up")
        elif header.kind != Kind.ERROR:
            _answer(session.sync, Kind.ERROR, Complaint.UNKNOWN_TYPE, 0, b"not a message of the synchronous channel")

    def _data(self, session: _Session, header: Header) -> None:
        if session.asynchronous is None:
            raise _ProtocolError(Fatal.CHANNELS, "data came before the asynchronous channel was open")
        if not session.collected and not session.clearing:
            self._interrupt(session, header)
        session.collected += header.length
        if header.length > LARGEST_MESSAGE or session.collected > MESSAGE_CAP:
            session.too_large = True
        if session.too_large or session.clearing:
            _discard(session.sync, header.length)
        else:
            session.pieces.append(receive(session.sync, header.length))
        if header.kind == Kind.DATA:
            return
        pieces, too_large = session.pieces, session.too_large
        session.forget()
        if session.clearing:
            return
        if too_large:
            _answer(session.sync, Kind.ERROR, Complaint.TOO_LARGE, 0, b"message too large")
            return
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._execute(session, memoryview(whole), header.parameter)

    def _execute(self, session: _Session, whole: memoryview, number: int) -> None:
        """Execute what one END closed, and send the replies under the number of its DataEnd."""
        self._await_turn(session)
        for message in messages(whole, getattr(self._box, "raw", b"")):
            if self._faults.on_wire:
                self._disturbed(session, message, number)
                continue
            reply = self._run(session, message)
            if session.clearing:
                return
            if reply is not None:
                self._reply(session, reply, number)

    def _run(self, session: _Session, message: Message) -> bytes | None:
        try:
            return self._box.execute(message)
        except Exception as error:
            _answer(session.sync, Kind.FATAL_ERROR, Fatal.UNIDENTIFIED, 0, f"the simulated box failed: {error}".encode())
            raise

    def _disturbed(self, session: _Session, message: Message, number: int) -> None:
        """The same, while faults are scheduled."""
        if session.clearing:
            return
        if session.line is None:
            outlet = SocketOutlet(session.sync, lambda: _others(session))
            session.line = FaultyLine(self._box, self._faults, outlet, lambda: session.clearing)
        reply = self._run(session, session.line.command(message))
        sent = session.line.reply(message, reply, lambda data, ends: _frames(session, data + b"\n" * ends, number))
        session.unread = session.unread or sent

    def _interrupt(self, session: _Session, header: Header) -> None:
        """A new message begins: was the reply before it read?"""
        if session.unread and not header.control & 1:
            self._box.query_error(INTERRUPTED)
        session.unread = False

    def _await_turn(self, session: _Session) -> None:
        with self._state:
            self._state.wait_for(lambda: self._may_speak(session) or session.clearing or session.gone)
        if session.gone:
            raise ConnectionAbortedError("the client went away while it waited for a lock")

    def _may_speak(self, session: _Session) -> bool:
        if self._holder is not None:
            return self._holder is session
        return not self._sharers or session in self._sharers

    def _reply(self, session: _Session, reply: bytes, number: int) -> None:
        """Send `reply` and a newline, in pieces that the client takes."""
        view = memoryview(reply)
        room = max(session.largest - HEADER.size, 1)
        session.unread = True
        at = 0
        while len(view) - at + 1 > room:
            piece = view[at : at + room]
            send(session.sync, HEADER.pack(b"HS", Kind.DATA, 0, number, len(piece)), piece)
            at += len(piece)
            if session.clearing:
                return
        last = view[at:]
        send(session.sync, HEADER.pack(b"HS", Kind.DATA_END, 0, number, len(last) + 1), last, b"\n")

    # The asynchronous channel

    def _serve_async(self, channel: socket.socket, first: Header) -> None:
        _discard(channel, first.length)
        with self._state:
            session = self._sessions.get(first.parameter)
            if session is None or session.asynchronous is not None:
                raise _ProtocolError(Fatal.BAD_INITIALIZE, "no session of this number waits for its asynchronous channel")
            session.asynchronous = channel
        try:
            _answer(channel, Kind.ASYNC_INITIALIZE_RESPONSE, 0, VENDOR)
            while True:
                header = _header(channel)
                if header.length > 1024:
                    raise _ProtocolError(Fatal.BAD_HEADER, "payload too long for the asynchronous channel")
                self._async_message(session, channel, header, bytes(receive(channel, header.length)))
        finally:
            with self._state:
                session.gone = True
                self._state.notify_all()
            hang_up(session.sync)

    def _async_message(self, session: _Session, channel: socket.socket, header: Header, payload: bytes) -> None:
        if header.kind == Kind.ASYNC_MAXIMUM_SIZE and len(payload) == 8:
            session.largest = max(int.from_bytes(payload, "big"), HEADER.size + 1)
            _answer(channel, Kind.ASYNC_MAXIMUM_SIZE_RESPONSE, 0, 0, LARGEST_MESSAGE.to_bytes(8, "big"))
        elif header.kind == Kind.ASYNC_STATUS:
            _answer(channel, Kind.ASYNC_STATUS_RESPONSE, self._status(session, delivered=bool(header.control & 1)), 0)
        elif header.kind == Kind.ASYNC_DEVICE_CLEAR:
            self._clear(session)
            _answer(channel, Kind.ASYNC_DEVICE_CLEAR_ACKNOWLEDGE, 0, 0)
        elif header.kind == Kind.ASYNC_LOCK:
            _answer(channel, Kind.ASYNC_LOCK_RESPONSE, self._lock(session, header, payload), 0)
        elif header.kind == Kind.ASYNC_LOCK_INFO:
            with self._state:
                holders = {s.number for s in (*self._sharers, *([self._holder] if self._holder else []))}
                exclusive = int(self._holder is not None)
            _answer(channel, Kind.ASYNC_LOCK_INFO_RESPONSE, exclusive, len(holders))
        elif header.kind == Kind.ASYNC_REMOTE_LOCAL:
            _answer(channel, Kind.ASYNC_REMOTE_LOCAL_RESPONSE, 0, 0)
        elif header.kind == Kind.FATAL_ERROR:
            raise ConnectionAbortedError("the client gave up")
        elif header.kind != Kind.ERROR:
            _answer(channel, Kind.ERROR, Complaint.UNKNOWN_TYPE, 0, b"not a message of the asynchronous channel")

    def _status(self, session: _Session, delivered: bool) -> int:
        if delivered:
            session.unread = False
        return (self._box.status_byte() & ~MAV) | (MAV if session.unread else 0)

    def _clear(self, session: _Session) -> None:
        """Go deaf first, then abort the box: it may be what the synchronous channel waits for."""
        with self._state:
            session.clearing = True
            self._state.notify_all()
        self._box.clear()

    def _lock(self, session: _Session, header: Header, string: bytes) -> Lock:
        with self._state:
            if header.control & 1 == 0:
                return self._unlock(session)
            if session in self._sharers if string else self._holder is session:
                return Lock.ERROR
            free = self._free_to_share if string else self._free_to_own
            if not self._state.wait_for(lambda: free(session, string), header.parameter / 1000):
                return Lock.FAILURE
            if string:
                self._sharers.append(session)
                self._string = string
            else:
                self._holder = session
            return Lock.SUCCESS

    def _unlock(self, session: _Session) -> Lock:
        """The exclusive lock first, if both are held."""
        if self._holder is session:
            self._holder, answer = None, Lock.SUCCESS
        elif session in self._sharers:
            self._sharers.remove(session)
            answer = Lock.SUCCESS_SHARED_RELEASED
        else:
            return Lock.ERROR
        self._state.notify_all()
        return answer

    def _free_to_share(self, session: _Session, string: bytes) -> bool:
        return self._holder in (None, session) and (not self._sharers or self._string == string)

    def _free_to_own(self, session: _Session, _string: bytes) -> bool:
        return self._holder is None and (not self._sharers or session in self._sharers)


def _others(session: _Session) -> tuple[socket.socket, ...]:
    return () if session.asynchronous is None else (session.asynchronous,)


def _frames(session: _Session, data: bytes, number: int) -> list[tuple[bytes, bytes]]:
    """(header, payload) of the messages that carry a reply, in pieces that the client takes."""
    room = max(session.largest - HEADER.size, 1)
    pieces = [data[at : at + room] for at in range(0, len(data), room)] or [b""]
    kinds = [Kind.DATA] * (len(pieces) - 1) + [Kind.DATA_END]
    return [(HEADER.pack(b"HS", kind, 0, number, len(piece)), piece) for kind, piece in zip(kinds, pieces, strict=True)]


def _header(channel: socket.socket) -> Header:
    prologue, kind, control, parameter, length = HEADER.unpack(receive(channel, HEADER.size))
    if prologue != b"HS":
        raise _ProtocolError(Fatal.BAD_HEADER, "a message must begin with HS")
    return Header(kind, control, parameter, length)


def _answer(channel: socket.socket, kind: Kind, control: int, parameter: int, payload: bytes = b"") -> None:
    channel.sendall(HEADER.pack(b"HS", kind, control, parameter, len(payload)) + payload)


def _discard(channel: socket.socket, count: int) -> None:
    while count > 0:
        step = min(count, 1 << 20)
        receive(channel, step)
        count -= step
