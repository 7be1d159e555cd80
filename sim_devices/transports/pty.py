"""A serial line without a cable: one simulated box behind a pseudo-terminal.

The box listens to bytes as they come and answers with bytes. Both ends are raw, or the kernel would rewrite CR, LF and control
characters. A pty has no bit rate of its own; with `baud` each byte takes 10 bits of time in either direction, as in 8N1. What a
client leaves unread stays on the line, as on a real one.

Source: POSIX.1-2017 ch. 11 (terminal interface), pty(7).
"""

from __future__ import annotations

import os
import pty
import select
import threading
import time
import tty
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from hil.errors import ConfigError

BITS_PER_BYTE = 10
CHUNK_BYTES = 1 << 16
PACED_S = 0.005  # a paced line moves so much at a time
JOIN_S = 2.0


class SerialBox(Protocol):
    """A box that speaks on a serial line. Called from one thread."""

    @property
    def name(self) -> str: ...

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
        self._master, self._slave = pty.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name=f"pty {box.name}", daemon=True)
        self._closed = False

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Unplug: the client sees an error at its next use. May be called twice."""
        if self._closed:
            return
        self._closed = True
        os.write(self._wake_write, b"x")
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)
        for handle in (self._master, self._slave, self._wake_read, self._wake_write):
            os.close(handle)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _serve(self) -> None:
        """Reads and writes as either goes, so that a client that writes before it reads cannot lock both ends."""
        waiting = b""
        while True:
            inputs, outputs, _ = select.select([self._master, self._wake_read], [self._master] if waiting else [], [])
            if self._wake_read in inputs:
                return
            if self._master in inputs:
                waiting += self._box.feed(self._arrived())
            if self._master in outputs:
                waiting = waiting[self._sent(waiting) :]

    def _arrived(self) -> bytes:
        data = os.read(self._master, self._piece)
        self._pace(len(data))
        return data

    def _sent(self, data: bytes) -> int:
        with suppress(BlockingIOError):
            sent = os.write(self._master, data[: self._piece])
            self._pace(sent)
            return sent
        return 0

    @property
    def _piece(self) -> int:
        return CHUNK_BYTES if self._baud is None else max(1, int(self._baud / BITS_PER_BYTE * PACED_S))

    def _pace(self, count: int) -> None:
        if self._baud is not None:
            time.sleep(count * BITS_PER_BYTE / self._baud)
