"""A Link over a serial port, through pyserial: 8 data bits, no parity, 1 stop bit.

    a byte takes 10 / baud seconds on the wire; a message is bytes, then `terminator` where the dialect has one

Serial lines have no framing: a dialect with frames of its own (length, CRC, sequence number) uses `read_exact`, a text dialect
`read_text`. DTR is low before the port opens, because raising it resets many microcontroller boards.

The port is opened for this process alone: locked with flock, for programs that ask, and with TIOCEXCL, which refuses all others
but root's. A pseudo-terminal would keep TIOCEXCL when a killed program is gone, and has none. A forked process closes the port,
or it would keep out who comes to make safe when its parent is gone.

Source: EIA/TIA-232-F; pyserial 3.5. PyVISA's own serial sessions read one byte a call (0.1 MB/s) and are not used.
"""

from __future__ import annotations

import errno
import glob
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from weakref import WeakSet

import serial
from serial.tools.list_ports import comports

from drivers.links.block import read_block
from drivers.links.link import Deadline, Trusted, checked_timeout
from drivers.links.stream import LINE_LIMIT_BYTES, gone, out_of_step, timed_out
from drivers.resource import serial_port
from hil.errors import OpenFailed
from hil.system import LINE_ERRORS, for_us_alone

BITS_PER_BYTE = 10
SILENCE_S = 0.05
UNKNOWN_TODO = "check the cable, the port's name, and that no other program holds it"
TODO = {
    errno.EBUSY: "end the program that holds this port",
    errno.EWOULDBLOCK: "end the program that holds this port",
    errno.EACCES: "give this account access: add it to the group that owns the port (dialout, uucp), then log in again",
    errno.EPERM: "give this account access: add it to the group that owns the port (dialout, uucp), then log in again",
}


class SerialLink(Trusted):
    """A serial port as a Link.

    Args:
        port: device name, such as ``/dev/ttyACM0`` or ``COM3``; VISA's ``ASRL/dev/ttyACM0::INSTR`` is the same.
        baud: bits per second.
        timeout_s: longest silence; large transfers may take the time that their bits need beyond it.
        terminator: added to every message written; b"" for frames that mark their own end. Text replies end at a newline.
        beat: see Trust.

    Raises:
        OpenFailed: no such port, or another program holds it.
    """

    def __init__(
        self,
        port: str,
        *,
        baud: int = 115200,
        timeout_s: float = 1.0,
        terminator: bytes = b"",
        beat: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(port, beat)
        self._baud, self._terminator = baud, terminator
        self._timeout_s = checked_timeout(timeout_s, port)
        self._port: serial.Serial | None = None
        self._ahead = bytearray()  # read from the port, not yet asked for
        self._open()

    @property
    def baud(self) -> int:
        """Bits per second."""
        return self._baud

    @property
    def timeout_s(self) -> float:
        """Longest silence that is waited for, in s."""
        return self._timeout_s

    @timeout_s.setter
    def timeout_s(self, seconds: float) -> None:
        with self._trust.transaction():
            self._timeout_s = checked_timeout(seconds, self._name)
            if self._port is not None:
                self._port.timeout = self._port.write_timeout = self._timeout_s

    def write(self, *parts: bytes | memoryview) -> None:
        """Send `parts` and the terminator as one message, in pieces small enough for the timeout of the port."""
        message = memoryview(b"".join((*parts, self._terminator)))
        # What the wire carries in half the timeout, so that a port that moves at all never times out.
        piece = max(1, int(self._baud / BITS_PER_BYTE * self._timeout_s / 2))
        with self._guarded("write") as port:
            for start in range(0, len(message), piece):
                port.write(message[start : start + piece])

    def read_exact(self, count: int) -> bytes:
        """Read exactly `count` bytes.

        Raises:
            LinkTimeout: fewer came; Disconnected: the port is gone; DirtySession.
        """
        with self._guarded("read") as port:
            return self._take(port, count)

    def read_text(self) -> str:
        """Read one line, without its newline or carriage return and newline."""
        with self._guarded("read") as port:
            begin = Deadline.after(self._timeout_s)
            while (end := self._ahead.find(b"\n")) < 0:
                # A long line may take the time that its bits need, and a line that dribbles in no more than that.
                deadline = Deadline(begin.end_s + len(self._ahead) / (self._baud / BITS_PER_BYTE))
                if len(self._ahead) > LINE_LIMIT_BYTES:
                    raise out_of_step("the text reply does not end", self._name, bytes(self._ahead), "a newline")
                self._ahead += self._arrived(port, max(1, port.in_waiting), deadline, f"{len(self._ahead)} bytes of a line")
            line = bytes(self._ahead[:end]).removesuffix(b"\r")
            del self._ahead[: end + 1]
            if not line.isascii():
                raise out_of_step("the reply is not ASCII text", self._name, line, "ASCII")
            return line.decode("ascii")

    def read_block(self, item_bytes: int, limit_bytes: int) -> memoryview:
        """Read one IEEE 488.2 block; see Link.read_block."""
        with self._guarded("read") as port:
            return read_block(_SerialReply(self, port), item_bytes, limit_bytes, self._name)

    def drain(self) -> bytes:
        """Take everything off the line until it is silent for 50 ms; for banners after a reset.

        A line that never falls silent is left after the timeout.
        """
        with self._trust.transaction(), self._translated("drain"):
            port = self._present()
            waste = bytes(self._ahead)
            self._ahead.clear()
            deadline = time.monotonic() + self._timeout_s + SILENCE_S
            quiet_since = time.monotonic()
            while (now := time.monotonic()) < deadline and now - quiet_since < SILENCE_S:
                if port.in_waiting:
                    waste += port.read(port.in_waiting)
                    quiet_since = time.monotonic()
                else:
                    time.sleep(SILENCE_S / 10)
            return waste

    def clear(self) -> None:
        """Drop what is in both directions. A reply later than 50 ms is not caught: number your frames, or reidentify."""
        with self._trust.transaction():
            self._trust.lose("cleared")
            with self._translated("clear"):
                self._present().reset_output_buffer()
            self.drain()
            self._trust.emptied("cleared")

    def reopen(self) -> None:
        """Close the port and open it again; the link stays dirty until the instrument is identified."""
        with self._trust.transaction():
            self.close()
            self._open()
            self._trust.emptied("reopened")

    def close(self) -> None:
        """Close the port and forget what was read ahead; may be called twice."""
        with self._trust.transaction():
            port, self._port = self._port, None
            self._ahead.clear()
            if port is not None:
                _open_ports().discard(port)
                for_us_alone(port, False)  # whoever inherited the port may keep it open
                with suppress(OSError):  # SerialException among them: a dead port is closed all the same
                    port.close()

    def _open(self) -> None:
        port = serial.Serial()
        port.port, port.baudrate, port.exclusive = serial_port(self._name), self._baud, True
        port.timeout = port.write_timeout = self._timeout_s
        port.dtr = False
        try:
            port.open()
        except (OSError, ValueError) as error:
            there = ports()
            raise OpenFailed(
                "the serial port cannot be opened",
                where=self._name,
                got=str(error),
                allowed=f"a port that is there: {', '.join(there)}" if there else "no serial port is there now",
                outputs="as they were; nothing was sent",
                todo=TODO.get(getattr(error, "errno", None) or 0, UNKNOWN_TODO),
            ) from error
        for_us_alone(port, True)
        _open_ports().add(port)
        self._port = port

    def _take(self, port: serial.Serial, count: int) -> bytes:
        got = bytearray(self._ahead[:count])
        del self._ahead[:count]
        deadline = Deadline.after(self._timeout_s, count, self._baud / BITS_PER_BYTE)
        while len(got) < count:
            got += self._arrived(port, count - len(got), deadline, f"{len(got)} of {count} bytes")
        return bytes(got)

    def _arrived(self, port: serial.Serial, count: int, deadline: Deadline, so_far: str) -> bytes:
        """Wait for at least one byte; read at most `count`."""
        try:
            left_s = deadline.left_s()
        except TimeoutError as late:
            raise timed_out(self._name, so_far, self._timeout_s) from late
        if left_s < self._timeout_s:  # bytes came, and not all of them: the port must not wait its whole timeout again
            port.timeout = left_s
        try:
            data = bytes(port.read(count))
        finally:
            if left_s < self._timeout_s:
                port.timeout = self._timeout_s
        if not data:
            raise timed_out(self._name, so_far, self._timeout_s)
        return data

    def _present(self) -> serial.Serial:
        if self._port is None:
            raise gone(self._name, "a closed link")
        return self._port

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[serial.Serial]:
        with self._trust.use(), self._translated(doing):
            yield self._present()

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except serial.SerialTimeoutException as error:
            raise timed_out(self._name, f"{error} in a {doing}", self._timeout_s) from error
        except LINE_ERRORS as error:
            raise gone(self._name, f"{type(error).__name__} in a {doing}: {error}") from error


@cache
def _open_ports() -> WeakSet[serial.Serial]:
    """The open ports of this process; a forked one closes them."""
    opened: WeakSet[serial.Serial] = WeakSet()

    def close() -> None:
        for port in list(opened):
            handle, port.fd, port.is_open = port.fd, None, False
            if handle is not None:
                with suppress(OSError):
                    os.close(handle)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)
    return opened


def ports() -> tuple[str, ...]:
    """The serial ports that are there now, with the name that udev gives to the board at each, where it does."""
    named = {os.path.realpath(path): path for path in sorted(glob.glob("/dev/serial/by-id/*"))}
    try:
        found = sorted(port.device for port in comports())
    except (OSError, TypeError, ValueError):  # not every system lets us look
        return tuple(sorted(named.values()))
    return tuple(f"{port} ({named[port]})" if port in named else port for port in found)


class _SerialReply:
    """The reply under way on a serial line, for the block reader."""

    endings = frozenset({b"\n", b"\r\n"})

    def __init__(self, link: SerialLink, port: serial.Serial) -> None:
        self._link, self._port = link, port

    def take(self, count: int) -> bytes:
        return self._link._take(self._port, count)

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        view = memoryview(bytearray(self.take(count + 1)))
        ending = bytes(view[count:])
        if ending == b"\r":
            ending += self.take(1)
        return view[:count], ending + self.glimpse(32)

    def glimpse(self, count: int) -> bytes:
        if self._port.in_waiting and len(self._link._ahead) < count:
            self._link._ahead += self._port.read(self._port.in_waiting)
        return bytes(self._link._ahead[:count])
