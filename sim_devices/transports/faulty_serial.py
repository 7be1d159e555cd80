"""The serial line of a board while faults are scheduled: between what the board says and what arrives.

    bytes in   mangle, reboot                                          by the name of the frame that they begin with
    reply      delay   then   drop | stale | the damaged frame, once or twice, perhaps slowly       by the name of each frame
    line       stall: nothing is read;  unplug, and a reboot that is not quiet: the port goes away and comes back

An exchange of `mangle` and `reboot` is what one read of the line gave; all others count the frames of the replies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hil.frame_protocol import HEAD_BYTES
from sim_devices.instruments.damage import by_kind, damaged, flip
from sim_devices.instruments.faults import Faults, Moment, Strike
from sim_devices.instruments.frame_protocol import frame_name, frames


class Board(Protocol):
    """A box on a serial line that can lose its power."""

    @property
    def name(self) -> str:
        """Name of the box, for messages."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the host; return the bytes of the replies."""

    def reboot(self) -> None:
        """Lose power for a moment."""


@dataclass(slots=True)
class Reaction:
    """The reaction of the line to some bytes: what is sent, and what happens to the line then.

    Args:
        pieces: (bytes, bytes per second or None) to send.
        stall, unplug: what happens to the line after that.
    """

    pieces: list[tuple[bytes, float | None]] = field(default_factory=list)
    stall: Strike | None = None
    unplug: Strike | None = None


class FaultySerial:
    """A board on a serial line, with faults on the way.

    Args:
        board: that answers.
        faults: of the board.
        unwanted: the server ends, so that no wait is worth while.
    """

    def __init__(self, board: Board, faults: Faults, unwanted: Callable[[], bool]) -> None:
        self._board, self._faults, self._unwanted = board, faults, unwanted
        self._held: list[tuple[Strike, bytes]] = []
        self._late_s: float | None = None  # the instant at which what is held comes by itself

    @property
    def holding(self) -> bool:
        """True if there is something that will come by itself."""
        return self._late_s is not None

    def overdue(self) -> list[tuple[bytes, float | None]]:
        """Pieces to send: what was held back long enough."""
        if self._late_s is None or time.monotonic() < self._late_s:
            return []
        return [(self._given(), None)]

    def react(self, data: bytes) -> Reaction:
        """Return what happens when `data` arrived."""
        found = Reaction()
        for strike in self._faults.strikes(Moment.COMMAND, frame_name(data)):
            if strike.fault.kind == "mangle":
                mangled = bytearray(data)
                flip(mangled, strike.fault.bits, strike.rng)
                data = bytes(mangled)
            else:
                self._board.reboot()
                if not strike.fault.quiet:
                    found.unplug = strike
                    return found
        for name, frame in frames(self._board.feed(data)):
            self._exchange(name, frame, found)
        return found

    def _exchange(self, name: str, frame: bytes, found: Reaction) -> None:
        struck = by_kind(self._faults.strikes(Moment.EXCHANGE, name))
        if strike := struck.get("delay"):
            strike.wait(strike.fault.seconds, self._unwanted)
        self._reply(name, frame, found)
        found.stall = struck.get("stall", found.stall)
        if strike := struck.get("unplug"):
            found.unplug, found.pieces = strike, []  # what was under way is lost

    def _reply(self, name: str, frame: bytes, found: Reaction) -> None:
        struck = by_kind(self._faults.strikes(Moment.REPLY, name))
        if "drop" in struck:
            return
        whole = damaged(frame, HEAD_BYTES, struck)
        if "duplicate" in struck:
            whole += whole
        if strike := struck.get("stale"):
            self._held.append((strike, whole))
            self._late_s = time.monotonic() + strike.fault.seconds if strike.fault.seconds else None
            return
        found.pieces.append((self._given() + whole, struck["throttle"].fault.bytes_per_s if "throttle" in struck else None))

    def _given(self) -> bytes:
        """Return the bytes that were held back and are still wanted."""
        given = b"".join([frame for strike, frame in self._held if not strike.healed.is_set()])
        self._held, self._late_s = [], None
        return given
