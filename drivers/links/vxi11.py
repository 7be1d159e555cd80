"""VXI-11 as a wire: reads and writes by the calls of PyVISA-py's VXI-11 session.

    device_write(link, timeout, lock_timeout, flags, data)        -> error, size       flag 8: the message ends here
    device_read(link, size, timeout, lock_timeout, flags, char)   -> error, reason, data     reason 4: the reply ends here

PyVISA-py opens, packs and unpacks. Its own viRead is passed over for two reasons: it hides an END that falls on the last byte
asked for, and it takes the time since the beginning off the timeout again at every piece, so that a long reply in many pieces
is given up early (pyvisa_py/tcpip.py, TCPIPInstrVxi11.read, version 0.8.1). Here one deadline holds for a reply, as on the
other wires.

A reply that was given up on stays in the instrument until the next message or a device clear; Trust (drivers/links/link.py)
lets nothing be asked in between. An answer to a call that was given up on is known by the number of the call (xid), and thrown
away by PyVISA-py.

Source: VXI-11 (TCP/IP Instrument Protocol, revision 1.0, 1995), sections B.6.3 to B.6.8, table B.2 (errors).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from drivers.links.hislip import LOCK_WAIT_S, Granted
from drivers.links.link import Deadline
from drivers.links.stream import LINE_LIMIT_BYTES, out_of_step, timed_out
from hil.errors import Disconnected, LinkError

WAIT_LOCK, END = 1, 8
BY_END = 4
LOCKED, TIMEOUT = 11, 15
ERRORS = {
    1: "syntax error", 3: "device not accessible", 4: "invalid link", 5: "parameter error", 6: "channel not established",
    8: "not supported", 9: "out of resources", LOCKED: "locked by another link", 12: "no lock held",
    17: "I/O error", 23: "aborted",
}  # fmt: skip
ENDING_BYTES = 3  # one byte more than the longest ending: what arrives beyond is too much


class Session(Protocol):
    """The part of PyVISA-py's `TCPIPInstrVxi11` that is used here."""

    interface: Any
    link: int
    max_recv_size: int


class Vxi11Wire:
    """Read and write the messages of a VXI-11 link.

    Args:
        session: PyVISA-py's, open.
        where: for messages.
        timeout_s: longest silence.
    """

    endings = frozenset({b"", b"\n", b"\r\n"})

    def __init__(self, session: Session, where: str, timeout_s: float) -> None:
        self._client, self._link, self._most = session.interface, session.link, max(session.max_recv_size, 1)
        self._where, self.timeout_s = where, timeout_s
        self._ended = False

    def send(self, parts: Sequence[memoryview]) -> None:
        """Send `parts` as one message; what was left of an older reply is forgotten."""
        self._ended = False
        data = b"".join(parts)
        deadline, sent = Deadline.after(self.timeout_s, len(data)), 0
        while True:
            piece = data[sent : sent + self._most]
            last = sent + len(piece) == len(data)
            error, taken = self._client.device_write(self._link, self._silence_ms(deadline), 0, END if last else 0, piece)
            self._check(error, taken, f"{sent} of {len(data)} bytes taken")
            sent += taken
            if sent == len(data):
                return
            if not taken:
                raise self._refused("no more bytes are taken", f"{sent} of {len(data)}")

    def lock(self) -> Granted:
        """Ask whether another program has the lock; none is taken, see drivers/links/hislip.py."""
        wait_ms = round(LOCK_WAIT_S * 1000)
        error, _ = self._client.device_read_stb(self._link, WAIT_LOCK, wait_ms, wait_ms)
        return "refused" if error == LOCKED else "none"

    def clear(self) -> None:
        """Clear the device, and forget an unfinished reply."""
        self._ended = False
        self._check(self._client.device_clear(self._link, 0, 0, round(self.timeout_s * 1000)), None, "device clear")

    def line(self) -> bytes:
        """Read one text reply to its end, without its newline.

        Raises:
            Desync: the reply is longer than LINE_LIMIT_BYTES.
        """
        reply, deadline = bytearray(), Deadline.after(self.timeout_s)
        while not self._ended:
            if len(reply) >= LINE_LIMIT_BYTES:
                raise out_of_step("the text reply does not end", self._where, bytes(reply), f"{LINE_LIMIT_BYTES} bytes")
            reply += self._read(LINE_LIMIT_BYTES - len(reply), deadline)
        return bytes(reply).removesuffix(b"\n").removesuffix(b"\r")

    def take(self, count: int) -> memoryview:
        """Read `count` bytes; fewer only if the message ended."""
        buffer, deadline, got = np.empty(count, np.uint8).data, Deadline.after(self.timeout_s, count), 0
        while got < count and not self._ended:
            data = self._read(count - got, deadline)
            buffer[got : got + len(data)] = data
            got += len(data)
        return buffer[:got]

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        """Read the last `count` bytes and the ending."""
        view = self.take(count + ENDING_BYTES)
        return view[:count], bytes(view[count:])

    def glimpse(self, count: int) -> bytes:
        """Return nothing: a read cannot look without taking."""
        del count
        return b""

    def _read(self, count: int, deadline: Deadline) -> bytes:
        size = min(count, self._most)
        error, reason, data = self._client.device_read(self._link, size, self._silence_ms(deadline), 0, 0, 0)
        self._check(error, data, "in a reply")
        if len(data) > size:
            raise out_of_step("more came than was asked for", self._where, data, f"{size} bytes")
        self._ended = bool(reason & BY_END)
        return bytes(data)

    def _silence_ms(self, deadline: Deadline) -> int:
        try:
            return max(1, round(1000 * min(self.timeout_s, deadline.left_s())))
        except TimeoutError as late:
            raise timed_out(self._where, "not all of a message", self.timeout_s) from late

    def _check(self, error: int, result: object, got: str) -> None:
        """Raises: LinkError: the call did not succeed."""
        if error == TIMEOUT or isinstance(result, str):  # text: PyVISA-py's word for a call that was not answered
            raise timed_out(self._where, got, self.timeout_s)
        if error:
            raise self._refused(f"the instrument reports VXI-11 error {error}, {ERRORS.get(error, 'unknown')}", got, error)

    def _refused(self, what: str, got: str, error: int = 0) -> LinkError:
        return Disconnected(
            what, where=self._where, got=got, outputs="unknown until read back",
            todo="end the program that has locked the instrument, which may run on another computer" if error == LOCKED
            else "recover() the session and set the instrument again",
        )  # fmt: skip
