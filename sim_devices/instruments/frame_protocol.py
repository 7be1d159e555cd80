"""The line of the spiking board, as the board reads it; the format is in hil/frame_protocol.py.

The bytes of a line carry no marks, so after damage the board looks for the next head whose checksum fits. A frame that stops
half way is given up when the line was silent for `gap_s`.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterator
from typing import NamedTuple

from hil.frame_protocol import CRC, HEAD, HEAD_BYTES, MAGIC, REPLY, Code, Kind, frame


class Request(NamedTuple):
    """A frame from the host, parsed.

    Args:
        crc: of the whole frame. A request with code other than DONE could not be read; seq may then be wrong.
    """

    kind: int
    seq: int
    payload: memoryview
    crc: int
    code: Code = Code.DONE


def reply(kind: int, seq: int, payload: bytes = b"", code: Code = Code.DONE) -> bytes:
    """Pack the reply to request `seq` of `kind`, with its checksum."""
    return b"".join(frame(kind | REPLY, seq, payload, code=code))


class Reassembly:
    """Cuts the bytes of a line into requests.

    Args:
        largest: payload bytes; longer frames are refused.
        gap_s: silence that ends a frame that is not whole.
    """

    def __init__(self, largest: int, gap_s: float = 0.25) -> None:
        self._largest, self._gap_s = largest, gap_s
        self._data = bytearray()
        self._last_s = 0.0
        self._lost = False
        self.bad_frames = 0

    def feed(self, data: bytes | memoryview, now_s: float) -> Iterator[Request]:
        """The requests that `data` completes. A payload must be used before the next request is taken."""
        if self._data and now_s - self._last_s > self._gap_s:
            self._data.clear()
            self.bad_frames += 1
        self._last_s = now_s
        self._data += data
        while (request := self._next()) is not None:
            yield request

    def forget(self) -> None:
        """Drop what has come of an unfinished frame."""
        self._data.clear()
        self._lost = False

    def _next(self) -> Request | None:
        while True:
            self._find_magic()
            if len(self._data) < HEAD_BYTES:
                return None
            _, kind, _, seq, length = HEAD.unpack_from(self._data)
            (crc,) = CRC.unpack_from(self._data, HEAD.size)
            if crc != crc_hqx(self._data[: HEAD.size], 0xFFFF):
                complaint = self._damage(0, 0)
            elif length > self._largest:
                complaint = self._damage(kind, seq, Code.TOO_LONG)
            elif len(self._data) < HEAD_BYTES + length + CRC.size:
                return None
            else:
                whole = bytearray(memoryview(self._data)[HEAD_BYTES : HEAD_BYTES + length + CRC.size])
                (wanted,) = CRC.unpack_from(whole, length)
                if wanted == crc_hqx(memoryview(whole)[:length], crc):
                    del self._data[: HEAD_BYTES + length + CRC.size]
                    self._lost = False
                    return Request(kind, seq, memoryview(whole)[:length], wanted)
                complaint = self._damage(kind, seq)
            if complaint is not None:
                return complaint

    def _find_magic(self) -> None:
        at = self._data.find(MAGIC)
        if at < 0:  # keep a first byte of MAGIC at the very end
            at = len(self._data) - self._data.endswith(MAGIC[:1])
        del self._data[:at]

    def _damage(self, kind: int, seq: int, code: Code = Code.BAD_CRC) -> Request | None:
        """Step over this head and look on; complain once until a good frame has come."""
        del self._data[: len(MAGIC)]
        if self._lost:
            return None
        self._lost = True
        self.bad_frames += 1
        return Request(kind, seq, memoryview(b""), 0, code)


def frame_name(data: bytes) -> str:
    """The kind of the frame that `data` begins with, "STEP"; a number if it has no name, "" if no frame begins there."""
    if len(data) <= len(MAGIC) or not data.startswith(MAGIC):
        return ""
    kind = data[len(MAGIC)] & ~REPLY
    return Kind(kind).name if kind in Kind._value2member_map_ else str(kind)


def frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, frame) of undamaged frames that follow one another."""
    while data:
        length = HEAD_BYTES + HEAD.unpack_from(data)[4] + CRC.size
        yield frame_name(data), data[:length]
        data = data[length:]
