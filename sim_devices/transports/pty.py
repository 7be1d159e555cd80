"""A serial line without a cable: one simulated box behind a pseudo-terminal.

The box listens to bytes as they come and answers with bytes. Both ends are raw, or the kernel would rewrite CR, LF and control
characters. A pty has no bit rate of its own; with `baud` each byte takes 10 bits of time in either direction, as in 8N1. What a
client leaves unread stays on the line, as on a real one.

The name of a pty changes when it is unplugged and plugged in again. The name that is served, `port`, is a symbolic link, which
is gone while the board is unplugged and then leads to the new pty; the client's old handle is dead by then, as on a real one.

Source: POSIX.1-2017 ch. 11 (terminal interface), pty(7).
"""

from __future__ import annotations

import os
import select
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from hil.errors import ConfigError
from hil.system import pseudo_terminal
from sim_devices.instruments.faults import SLICE_S, Faults, Strike
from sim_devices.transports.faulty_serial import Board, FaultySerial, Reaction

BITS_PER_BYTE = 10
CHUNK_BYTES = 1 << 16
PACED_S = 0.005  # a paced line moves so much at a time
JOIN_S = 2.0


class SerialBox(Protocol):
    """A box that speaks on a serial line. Called from one thread."""

    @property
    def name(self) -> str:
        """Name of the box, for messages."""

    def feed(self, data: bytes) -> bytes:
        """The bytes that arrived -> the bytes that it sends, b"" for none."""


class PtyServer:
    """Serves `box`; the client opens `port` as it would a serial port.

    Args:
        baud: bits per second; None for as fast as the pty goes.
    """

    def __init__(self, box: SerialBox, baud: int | None = None) -> None:
        if baud is not None and baud < 300:
            raise ConfigError("too slow for a serial line", where=box.name, got=f"{baud} baud", allowed="300 or more")
        self._box, self._baud = box, baud
        self._faults: Faults | None = None
        self._faulty: FaultySerial | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="virtual-board-"))
        self.port = str(self._folder / "port")
        self._master = self._slave = -1
        self._plug_in()
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name=f"pty {box.name}", daemon=True)
        self._closed = False

    @classmethod
    def with_faults(cls, board: Board, faults: Faults, baud: int | None = None) -> Self:
        """Serves a board to which `faults` may happen."""
        server = cls(board, baud)
        server._faults, server._faulty = faults, FaultySerial(board, faults, lambda: server._closed)
        return server

    def start(self) -> None:
        """Serve the line, in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Unplug for good: the client sees an error at its next use. May be called twice."""
        if self._closed:
            return
        self._closed = True
        os.write(self._wake_write, b"x")
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)
        self._pull_out()
        for handle in (self._wake_read, self._wake_write):
            os.close(handle)
        self._folder.rmdir()

    def _plug_in(self) -> None:
        self._master, self._slave = pseudo_terminal(self._box.name)
        os.set_blocking(self._master, False)
        Path(self.port).symlink_to(os.ttyname(self._slave))

    def _pull_out(self) -> None:
        Path(self.port).unlink(missing_ok=True)
        for handle in (self._master, self._slave):
            if handle >= 0:
                os.close(handle)
        self._master = self._slave = -1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _serve(self) -> None:
        """Read and write as either goes, so that a client that writes before it reads cannot lock both ends."""
        waiting: list[tuple[bytes, float | None]] = []  # bytes, and how many a second
        stall: tuple[Strike, float] | None = None  # nothing is read until then
        while True:
            stall = None if stall is None or stall[0].healed.is_set() or time.monotonic() >= stall[1] else stall
            reading = [self._wake_read] if stall else [self._master, self._wake_read]
            patience = SLICE_S if stall or (self._faulty is not None and self._faulty.holding) else None
            inputs, outputs, _ = select.select(reading, [self._master] if waiting else [], [], patience)
            if self._faulty is not None and self._faulty.holding:
                waiting += self._faulty.overdue()
            if self._wake_read in inputs:
                return
            if self._master in inputs:
                reaction = self._react(self._arrived())
                waiting += reaction.pieces
                if strike := reaction.stall:
                    stall = strike, time.monotonic() + strike.fault.seconds
                if reaction.unplug is not None:
                    waiting, stall = [], None
                    self._unplug(reaction.unplug)
                    continue
            if self._master in outputs:
                data, rate = waiting.pop(0)
                left = data[self._sent(data, rate) :]
                waiting[:0] = [(left, rate)] if left else []

    def _react(self, data: bytes) -> Reaction:
        if self._faults is not None and self._faulty is not None and self._faults.on_wire:
            return self._faulty.react(data)
        reply = self._box.feed(data)
        return Reaction([(reply, None)] if reply else [])

    def _unplug(self, strike: Strike) -> None:
        self._pull_out()
        strike.wait(strike.fault.seconds, lambda: self._closed)
        self._plug_in()

    def _arrived(self) -> bytes:
        rate = self._rate(None)
        data = os.read(self._master, self._piece(rate))
        self._pace(len(data), rate)
        return data

    def _sent(self, data: bytes, slowed: float | None) -> int:
        rate = self._rate(slowed)
        with suppress(BlockingIOError):
            sent = os.write(self._master, data[: self._piece(rate)])
            self._pace(sent, rate)
            return sent
        return 0

    def _rate(self, slowed: float | None) -> float | None:
        """Bytes per second, None for unlimited."""
        rates = [rate for rate in (None if self._baud is None else self._baud / BITS_PER_BYTE, slowed) if rate is not None]
        return min(rates, default=None)

    def _piece(self, rate: float | None) -> int:
        return CHUNK_BYTES if rate is None else max(1, int(rate * PACED_S))

    def _pace(self, count: int, rate: float | None) -> None:
        if rate is not None:
            time.sleep(count / rate)
