"""Wire format of the spiking board, version 1, as the board sees it.

    frame    = A5 5A  kind u8  code u8  seq u16  length u32  head_crc u16 | payload | crc u16          little-endian
    head_crc = CRC-16 of the 10 bytes before it, from FFFF;  crc = CRC-16 of the payload, from head_crc
    CRC-16   : polynomial 1021, most significant bit first, nothing inverted (ITU-T V.41)

    1 HELLO    version u16, session u32 -> version u16, boot u32, session u32, largest u32, free u32, limit f64, identity
    2 ALLOCATE size u32, couples u8, reset u8, numbers u8, 0 u8, refractory u32, leak, v_th, v_rest, full_scale f64
               -> array u16, lowest f64, highest f64
    3 PROGRAM  array u16, thresholds f32        4 RESET    array u16 -> armed u8, tripped u8
    7 ARM      watchdog f64, s                    8 SAFE
    5 STEP     block, currents -> spike bits    6 MONITOR  block -> membranes
    9 STATUS   -> armed u8, tripped u8, arrays u16, bad_frames u32
    block      array u16, 0 u16, first_step u32, steps u32, first_row u32, rows u32

The bytes of a line carry no marks, so after damage the board looks for the next head whose checksum fits. A frame that stops
half way is given up when the line was silent for `gap_s`.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

VERSION = 1
MAGIC = b"\xa5\x5a"
LEAD = struct.Struct("<2sBBHI")
CRC = struct.Struct("<H")
HEAD_BYTES = LEAD.size + CRC.size
REPLY = 0x80

HELLO = struct.Struct("<HI")
WELCOME = struct.Struct("<HIIIId")
ALLOCATE = struct.Struct("<IBBBBIdddd")
ALLOCATED = struct.Struct("<Hdd")
ARRAY = struct.Struct("<H")
BLOCK = struct.Struct("<HHIIII")
ARM = struct.Struct("<d")
STARTED = struct.Struct("<BB")
STATUS = struct.Struct("<BBHI")


class Kind(IntEnum):
    HELLO = 1
    ALLOCATE = 2
    PROGRAM = 3
    RESET = 4
    STEP = 5
    MONITOR = 6
    ARM = 7
    SAFE = 8
    STATUS = 9


class Code(IntEnum):
    DONE = 0
    BAD_CRC = 1
    UNKNOWN_KIND = 2
    BAD_PAYLOAD = 3
    NO_ARRAY = 4
    OUT_OF_RANGE = 5
    NO_ROOM = 6
    NOT_ARMED = 7
    WATCHDOG = 8
    NO_DATA = 9
    TOO_LONG = 10


class Request(NamedTuple):
    """crc: of the whole frame. A request with code other than DONE could not be read; seq may then be wrong."""

    kind: int
    seq: int
    payload: memoryview
    crc: int
    code: Code = Code.DONE


def reply(kind: int, seq: int, payload: bytes = b"", code: Code = Code.DONE) -> bytes:
    lead = LEAD.pack(MAGIC, kind | REPLY, code, seq, len(payload))
    crc = crc_hqx(lead, 0xFFFF)
    return b"".join((lead, CRC.pack(crc), payload, CRC.pack(crc_hqx(payload, crc))))


class Reassembly:
    """Cuts the bytes of a line into requests.

    Args:
        largest: payload bytes; longer frames are refused. gap_s: silence that ends a frame that is not whole.
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
        self._data.clear()
        self._lost = False

    def _next(self) -> Request | None:
        while True:
            self._find_magic()
            if len(self._data) < HEAD_BYTES:
                return None
            _, kind, _, seq, length = LEAD.unpack_from(self._data)
            (crc,) = CRC.unpack_from(self._data, LEAD.size)
            if crc != crc_hqx(self._data[: LEAD.size], 0xFFFF):
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
        length = HEAD_BYTES + LEAD.unpack_from(data)[4] + CRC.size
        yield frame_name(data), data[:length]
        data = data[length:]
