"""The analogue-to-digital converter of a scope, and its words on the wire.

    code = round( (volts - offset) / (range / 2^bits) )                 mid-tread, offset is the middle of the screen
    word = code 2^(16 - bits) + 32768                                   left-justified: the low 16 - bits bits are 0
    0 is a hole (NaN of the twin), 1 is clipped low, 0xFFFF is clipped high

    volts = (word - yreference) yincrement + yorigin                    yincrement = range / 65536, yreference = 32768

A byte is the upper half of a word, 0 kept for holes. Kept here as word - 32768, int16.

Source: Keysight InfiniiVision 3000 X-Series Programmer's Guide, ":WAVeform:DATA", ":WAVeform:PREamble", "Data Conversion".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HOLE, LOW, HIGH = -32768, -32767, 32767
Words = NDArray[np.int16]


def words(volts: Tensor, range_v: float, offset_v: float, bits: int) -> Words:
    """Volts, any shape, to signed words (n,)."""
    per_volt = (1 << bits) / range_v
    code = volts.detach().reshape(-1).to(torch.float32).mul(per_volt)
    if offset_v:
        code.sub_(offset_v * per_volt)
    code.round_().mul_(1 << (16 - bits)).clamp_(LOW, HIGH)
    if torch.isnan(code.sum()):
        code.nan_to_num_(nan=HOLE)
    signed: Words = code.to(torch.int16).numpy()
    return signed


def block(signed: Words, *, wide: bool, swapped: bool, unsigned: bool) -> bytes:
    """``#8<8 digits><payload>``; `wide`: two bytes a point, `swapped`: the low one first."""
    payload = _payload(signed, swapped, unsigned).view(np.uint8) if wide else _bytes(signed, unsigned)
    return b"".join((b"#8%08d" % payload.nbytes, payload.data))


def _payload(signed: Words, swapped: bool, unsigned: bool) -> NDArray[np.uint16]:
    raw = np.ascontiguousarray(signed).view(np.uint16)
    if unsigned:
        raw = np.bitwise_xor(raw, np.uint16(0x8000))
    return raw.astype("<u2" if swapped else ">u2", copy=False)


def _bytes(signed: Words, unsigned: bool) -> NDArray[np.uint8]:
    raw = np.ascontiguousarray(signed).view(np.uint16) ^ np.uint16(0x8000)
    high = (raw >> 8).astype(np.uint8)
    high[(high == 0) & (raw != 0)] = 1
    return high if unsigned else high ^ np.uint8(0x80)
