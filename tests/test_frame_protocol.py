"""The bytes of the board's line against the table in hil/frame_protocol.py: written out here once more, sums included."""

from __future__ import annotations

import struct

import pytest

from hil import frame_protocol as wire
from hil.frame_protocol import Code, Kind
from sim_devices.instruments.frame_protocol import Reassembly, reply

BLOCK = (3, 0, 7, 2, 5, 4)
BLOCK_HEX = "0300 0000 07000000 02000000 05000000 04000000"
F64 = {0.5: "000000000000e03f", 1.0: "000000000000f03f", -1.0: "000000000000f0bf", 8.0: "0000000000002040"}
# kind, its number, what the host asks, what the board answers
FRAMES = [
    (Kind.HELLO, 1, wire.HELLO.pack(1, 0xABCD), "0100 cdab0000"),
    (Kind.ALLOCATE, 2, wire.ALLOCATE.pack(300, 1, 0, 1, 0, 2, 0.5, 1.0, -1.0, 8.0),
     f"2c010000 01 00 01 00 02000000 {F64[0.5]} {F64[1.0]} {F64[-1.0]} {F64[8.0]}"),
    (Kind.PROGRAM, 3, wire.ARRAY.pack(258) + struct.pack("<2f", 1.0, -2.0), "0201 0000803f 000000c0"),
    (Kind.RESET, 4, wire.ARRAY.pack(258), "0201"),
    (Kind.STEP, 5, wire.BLOCK.pack(*BLOCK) + struct.pack("<f", 0.5), f"{BLOCK_HEX} 0000003f"),
    (Kind.MONITOR, 6, wire.BLOCK.pack(*BLOCK), BLOCK_HEX),
    (Kind.ARM, 7, wire.ARM.pack(8.0), F64[8.0]),
    (Kind.SAFE, 8, b"", ""),
    (Kind.STATUS, 9, b"", ""),
]  # fmt: skip
REPLIES = [
    (wire.WELCOME.pack(1, 2, 0xABCD, 1 << 18, 300, 8.0), f"0100 02000000 cdab0000 00000400 2c010000 {F64[8.0]}"),
    (wire.ALLOCATED.pack(258, 0.5, 8.0), f"0201 {F64[0.5]} {F64[8.0]}"),
    (wire.STARTED.pack(True, False), "01 00"),
    (wire.STATUS.pack(True, False, 258, 70000), "01 00 0201 70110100"),
]
CODES = {
    "DONE": 0, "BAD_CRC": 1, "UNKNOWN_KIND": 2, "BAD_PAYLOAD": 3, "NO_ARRAY": 4, "OUT_OF_RANGE": 5, "NO_ROOM": 6,
    "NOT_ARMED": 7, "WATCHDOG": 8, "NO_DATA": 9, "TOO_LONG": 10,
}  # fmt: skip


def crc16(data: bytes, crc: int) -> int:
    """ITU-T V.41, bit by bit: polynomial 1021, most significant bit first, nothing inverted."""
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


def golden(kind: int, code: int, seq: int, payload: bytes) -> bytes:
    """The frame, from the table: every number little-endian, its own sum in the head, the head's sum carried into the last."""
    head = bytes([0xA5, 0x5A, kind, code, seq & 0xFF, seq >> 8, *len(payload).to_bytes(4, "little")])
    head_crc = crc16(head, 0xFFFF)
    return head + head_crc.to_bytes(2, "little") + payload + crc16(payload, head_crc).to_bytes(2, "little")


def test_the_sum_is_that_of_the_standard() -> None:
    assert crc16(b"123456789", 0xFFFF) == 0x29B1  # the check value of CRC-16/IBM-3740
    assert wire.frame(Kind.STATUS, 0x1234)[0].hex() == "a55a0900341200000000322d"


@pytest.mark.parametrize(("kind", "number", "body", "written"), FRAMES, ids=[str(frame[0].name) for frame in FRAMES])
def test_a_request_has_the_bytes_of_the_table(kind: Kind, number: int, body: bytes, written: str) -> None:
    payload = bytes.fromhex(written)
    assert body == payload
    sent = b"".join(wire.frame(kind, 0xBEEF, body[:3], memoryview(body)[3:]))
    assert sent == golden(number, 0, 0xBEEF, payload)
    (request,) = Reassembly(100).feed(golden(number, 0, 0xBEEF, payload), 0.0)
    assert (request.kind, request.seq, bytes(request.payload), request.code) == (kind, 0xBEEF, payload, Code.DONE)


@pytest.mark.parametrize("code", list(Code), ids=lambda code: str(code.name))
def test_a_reply_has_the_bytes_of_the_table(code: Code) -> None:
    assert {each.name: each.value for each in Code} == CODES
    data = golden(0x85, CODES[code.name], 513, b"why")
    assert reply(Kind.STEP, 513, b"why", code) == data
    head = wire.head(data[:12], "here")
    assert (head.kind, head.code, head.seq, head.length) == (Kind.STEP | wire.REPLY, code, 513, 3)
    assert bytes(wire.payload(head, data[12:], "here")) == b"why"


@pytest.mark.parametrize(("body", "written"), REPLIES)
def test_what_a_reply_holds_has_the_bytes_of_the_table(body: bytes, written: str) -> None:
    assert body == bytes.fromhex(written)
