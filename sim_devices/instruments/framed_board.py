"""Common parts of simulated boards that speak frames: requests, sessions, arming, a watchdog that disarms by itself.

The format of the line is in hil/frame_protocol.py. A board powers up disarmed; whoever begins another session frees what an
earlier one had, and disarms.
"""

from __future__ import annotations

import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from hil import frame_protocol as wire
from hil.errors import ContractError
from hil.frame_protocol import Code, Kind
from sim_devices.instruments.frame_protocol import Reassembly, Request, reply
from sim_devices.switch_log import Switched, SwitchLog

MAKER = "HIL"
NOTHING = struct.Struct("")
CHANNEL = 1  # of the log: all outputs of a board go on and off together


class Complaint(Exception):
    """A request that is refused with a code and a reason."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class FramedBoard(ABC):
    """A board behind the frames of hil/frame_protocol.py.

    Args:
        identity: maker, model, serial number, firmware.
        limit: of what it drives, as HELLO says it.
        largest: bytes in a payload.
        gap_s: see Reassembly.
        clock: monotonic, s.
        log: of its outputs, channel 1, which may drive (armed) or not. Callable from any thread.
        reads: the other requests that it knows.
        while_armed: of those, the ones that are refused while it is disarmed.
        lock: of the bench, if it is on one.
    """

    def __init__(
        self, identity: tuple[str, str, str, str], limit: float, largest: int, gap_s: float, clock: Callable[[], float],
        log: SwitchLog | None, reads: Mapping[int, Callable[[memoryview], bytes]], while_armed: frozenset[Kind],
        lock: threading.Condition | None = None,
    ) -> None:  # fmt: skip
        self._lock = lock or threading.Condition()
        self._log = log or SwitchLog()
        self._identity, self._limit, self._largest, self._clock = identity, limit, largest, clock
        self._line = Reassembly(largest, gap_s)
        self._boot = self._session = 0
        self._watchdog_s = self._heard_s = 0.0
        self._armed = self._tripped = False
        self._last: tuple[int, int, int] | None = None
        self._last_reply = b""
        self._while_armed = while_armed
        self._reads: dict[int, Callable[[memoryview], bytes]] = {
            Kind.HELLO: self._hello, Kind.ARM: self._arm, Kind.SAFE: self._safe, Kind.STATUS: self._status, **reads,
        }  # fmt: skip

    @abstractmethod
    def _free(self) -> None:
        """Forget what a session had."""

    @abstractmethod
    def _at_rest(self) -> None:
        """Bring the outputs to rest: it was disarmed."""

    def _room(self) -> int:
        """What can still be allocated, as HELLO says it."""
        return 0

    def _allocated(self) -> int:
        """What was allocated, as STATUS says it."""
        return 0

    @property
    def name(self) -> str:
        """Model and serial number."""
        return f"{self._identity[1]} {self._identity[2]}"

    @property
    def armed(self) -> bool:
        """Outputs may drive. Looks at the clock: a watchdog trips without being asked."""
        with self._lock:
            if self._armed and self._watchdog_s and self._clock() - self._heard_s > self._watchdog_s:
                self._disarm()
                self._tripped = True
            return self._armed

    def reboot(self) -> None:
        """Power off and on: disarmed, all that a session had is gone, a boot number more."""
        with self._lock:
            self._boot += 1
            self._session = 0
            self._line.forget()
            self._freed()

    def press(self, command: str) -> str:
        """The only key on the board, "SAFE": outputs off.

        Raises:
            ContractError: another key.
        """
        if command.upper() != "SAFE":
            raise ContractError("the board has no such key", where=self.name, got=command[:80], allowed="SAFE")
        with self._lock:
            self._disarm()
        return ""

    def outputs(self) -> dict[str, object]:
        """Return whether outputs may drive."""
        with self._lock:
            return {str(CHANNEL): {"on": self.armed, "tripped": self._tripped, "limit": self._limit}}

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take bytes and return the board's answer; b"" while a frame is not whole."""
        with self._lock:
            return b"".join([self._answer(request) for request in self._line.feed(data, self._clock())])

    def _answer(self, request: Request) -> bytes:
        if request.code is not Code.DONE:
            return reply(request.kind, request.seq, code=request.code)
        armed = self.armed  # before the watchdog is fed
        self._heard_s = self._clock()
        same = (request.kind, request.seq, request.crc)
        if same == self._last:
            return self._last_reply
        try:
            if request.kind not in self._reads:
                raise Complaint(Code.UNKNOWN_KIND, f"kind {request.kind}")
            if request.kind in self._while_armed and not armed:
                raise self._not_armed()
            answer = reply(request.kind, request.seq, self._reads[request.kind](request.payload))
        except Complaint as complaint:
            answer = reply(request.kind, request.seq, str(complaint).encode(), complaint.code)
        if request.kind != Kind.HELLO:
            self._last, self._last_reply = same, answer
        return answer

    def _not_armed(self) -> Complaint:
        if self._tripped:
            return Complaint(Code.WATCHDOG, f"nothing was heard for {self._watchdog_s:g} s")
        return Complaint(Code.NOT_ARMED, "ARM first")

    def _switch(self, on: bool) -> None:
        if self._armed != on:
            self._log.add(Switched(time.time(), self.name, CHANNEL, on))
        self._armed = on

    def _disarm(self) -> None:
        self._switch(False)
        self._at_rest()

    def _freed(self) -> None:
        self._free()
        self._last, self._last_reply = None, b""
        self._tripped = False
        self._disarm()

    # -- Requests -----------------------------------------------------------------------------------------------------

    def _hello(self, payload: memoryview) -> bytes:
        _, session = fields(wire.HELLO, payload)
        if session != self._session:
            self._session = session
            self._freed()
        welcome = wire.WELCOME.pack(wire.VERSION, self._boot, session, self._largest, self._room(), self._limit)
        return welcome + ",".join(self._identity).encode()

    def _arm(self, payload: memoryview) -> bytes:
        (watchdog_s,) = fields(wire.ARM, payload)
        if not 0 <= watchdog_s < 1e6:
            raise Complaint(Code.OUT_OF_RANGE, f"watchdog {watchdog_s} s")
        self._watchdog_s, self._tripped = watchdog_s, False
        self._switch(True)
        return b""

    def _safe(self, payload: memoryview) -> bytes:
        fields(NOTHING, payload)
        self._disarm()
        self._tripped = False
        return b""

    def _status(self, payload: memoryview) -> bytes:
        fields(NOTHING, payload)
        return wire.STATUS.pack(self._armed, self._tripped, self._allocated(), self._line.bad_frames)


def fields(layout: struct.Struct, payload: memoryview) -> tuple[Any, ...]:
    """The numbers of a request. Raises: Complaint: it is of another size."""
    if len(payload) != layout.size:
        raise Complaint(Code.BAD_PAYLOAD, f"{len(payload)} bytes, not {layout.size}")
    return layout.unpack(payload)
