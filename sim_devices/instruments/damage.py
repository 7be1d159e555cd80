"""Damage of bytes by faults: a reply goes in, the reply that arrives comes out.

    reply = head | payload       head: "#8nnnnnnnn" of a block, the head of a frame, or nothing; then all of it is payload

Applied in this order, whatever the order of scheduling: serial, flip, swap, pad, garbage, truncate.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from sim_devices.instruments.faults import Fault, Strike

EXTRA_BYTES = 4  # of pad and garbage, when the fault does not say


def by_kind(strikes: Sequence[Strike]) -> dict[str, Strike]:
    """Return the strikes by kind; of two of one kind that strike together the first is taken."""
    return {strike.fault.kind: strike for strike in reversed(strikes)}


def block_head(reply: bytes) -> int:
    """Bytes of the header of an IEEE 488.2 block, 0 if `reply` is none."""
    digits = reply[1:2]
    return 2 + int(digits) if reply[:1] == b"#" and digits.isdigit() else 0


def damaged(reply: bytes, head: int, struck: Mapping[str, Strike]) -> bytes:
    """The bytes that arrive.

    Args:
        reply: the bytes that would arrive without a fault.
        head: where the payload begins.
        struck: faults that strike this reply, by kind.
    """
    data = bytearray(reply)
    if strike := struck.get("serial"):
        data = bytearray(with_serial(reply, strike.fault.serial))
    if strike := struck.get("flip"):
        first, last = (0, head or len(data)) if strike.fault.position == "header" else (head, len(data))
        flip(data, strike.fault.bits, strike.rng, first, last)
    if "swap" in struck:
        swap(data, head)
    if strike := struck.get("pad"):
        data += strike.rng.randbytes(_extra(strike.fault))
    if strike := struck.get("garbage"):
        data[:0] = strike.rng.randbytes(_extra(strike.fault))
    if strike := struck.get("truncate"):
        del data[kept(strike.fault, len(data)) :]
    return bytes(data)


def kept(fault: Fault, length: int) -> int:
    """Return how many bytes of a reply are still sent: at least one is not."""
    return min(length // 2 if fault.bytes is None else fault.bytes, max(length - 1, 0))


def flip(data: bytearray, bits: int, rng: random.Random, first: int = 0, last: int | None = None) -> None:
    """Flip `bits` different bits of data[first:last], in place."""
    low, high = 8 * first, 8 * (len(data) if last is None else last)
    for bit in rng.sample(range(low, high), min(bits, high - low)):
        data[bit // 8] ^= 1 << bit % 8


def swap(data: bytearray, first: int) -> None:
    """The two bytes of every pair after `first` change places; an odd last byte stays."""
    last = first + (len(data) - first) // 2 * 2
    data[first:last:2], data[first + 1 : last : 2] = data[first + 1 : last : 2], data[first:last:2]


def with_serial(reply: bytes, serial: str) -> bytes:
    """``maker,model,serial,firmware`` with another serial number; anything else as it is."""
    fields = reply.split(b",")
    if len(fields) != 4:
        return reply
    return b",".join((*fields[:2], serial.encode("ascii"), fields[3]))


def _extra(fault: Fault) -> int:
    return EXTRA_BYTES if fault.bytes is None else fault.bytes
