"""The record of a channel: words, and what is needed to read them.

    format,type,points,count,xincrement,xorigin,xreference,yincrement,yorigin,yreference
    volts = (word - yreference) yincrement + yorigin               seconds = (i - xreference) xincrement + xorigin

Source: Keysight InfiniiVision 3000 X-Series Programmer's Guide, ":WAVeform:PREamble", ":WAVeform:DATA".
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from sim_devices.instruments import converter
from sim_devices.instruments.converter import Words
from sim_devices.instruments.sampling import Window

FORMATS, TYPES = {"BYTE": 0, "WORD": 1, "ASC": 4}, {"NORM": 0, "AVER": 2, "HRES": 3}
NR3 = "+.8E"
NOT_A_NUMBER = 9.9e37  # SCPI-1999 volume 1, 7.2.1.5, as this maker uses it: the measurement could not be made


@dataclass(frozen=True, slots=True)
class Wire:
    """Format of a record on the wire: FORMat, BYTeorder LSBFirst, UNSigned."""

    form: str
    swapped: bool
    unsigned: bool


@dataclass(frozen=True, slots=True)
class Record:
    """A record of one channel of a scope.

    Args:
        words: (n,) signed, see converter.py.
        range_v, offset_v: of the channel when it was taken, NaN if the measurement is impossible.
        kind: ACQuire:TYPE.
        averaged: how many records it is the mean of.
    """

    words: Words
    window: Window
    range_v: float
    offset_v: float
    kind: str
    averaged: int = 1

    def thinned(self, limit: float) -> Record:
        """Return every d-th point, d the smallest number that leaves at most `limit`."""
        every = max(1, -(-len(self.words) // int(min(limit, 1e9))))
        if every == 1:
            return self
        words = self.words[::every]
        return replace(self, words=words, window=Window(self.window.start_s, self.window.rate_hz / every, len(words)))

    def preamble(self, wire: Wire) -> str:
        """Write the ten fields of :WAVeform:PREamble? for this record in the format of `wire`."""
        codes = 65536 if wire.form == "WORD" else 256
        reference = codes // 2 if wire.unsigned else 0
        what = f"{FORMATS[wire.form]:+d},{TYPES[self.kind]:+d},{len(self.words):+d},{self.averaged:+d}"
        axis = f"{1 / self.window.rate_hz:{NR3}},{self.window.start_s:{NR3}},+0"
        step, origin = (NOT_A_NUMBER if math.isnan(v) else v for v in (self.range_v / codes, self.offset_v))
        return f"{what},{axis},{step:{NR3}},{origin:{NR3}},{reference:+d}"

    def data(self, wire: Wire) -> bytes:
        """Write the payload of :WAVeform:DATA? in the format of `wire`; NaN where a measurement is impossible."""
        if wire.form == "ASC":
            volts = np.nan_to_num(self.words * (self.range_v / 65536) + self.offset_v, nan=NOT_A_NUMBER)
            text = ",".join(f"{v:{NR3}}" for v in volts).encode()
            return b"#8%08d" % len(text) + text
        return converter.block(self.words, wide=wire.form == "WORD", swapped=wire.swapped, unsigned=wire.unsigned)

    def snapshot(self) -> dict[str, object]:
        """Return the record as JSON values, its words in base64."""
        words = base64.b64encode(self.words.astype("<i2").tobytes()).decode()
        return {
            "words": words,
            "window": asdict(self.window),
            "range_v": self.range_v,
            "offset_v": self.offset_v,
            "kind": self.kind,
            "averaged": self.averaged,
        }

    @classmethod
    def restored(cls, state: Mapping[str, object]) -> Record:
        """Make a record from a snapshot."""
        words = np.frombuffer(base64.b64decode(str(state["words"])), "<i2").astype(np.int16)
        window = state["window"]
        if not isinstance(window, dict):
            raise TypeError("window")
        start_s, rate_hz, points = float(window["start_s"]), float(window["rate_hz"]), window["points"]
        kind, averaged = str(state["kind"]), int(str(state["averaged"]))
        if points != len(words) or not points or not 0 < rate_hz < math.inf or kind not in TYPES or averaged < 1:
            raise ValueError(f"{len(words)} words for {points} points at {rate_hz} a second, {kind}")
        numbers = float(str(state["range_v"])), float(str(state["offset_v"]))
        return cls(words, Window(start_s, rate_hz, len(words)), *numbers, kind, averaged)
