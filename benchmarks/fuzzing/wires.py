"""Targets on the driver's side of a wire: blocks, HiSLIP messages, text replies, frames."""

from __future__ import annotations

import contextlib
import socket
import struct
from binascii import crc_hqx
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
from pyvisa_py.protocols.rpc import Client
from pyvisa_py.protocols.vxi11 import DEVICE_CORE_PROG, DEVICE_CORE_VERS, CoreClient, Vxi11Packer, Vxi11Unpacker

from drivers.links.block import read_block
from drivers.links.hislip import HislipWire
from drivers.links.link import Trust
from drivers.links.stream import BenchSocket, SocketStream
from drivers.links.visa_link import VisaLink, Wire
from drivers.links.vxi11 import Vxi11Wire
from drivers.safe import carry_out
from drivers.scpi import Expect, Scpi
from drivers.spiking.session import FrameSession
from drivers.spiking.talk import FrameTalk, board
from fuzzing.target import Target
from hil import frame_protocol as frames
from hil.errors import BadBlock, InstrumentError, LinkError, LinkTimeout, MeasurementError
from hil.frame_protocol import Kind
from sim_devices.instruments.spiking_board import SpikingBoard

LIMIT = 1 << 20
HISLIP = struct.Struct("!2sBBIQ")
FIRST_ID = 0xFFFF_FF00


def block(payload: bytes, digits: int = 0) -> bytes:
    size = str(len(payload)).rjust(digits, "0").encode()
    return b"#%d%s%s" % (len(size), size, payload)


BLOCKS = (
    block(b""),
    block(b"abcd"),
    block(bytes(range(256)) * 4),
    block(b"\n" * 100, 8),
    block(b"#41024", 3),
    block(b"\x00\xff" * 3000),
)
TEXTS = (
    b"Keysight Technologies,33622A,MY1,A.02.03",
    b'+0,"No error"',
    b"+1.00000000000000E+00",
    b"1",
    b"+8",
    b"NORM",
    b'-113,"Undefined header;X"',
)


class Message:
    """A reply in memory, on a wire that marks the end of a message."""

    endings = frozenset({b"", b"\n"})

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, count: int) -> bytes:
        assert count <= LIMIT + 16, "more than the limit was asked for"
        head, self._data = self._data[:count], self._data[count:]
        return head

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        return memoryview(bytearray(self.take(count))), self.take(3)

    def glimpse(self, count: int) -> bytes:
        return self._data[: max(count, 0)]


class Pairs:
    """Connected TCP sockets; what is said into one end arrives at the other, and then the connection ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    @contextlib.contextmanager
    def saying(self, data: bytes) -> Iterator[BenchSocket]:
        here = socket.create_connection(self._listener.getsockname())
        there, _ = self._listener.accept()
        with BenchSocket.adopt(here) as end, there:
            with contextlib.suppress(OSError):
                there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)
                there.sendall(data)
                there.shutdown(socket.SHUT_WR)
            yield end


class OneWire(VisaLink):
    """A VisaLink whose wire is made here and not by VISA."""

    def __init__(self, wire: Callable[[], Wire]) -> None:
        self._make = wire
        super().__init__("TCPIP::127.0.0.1::1::SOCKET", timeout_s=0.5)

    def _open(self) -> None:
        self._wire = self._make()


class HislipClient:
    """Stands in for PyVISA-py's protocol object: the part that HislipWire uses."""

    def __init__(self, sock: socket.socket) -> None:
        self.last_message_id: int | None = FIRST_ID
        self._message_id, self._rmt = FIRST_ID + 2, 0
        self._sync = self._async = sock

    def send(self, data: bytes) -> int:
        return len(data)

    def async_device_clear(self) -> int:
        return 0


def read_all(link: VisaLink) -> None:
    """The same bytes as a block; a link that survives is asked for a text besides."""
    view = link.read_block(2, LIMIT)
    assert len(view) % 2 == 0
    assert len(view) <= LIMIT


def memory_block(folder: Path, stack: ExitStack) -> Target:
    def run(data: bytes) -> None:
        for item_bytes in (1, 2):
            with contextlib.suppress(BadBlock):
                view = read_block(Message(data), item_bytes, LIMIT, "fuzz")
                assert bytes(view) in (data[len(data) - len(view) :], data[len(data) - len(view) - 1 : -1])

    return Target("block", [*BLOCKS, *(b + b"\n" for b in BLOCKS)], run, (BadBlock,))


def stream(folder: Path, stack: ExitStack) -> Target:
    pairs = Pairs(stack)

    def run(data: bytes) -> None:
        text = data[:1] < b"\x80"
        with pairs.saying(data[1:]) as sock:
            link = OneWire(lambda: SocketStream(sock, b"\n", "fuzz", 0.5))
            if text:
                link.read_text()
            else:
                read_all(link)

    return Target("socket", [*(b"\xff" + b + b"\n" for b in BLOCKS), *(b"\x00" + t + b"\n" for t in TEXTS)], run, (LinkError,))


def hislip(folder: Path, stack: ExitStack) -> Target:
    pairs = Pairs(stack)

    def message(kind: int, payload: bytes, number: int = FIRST_ID, control: int = 0) -> bytes:
        return HISLIP.pack(b"HS", kind, control, number, len(payload)) + payload

    stale = message(7, b"an older answer\n", FIRST_ID - 2)
    samples = [b"\x00" + message(7, t + b"\n") for t in TEXTS] + [b"\xff" + message(7, b + b"\n") for b in BLOCKS]
    samples += [b"\xff" + stale + message(6, b[:7]) + message(6, b"") + message(7, b[7:]) for b in BLOCKS]
    samples += [b"\x00" + message(3, b"an error", control=1), b"\x00" + message(2, b"fatal", control=2), b"\x00" + stale * 20]
    samples += [b"\x40" + stale + message(9, b""), b"\x40" + message(9, b"")]

    def run(data: bytes) -> None:
        with pairs.saying(data[1:]) as sock:
            link = OneWire(lambda: HislipWire(HislipClient(sock), "fuzz", 0.5))
            if data[:1] == b"\x40":
                link.clear()
            elif data[:1] < b"\x80":
                link.read_text()
            else:
                read_all(link)

    return Target("hislip", samples, run, (LinkError,))


class Calls(CoreClient):
    """PyVISA-py's client of VXI-11 on a connection that is there."""

    def __init__(self, sock: socket.socket) -> None:
        Client.__init__(self, "127.0.0.1", DEVICE_CORE_PROG, DEVICE_CORE_VERS, 0)
        self.packer, self.unpacker, self.sock = Vxi11Packer(), Vxi11Unpacker(""), sock


class Vxi11Session:
    """Stands in for PyVISA-py's session: the part that Vxi11Wire uses."""

    link, max_recv_size = 1, 256

    def __init__(self, sock: socket.socket) -> None:
        self.interface = Calls(sock)


def vxi11(folder: Path, stack: ExitStack) -> Target:
    """Answers to calls; the first byte chooses what is called."""
    pairs = Pairs(stack)

    def reply(xid: int, *results: int, data: bytes | None = None) -> bytes:
        body = struct.pack("!6I", xid, 1, 0, 0, 0, 0) + struct.pack(f"!{len(results)}I", *results)
        if data is not None:
            body += struct.pack("!I", len(data)) + data + bytes(-len(data) % 4)
        return struct.pack("!I", 1 << 31 | len(body)) + body

    def read(data: bytes, *cuts: int) -> bytes:
        cuts = (0, *cuts, *range(cuts[-1] if cuts else 0, len(data), 256)[1:], len(data))
        pieces = [data[first:last] for first, last in pairwise(cuts)]
        return b"".join(reply(n, 0, 4 * (n == len(pieces)), data=piece) for n, piece in enumerate(pieces, 1))

    samples = [b"\x00" + read(t + b"\n") for t in TEXTS]
    samples += [b"\xff" + read(b + b"\n", 2, 2 + int(b[1:2])) for b in BLOCKS]  # as they are asked for
    samples += [b"\x00" + reply(1, error, 0, data=b"") for error in (0, 4, 11, 15, 23)]
    samples += [b"\x00" + reply(0, 0, 4, data=b"stale") + read(TEXTS[0]), b"\x40" + reply(1, 0), b"\x50" + reply(1, 0, 4)]

    def run(data: bytes) -> None:
        with pairs.saying(data[1:]) as sock:
            link = OneWire(lambda: Vxi11Wire(Vxi11Session(sock), "fuzz", 0.5))
            kind = data[:1]
            if kind == b"\x40":
                link.clear()
            elif kind == b"\x50":
                link.write(b"ABCD")
            elif kind < b"\x80":
                link.read_text()
            else:
                read_all(link)

    return Target("vxi11", samples, run, (LinkError,))


class TextLink:
    """A link whose every reply is the next line of an input; the last one again when they are used up."""

    name, timeout_s = "fuzz", 0.5

    def __init__(self, data: bytes) -> None:
        self._lines = data.split(b"\n")
        self._trust = Trust("fuzz")

    @property
    def dirty(self) -> bool:
        return self._trust.dirty

    def write(self, *parts: bytes | memoryview) -> None:
        with self._trust.use():
            pass

    def _line(self) -> bytes:
        return self._lines.pop(0) if len(self._lines) > 1 else self._lines[0]

    def read_text(self) -> str:
        with self._trust.use():
            line = self._line()
            if not line.isascii():
                raise frames.damaged("fuzz", "not ASCII")
            return line.decode("ascii")

    def read_block(self, item_bytes: int, limit_bytes: int) -> memoryview:
        with self._trust.use():
            return read_block(Message(self._line()), item_bytes, limit_bytes, "fuzz")

    def transaction(self) -> AbstractContextManager[None]:
        return self._trust.transaction()

    def distrust(self, reason: str) -> None:
        self._trust.lose(reason)

    def reidentifying(self) -> AbstractContextManager[None]:
        return self._trust.reidentifying()

    def clear(self) -> None:
        self._trust.emptied("cleared")

    def reopen(self) -> None:
        self._trust.emptied("reopened")

    def close(self) -> None: ...


def conversation(folder: Path, stack: ExitStack) -> Target:
    """The Scpi session on whatever is answered."""

    def run(data: bytes) -> None:
        scpi = Scpi(TextLink(data), expect=Expect("Keysight", ("33", "DSO")))
        for ask in (scpi.identify, lambda: scpi.ask_float("A?"), lambda: scpi.ask_int("B?"), lambda: scpi.ask_bool("C?"),
                    scpi.errors, lambda: scpi.send("D 1"), lambda: scpi.ask_block("E?", "<i2", 2), scpi.found,
                    lambda: scpi.check("it")):  # fmt: skip
            with contextlib.suppress(LinkError, InstrumentError, MeasurementError):
                ask()
            if scpi.link.dirty:
                scpi.link.clear()
                with contextlib.suppress(LinkError, InstrumentError):
                    scpi.identify()

    who = b"Keysight Technologies,33622A,MY1,A.02.03"
    lines = (who, b"+1.0E+00", b"+3", b"1", b'+0,"No error"', b"1", b"#14abcd", who, b"+128", b'-113,"X"', b'+0,""')
    return Target("scpi_session", [b"\n".join(lines), b"\n".join((*lines[:4], *[b'-350,"Queue overflow"'] * 3))], run)


# -- Frames ---------------------------------------------------------------------------------------------------------------


class FrameLine:
    """A FrameLink: what the host writes goes to a simulated board, whose replies are bytes; some of them are replaced."""

    name = "fuzz"

    def __init__(self, data: bytes) -> None:
        self._turn, self._instead = (data[0] & 15, data[1:]) if data else (0, b"")
        self._always = bool(data and data[0] & 0x80)
        self.board = SpikingBoard(neurons=64)
        self._waiting = bytearray()
        self._count = 0
        self.replies: list[bytes] = []

    def write(self, *parts: bytes | memoryview) -> None:
        message = b"".join(bytes(part) for part in parts)
        reply = self.board.feed(message)
        self.replies.append(reply)
        struck = self._count == self._turn or (self._always and self._count > self._turn)
        self._count += 1
        if struck and self._instead:
            reply = frames_mended(self._instead, message[4:6])
        self._waiting += reply

    def read_exact(self, count: int) -> bytes:
        if count > len(self._waiting):
            if count > frames.REPLY_MOST:
                raise AssertionError(f"{count} bytes were asked for")
            self._waiting.clear()
            raise LinkTimeout("silence", where=self.name)
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        return taken

    def drain(self) -> bytes:
        waste = bytes(self._waiting)
        self._waiting.clear()
        return waste

    def clear(self) -> None:
        self._waiting.clear()

    def reopen(self) -> None:
        self._waiting.clear()

    def distrust(self, reason: str) -> None: ...
    def transaction(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def reidentifying(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def close(self) -> None: ...


def frames_mended(data: bytes, seq: bytes) -> bytes:
    """`data` with the number of the request and sums that fit, if it is long enough to be a frame."""
    if len(data) < frames.HEAD_BYTES + 2 or data[:2] != frames.MAGIC:
        return data
    lead = data[:4] + seq + (data[6:10] if data[1] % 2 else struct.pack("<I", len(data) - frames.HEAD_BYTES - 2))
    crc = crc_hqx(lead, 0xFFFF)
    payload = data[frames.HEAD_BYTES : -2]
    return lead + struct.pack("<H", crc) + payload + struct.pack("<H", crc_hqx(payload, crc))


def framed(folder: Path, stack: ExitStack) -> Target:
    def talk(line: FrameLine) -> None:
        session = FrameSession(line, retries=0)
        size = 5
        request = frames.ALLOCATE.pack(size, 0, 0, 1, 0, 0, 0.5, 1.0, 0.0, session.welcome.limit)
        answers = (
            (Kind.ALLOCATE, request), (Kind.PROGRAM, frames.ARRAY.pack(0) + np.ones(size, "<f4").tobytes()),
            (Kind.ARM, frames.ARM.pack(60.0)), (Kind.RESET, frames.ARRAY.pack(0)),
            (Kind.STEP, frames.BLOCK.pack(0, 0, 0, 2, 0, 1) + np.ones(2 * size, "<f4").tobytes()),
            (Kind.MONITOR, frames.BLOCK.pack(0, 0, 0, 2, 0, 1)), (Kind.STATUS, b""),
        )  # fmt: skip
        for kind, payload in answers:
            session.ask(kind, payload)
        carry_out(board("board", "fuzz", Expect()), FrameTalk(session))
        session.recover(attempts=0)

    honest = FrameLine(b"")
    talk(honest)
    samples = [bytes([k]) + reply for k, reply in enumerate(honest.replies[:16])]
    samples += [bytes([k | 0x80]) + reply for k, reply in enumerate(honest.replies[:16])]
    return Target("frame_session", samples, lambda data: talk(FrameLine(data)), (LinkError, InstrumentError))


TARGETS = (memory_block, stream, hislip, vxi11, conversation, framed)
