"""A conversation in numbered frames: one request, the reply to that request, and never another.

    damaged frame, either way   wait until the line is silent, send the same frame again
    no reply in time            clear the line, HELLO, send the same frame again
    reply with another number   thrown away and counted; the reply that is due may follow

The same frame again is safe: the board answers a number that it has answered before from memory and does nothing twice. If the
board was rebooted in between, its arrays are gone and nothing is sent again. Format: hil/frame_protocol.py.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

from drivers.links.link import Spoken
from drivers.scpi import Expect, Identity
from hil import frame_protocol as wire
from hil.errors import CommandRefused, Desync, InstrumentError, LinkError, LinkTimeout, WrongInstrument
from hil.frame_protocol import Code, Kind

STALE_AT_MOST = 16
SESSION_MASK = 0xFFFFFFFF
NAMES = {int(code): code.name for code in Code}


class FrameLink(Spoken, Protocol):
    """A wire that carries frames; SerialLink is one."""

    def read_exact(self, count: int) -> bytes:
        """Read exactly `count` bytes."""

    def drain(self) -> bytes:
        """Take and return all that is on the line."""


@dataclass(slots=True)
class LineTraffic:
    """Counts of the line since it was opened.

    Args:
        damaged: frames, either way.
        late: requests that were not answered in time.
        stale: replies to something else.
        repeated: requests sent again.
    """

    requests: int = 0
    damaged: int = 0
    late: int = 0
    stale: int = 0
    repeated: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The board's description of itself. boot counts its restarts.

    Args:
        limit: largest current.
    """

    boot: int
    largest_bytes: int
    free_neurons: int
    limit: float
    identity: Identity


class FrameSession:
    """Requests and replies with a board, numbered, checked, and repeated when a frame is lost.

    Args:
        link: this session owns it.
        retries: how often a request is sent again.
        expect: who should answer.
        session: number of this conversation; None: from the clock, another one than the last program's.

    Raises:
        WrongInstrument: another board, or another version of the format.
        LinkError: nobody answers.
    """

    def __init__(self, link: FrameLink, *, retries: int = 3, expect: Expect | None = None, session: int | None = None) -> None:
        self._link, self._retries, self._expect = link, retries, expect or Expect()
        self._session = (time.time_ns() if session is None else session) & SESSION_MASK
        self._seq = self._session & 0xFFFF
        self.traffic = LineTraffic()
        self._link.drain()  # a banner, or what an earlier program left
        self.welcome = self._first_hello()

    @property
    def where(self) -> str:
        """Name of the link, for messages."""
        return self._link.name

    def ask(self, kind: Kind, *payload: bytes | memoryview) -> memoryview:
        """The payload of the reply.

        Raises:
            CommandRefused: the board says no. InstrumentError: it was rebooted. LinkError: after all retries.
        """
        with self._link.transaction():
            seq = self._next_seq()
            self.traffic.requests += 1
            frame = wire.frame(kind, seq, *payload)
            for attempt in range(self._retries + 1):
                try:
                    return self._exchange(kind, seq, frame)
                except LinkTimeout as error:
                    self.traffic.late += 1
                    last: LinkError = error
                    if attempt < self._retries:
                        self._wake()
                except Desync as error:
                    self.traffic.damaged += 1
                    last = error
                    self._link.drain()
                self.traffic.repeated += attempt < self._retries
            self._link.distrust(last.what)
            raise last

    def clear(self) -> None:
        """Empty the line. It is dirty until `identify()`."""
        self._link.clear()

    def reopen(self) -> None:
        """Open the port anew. It is dirty until `identify()`."""
        self._link.reopen()

    def identify(self) -> bool:
        """True: the same board, with all that it was told; False: it was rebooted since.

        Raises:
            WrongInstrument: another board. LinkError: nobody answers.
        """
        before = self.welcome.boot
        self.welcome = self._hello()
        return self.welcome.boot == before

    def recover(self, attempts: int = 4, pause_s: float = 0.2) -> bool:
        """Bring the line back: clear, else reopen. True: the same board, with all that it was told.

        Raises:
            WrongInstrument: another board answers. LinkError: nobody does.
        """
        with self._link.transaction():
            for attempt in range(attempts + 1):
                try:
                    if attempt:
                        time.sleep(pause_s * 2 ** (attempt - 1))
                        self._link.reopen()
                    else:
                        self._link.clear()
                    return self.identify()
                except LinkError as error:
                    last = error
            raise last

    def begin_anew(self) -> None:
        """Begin a new session, as another program would: the board frees all arrays and disarms."""
        with self._link.transaction():
            self._session = (self._session + 1) & SESSION_MASK
            self.welcome = self._hello()

    def close(self) -> None:
        """Close the link."""
        self._link.close()

    def _exchange(self, kind: int, seq: int, frame: list[bytes | memoryview]) -> memoryview:
        self.traffic.bytes_up += sum(len(piece) for piece in frame)
        self._link.write(*frame)
        for _ in range(STALE_AT_MOST):
            head = wire.head(self._link.read_exact(wire.HEAD_BYTES), self.where)
            body = wire.payload(head, self._link.read_exact(head.length + wire.CRC.size), self.where)
            self.traffic.bytes_down += wire.HEAD_BYTES + len(body) + wire.CRC.size
            unreadable = head.code == Code.BAD_CRC and head.kind in (wire.REPLY, kind | wire.REPLY)
            if unreadable:
                raise wire.damaged(self.where, "the board could not read the request")
            if (head.kind, head.seq) == (kind | wire.REPLY, seq):
                if head.code != Code.DONE:
                    raise self._refused(kind, head.code, body)
                return body
            self.traffic.stale += 1
        raise wire.damaged(self.where, f"{STALE_AT_MOST} replies to other requests")

    def _refused(self, kind: int, code: int, reason: memoryview) -> CommandRefused:
        name = NAMES.get(code, f"code {code}")
        return CommandRefused(
            f"the board refused {Kind(kind).name}", where=self.where,
            got=f"{name}: {bytes(reason).decode(errors='replace')}", outputs="as before this request",
            todo="call reset() to begin anew" if code in (Code.NOT_ARMED, Code.WATCHDOG) else "correct what is named",
        )  # fmt: skip

    def _wake(self) -> None:
        """Check after silence that nothing old is on the line, and that it is still the same board."""
        if not self.recover(self._retries):
            raise InstrumentError(
                "the board was rebooted: its arrays and membranes are gone", where=self.where,
                outputs="off: a board powers up disarmed", todo="call recover() of the board, then repeat the batch",
            )  # fmt: skip

    def _first_hello(self) -> Welcome:
        for _ in range(self._retries):
            try:
                return self._hello()
            except (LinkTimeout, Desync):
                self._link.clear()
        return self._hello()

    def _hello(self) -> Welcome:
        with self._link.reidentifying():
            seq = self._next_seq()
            payload = wire.HELLO.pack(wire.VERSION, self._session)
            return self._parsed(self._exchange(Kind.HELLO, seq, wire.frame(Kind.HELLO, seq, payload)))

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) & 0xFFFF
        return self._seq

    def _parsed(self, body: memoryview) -> Welcome:
        if len(body) < wire.WELCOME.size:
            raise wire.damaged(self.where, f"a HELLO of {len(body)} bytes")
        version, boot, session, largest, free, limit = wire.WELCOME.unpack(body[: wire.WELCOME.size])
        if not 0 < limit < math.inf or largest <= wire.BLOCK.size:
            raise wire.damaged(self.where, f"a HELLO with limit {limit} and {largest} bytes at most")
        identity = Identity.parse(bytes(body[wire.WELCOME.size :]).decode("utf-8", "replace"), self.where)
        if version != wire.VERSION or session != self._session or not self._expect.admits(identity):
            raise WrongInstrument(
                "the wrong board answers at this port", where=self.where, got=f"{identity}, format {version}",
                allowed=f"{self._expect or 'any board'}, format {wire.VERSION}", outputs="unchanged; nothing was set",
                todo="correct the port or the expected serial number in the bench file",
            )  # fmt: skip
        return Welcome(boot, largest, free, limit, identity)
