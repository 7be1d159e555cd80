"""A wire over any VISA backend, through viRead and viWrite alone: USB, GPIB, and every resource of NI-VISA.

    viRead(session, count) -> bytes, status      status: END seen | termination character seen | count reached

`VisaMessages` is for resources that mark the end of a message (INSTR), `VisaBytes` for those that do not (SOCKET), where the
termination character must be off while a block is read, or every newline in the payload ends a viRead.

Source: VPP-4.3 (VISA), 6.1.1 viRead and 6.1.4 viWrite; table of completion codes there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drivers.links.stream import LINE_LIMIT_BYTES, gone, out_of_step

CHUNK_BYTES = 64 << 10
ENDING_BYTES = 3  # one byte more than the longest ending: what arrives beyond is too much


@dataclass(frozen=True, slots=True)
class VisaCalls:
    """The few calls that are made, bound to one open session.

    Args:
        read: at most `count` bytes, and whether the reply ended with them.
        write: returns how many bytes were taken.
        clear: viClear.
        terminate_reads: switches the termination character on or off.
    """

    read: Callable[[int], tuple[bytes, bool]]
    write: Callable[[bytes], int]
    clear: Callable[[], None]
    terminate_reads: Callable[[bool], None]


class VisaMessages:
    """A resource whose replies have ends."""

    endings = frozenset({b"", b"\n", b"\r\n"})

    def __init__(self, calls: VisaCalls, where: str, timeout_s: float) -> None:
        self._calls, self._where, self.timeout_s = calls, where, timeout_s
        self._ended = False

    def send(self, parts: Sequence[memoryview]) -> None:
        """Send `parts` as one message; an older reply is taken to be over."""
        self._ended = False
        _write(self._calls, b"".join(parts), self._where)

    def clear(self) -> None:
        """Clear the device, and forget an unfinished reply."""
        self._ended = False
        self._calls.clear()

    def line(self) -> bytes:
        """Read one text reply to its end, without its newline.

        Raises:
            Desync: the reply is longer than LINE_LIMIT_BYTES.
        """
        reply = bytearray()
        while not self._ended:
            reply += self._read(CHUNK_BYTES)
            if len(reply) > LINE_LIMIT_BYTES:
                raise out_of_step("the text reply does not end", self._where, bytes(reply[:32]), f"{LINE_LIMIT_BYTES} bytes")
        return bytes(reply).removesuffix(b"\n").removesuffix(b"\r")

    def take(self, count: int) -> bytes:
        """Read `count` bytes; fewer only if the message ended."""
        got = b""
        while len(got) < count and not self._ended:
            got += self._read(count - len(got))
        return got

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        """Read the last `count` bytes and the ending."""
        # More is asked for than is due, so that END and not the count stops a correct reply: some backends report only the
        # count when both happen at once.
        wanted = count + ENDING_BYTES
        reply = bytearray()
        while len(reply) < wanted and not self._ended:
            reply += self._read(wanted - len(reply))
        view = memoryview(reply)
        return view[:count], bytes(view[count:])

    def glimpse(self, count: int) -> bytes:
        """Return nothing: viRead cannot look without taking."""
        del count
        return b""  # viRead cannot look without taking

    def _read(self, count: int) -> bytes:
        data, self._ended = self._calls.read(count)
        return data


class VisaBytes:
    """A SOCKET resource of a backend whose socket is out of reach."""

    def __init__(self, calls: VisaCalls, terminator: bytes, where: str, timeout_s: float) -> None:
        self._calls, self._terminator, self._where, self.timeout_s = calls, terminator, where, timeout_s

    @property
    def endings(self) -> frozenset[bytes]:
        """The terminator: it must follow every payload."""
        return frozenset({self._terminator})

    def send(self, parts: Sequence[memoryview]) -> None:
        """Send `parts` and the terminator as one message."""
        _write(self._calls, b"".join((*parts, self._terminator)), self._where)

    def line(self) -> bytes:
        """Read one text reply up to the terminator.

        Raises:
            Desync: the reply is longer than LINE_LIMIT_BYTES.
        """
        self._calls.terminate_reads(True)
        reply = bytearray()
        while not reply.endswith(self._terminator):
            data, _ended = self._calls.read(CHUNK_BYTES)
            reply += data
            if len(reply) > LINE_LIMIT_BYTES:
                raise out_of_step("the text reply does not end", self._where, bytes(reply[:32]), f"{LINE_LIMIT_BYTES} bytes")
        return bytes(reply[: -len(self._terminator)])

    def take(self, count: int) -> memoryview:
        """Read exactly `count` bytes; a terminator among them means nothing."""
        self._calls.terminate_reads(False)
        got = bytearray()
        while len(got) < count:
            data, _ended = self._calls.read(count - len(got))
            got += data
        return memoryview(got)

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        """Read the last `count` bytes of the payload and as many more as the terminator has."""
        view = self.take(count + len(self._terminator))
        return view[:count], bytes(view[count:])

    def glimpse(self, count: int) -> bytes:
        """Return nothing: viRead cannot look without taking."""
        del count
        return b""


def _write(calls: VisaCalls, message: bytes, where: str) -> None:
    taken = calls.write(message)
    if taken != len(message):
        raise gone(where, f"{taken} of {len(message)} bytes taken")
