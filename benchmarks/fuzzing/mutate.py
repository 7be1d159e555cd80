"""Damage to bytes: one to four edits of a valid sample.

    flip bits · set a byte · cut · drop, double or repeat a stretch · splice two samples · another number in place of a number,
    in text or as an integer of 2 or 4 bytes · a token that belongs elsewhere · deep nesting

Everything is drawn from one `random.Random`, so a seed gives the input again.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"+0",
    b"nan",
    b"NaN",
    b"inf",
    b"-inf",
    b"Infinity",
    b"9.9E37",
    b"-9.91E+37",
    b"1e400",
    b"1e-400",
    b"1e30",
    b"65535",
    b"65536",
    b"2147483648",
    b"4294967295",
    b"4294967296",
    b"18446744073709551616",
    b"999999999",
    b"0.5",
    b"1_0",
    b"007",
    b"9" * 400,
    b"1" * 5000,
    b"true",
    b"null",
    b'""',
    b"[]",
    b"{}",
)
TOKENS = (
    b"\n",
    b"\r\n",
    b";",
    b",",
    b":",
    b"?",
    b"*",
    b"#0",
    b"#10",
    b"#9999999999",
    b"#3100",
    b"#41024",
    b'"',
    b"'",
    b"\\",
    b"(",
    b")",
    b"=",
    b"[",
    b"]]",
    b"{",
    b"}",
    b"\x00",
    b"\xff",
    b"\xb5\xff",
    b"\xe9",
    b"\xc3\xa9",
    b"\xa5\x5a",
    b"HS",
    b"INF",
    b"MIN",
    b"MAX",
    b"DEF",
    b"*RST",
    b"*TRG",
    b"*OPC?",
    b":SYST:ERR?",
    b"DBM",
    b"VRMS",
    b"nan",
    b"\\ud800",
)
WHOLES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
DIGITS = re.compile(rb"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
LONGEST = 1 << 17

Edit = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def mutated(samples: Sequence[bytes], draw: random.Random) -> bytes:
    """A sample after one to four edits; now and then as it is, or nothing but noise."""
    kind = draw.random()
    if kind < 0.02:
        return draw.randbytes(draw.randrange(64))
    data = bytearray(draw.choice(samples))
    if kind > 0.04:
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
            draw.choice(EDITS)(data, draw, samples)
    return bytes(data[:LONGEST])


def _span(data: bytearray, draw: random.Random) -> tuple[int, int]:
    first = draw.randrange(len(data) + 1)
    return first, min(len(data), first + draw.choice((1, 2, 4, 8, 16, 64, len(data))))


def _flip(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    for _ in range(draw.choice((1, 1, 2, 8))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _set(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.choice((0, 9, 10, 13, 32, 34, 35, 39, 44, 48, 57, 59, 127, 128, 255))


def _cut(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _drop(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    first, last = _span(data, draw)
    del data[first:last]


def _double(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    first, last = _span(data, draw)
    data[last:last] = data[first:last]


def _repeat(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    first, last = _span(data, draw)
    piece = bytes(data[first:last][:8]) or b"["
    data[last:last] = piece * draw.choice((16, 256, 6000))


def _splice(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    other = draw.choice(samples)
    data[draw.randrange(len(data) + 1) :] = other[draw.randrange(len(other) + 1) :]


def _graft(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    other = bytearray(draw.choice(samples))
    first, last = _span(other, draw)
    at = draw.randrange(len(data) + 1)
    data[at:at] = other[first:last]


def _number(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    found = list(DIGITS.finditer(data))
    if found:
        chosen = draw.choice(found)
        data[chosen.start() : chosen.end()] = draw.choice(NUMBERS)


def _whole(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    """A length field, wherever it may be."""
    form = draw.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    if len(data) >= size:
        struct.pack_into(form, data, draw.randrange(len(data) - size + 1), draw.choice(WHOLES) & ((1 << 8 * size) - 1))


def _token(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice(TOKENS)


def _nest(data: bytearray, draw: random.Random, samples: Sequence[bytes]) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice((b"[", b'{"a":', b"(", b"x.", b":A", b"{a=")) * draw.choice((20, 1500, 20_000))


EDITS: tuple[Edit, ...] = (
    _flip,
    _flip,
    _set,
    _cut,
    _drop,
    _double,
    _repeat,
    _splice,
    _graft,
    _number,
    _number,
    _number,
    _whole,
    _whole,
    _token,
    _token,
    _nest,
)
