"""Wire format of boards with a microcontroller, version 1: numbered frames with two checksums over a serial line.

    frame    = head payload crc           all numbers little-endian
    head     = A5 5A  kind u8  code u8  seq u16  length u32  head_crc u16         12 bytes, length of the payload
    head_crc = CRC-16 of the first 10 bytes of the head, from FFFF
    crc      = CRC-16 of the payload, from head_crc: a payload cannot be taken for that of another head
    CRC-16   : polynomial 1021, most significant bit first, nothing inverted (ITU-T V.41; `binascii.crc_hqx`)

One request, one reply. A reply echoes seq, and kind with bit 7 set; code 0 means done, any other is a refusal and the payload
its reason in UTF-8. A request that comes again (same seq, kind and payload) is answered again from memory, not done again.
A head that cannot be read is answered with kind 80, code 1.

    kind       request                                            reply
    1 HELLO    version u16  session u32                           version u16  boot u32  session u32  largest u32  free u32
                                                                  limit f64  identity UTF-8, maker,model,serial,firmware
    2 ALLOCATE size u32  couples u8  reset u8  numbers u8  0 u8   array u16  lowest f64  highest f64      (thresholds)
               refractory u32  leak f64  v_th f64  v_rest f64  full_scale f64
    3 PROGRAM  array u16, size x f32 thresholds                   -
    4 RESET    array u16                                          armed u8  tripped u8
    5 STEP     block, currents steps x rows x size                spikes, bits of steps x rows x size, first bit highest
    6 MONITOR  block                                              membranes steps x rows x size
    7 ARM      watchdog f64, s; 0 never trips                     -
    8 SAFE     -                                                  -
    9 STATUS   -                                                  armed u8  tripped u8  arrays u16  bad_frames u32
    block      array u16  0 u16  first_step u32  steps u32  first_row u32  rows u32

A board of converters knows HELLO, ARM, SAFE, STATUS too (limit: its largest output), and besides

    10 DESCRIBE -                                                 channels u16  readings u16  bits u8  reading_bits u8  safe u16
                                                                  low f64  high f64  reading_low f64  reading_high f64
    11 LEVELS  codes u16 x channels; or nothing, to ask           codes u16 x channels
    12 ROWS    settle_us u32  averages u16  rows u16              sums u32 x rows x readings, of so many codes
               codes u16 x rows x channels

ROWS holds each row in turn, waits settle_us, and reads every input `averages` times; the last row stays. A code is a share of
the range: volts = low + code / (2^bits - 1) (high - low). Disarmed, all channels hold the code `safe`, and LEVELS with codes
and ROWS are refused.

reset: 0 soft, 1 hard. numbers: 0 fixed point, int16 currents of full_scale/32767 a step and float16 membranes; 1 float32 both.
Spikes of couples: the bits of the positive spikes, padded to a byte, then those of the negative ones. largest: bytes that the
board takes in a payload. A block with first_step = first_row = 0 begins a new pass; MONITOR gives blocks of the last pass as
they were sent. Another session than before in HELLO frees all arrays and disarms. A board that hears nothing valid for the
watchdog's time disarms itself; currents are off until ARM, and membranes start at rest.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from hil.errors import Desync

VERSION = 1
MAGIC = b"\xa5\x5a"
HEAD = struct.Struct("<2sBBHI")
CRC = struct.Struct("<H")
HEAD_BYTES = HEAD.size + CRC.size
REPLY = 0x80
REPLY_MOST = 1 << 26  # bytes in a payload; a head that announces more is damaged, whatever its sum says

HELLO = struct.Struct("<HI")
WELCOME = struct.Struct("<HIIIId")
ALLOCATE = struct.Struct("<IBBBBIdddd")
ALLOCATED = struct.Struct("<Hdd")
ARRAY = struct.Struct("<H")
BLOCK = struct.Struct("<HHIIII")
ARM = struct.Struct("<d")
STARTED = struct.Struct("<BB")
STATUS = struct.Struct("<BBHI")
DESCRIBED = struct.Struct("<HHBBHdddd")
ROWS = struct.Struct("<IHH")


class Kind(IntEnum):
    """The request of a frame; see the module."""

    HELLO = 1
    ALLOCATE = 2
    PROGRAM = 3
    RESET = 4
    STEP = 5
    MONITOR = 6
    ARM = 7
    SAFE = 8
    STATUS = 9
    DESCRIBE = 10
    LEVELS = 11
    ROWS = 12


class Code(IntEnum):
    """The end of a request: DONE, or why it was refused."""

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


@dataclass(frozen=True, slots=True)
class FrameHead:
    """The head of a frame.

    Args:
        kind: of the frame; bit 7 is set in a reply.
        code: how the request ended.
        seq: number of the request.
        length: bytes of the payload.
        crc: checksum of the head, from which that of the payload goes on.
    """

    kind: int
    code: int
    seq: int
    length: int
    crc: int


def frame(kind: int, seq: int, *payload: bytes | memoryview, code: int = Code.DONE) -> list[bytes | memoryview]:
    """The pieces of a frame, to be written one after another; the payload is not copied."""
    lead = HEAD.pack(MAGIC, kind, code, seq, sum(len(piece) for piece in payload))
    crc = crc_hqx(lead, 0xFFFF)
    pieces: list[bytes | memoryview] = [lead + CRC.pack(crc), *payload]
    for piece in payload:
        crc = crc_hqx(piece, crc)
    return [*pieces, CRC.pack(crc)]


def head(data: bytes, where: str) -> FrameHead:
    """Raises: Desync: not a head, or damaged."""
    magic, kind, code, seq, length = HEAD.unpack_from(data)
    (crc,) = CRC.unpack_from(data, HEAD.size)
    if magic != MAGIC or crc != crc_hqx(data[: HEAD.size], 0xFFFF):
        raise damaged(where, f"head {data[:HEAD_BYTES].hex(' ')}")
    if length > REPLY_MOST:
        raise damaged(where, f"a head that announces {length} bytes")
    return FrameHead(kind, code, seq, length, crc)


def payload(head: FrameHead, data: bytes, where: str) -> memoryview:
    """The payload in `data`, which is the payload and its checksum. Raises: Desync: damaged."""
    view = memoryview(data)
    if CRC.unpack(view[-CRC.size :])[0] != crc_hqx(view[: -CRC.size], head.crc):
        raise damaged(where, f"a payload of {head.length} bytes, frame {head.seq}")
    return view[: -CRC.size]


def fields(layout: struct.Struct, body: bytes | memoryview, where: str) -> tuple[Any, ...]:
    """The numbers of a reply. Raises: Desync: it is of another size."""
    if len(body) != layout.size:
        raise damaged(where, f"a reply of {len(body)} bytes where {layout.size} are due")
    return layout.unpack(body)


def damaged(where: str, got: str) -> Desync:
    """The error of a frame whose checksum does not fit."""
    return Desync(
        "a frame arrived damaged", where=where, got=got, allowed="a checksum that fits", outputs="as they were",
        todo="lower the baud rate, shorten or shield the cable",
    )  # fmt: skip
