"""Rigol DS1000Z, DS1000Z-E and DHO800/DHO900 oscilloscopes: channels triggered by an edge, read from memory in windows.

    :RUN; :ACQuire:MDEPth <n>; :STOP       the depth is taken only while the scope runs; rate = depth / (divisions x scale)
    :SINGle, then :TRIGger:STATus?         WAIT when it is ready, STOP when the record is complete
    :WAVeform:MODE RAW; :FORMat BYTE; :STARt <a>; :STOP <b>; :DATA?     #9<9 digits><bytes>, in stopped state only; DHO: WORD
    :WAVeform:PREamble?    format,type,points,count,xincrement,xorigin,xreference,yincrement,yorigin,yreference

    volts = (word - yorigin - yreference) yincrement          not the formula of others: yorigin is in words
    seconds after the trigger = (i - xreference) xincrement + xorigin

One window holds 250,000 bytes at most, so a record comes in parts. Right after :SINGle the status may still be that of before,
so the driver waits for WAIT. Four-channel models have no external trigger: the edge goes into a channel (`trigger_channel`),
which counts as one that is on, and channels that are on share rate and memory. One command goes in a message.

Source: MSO1000Z/DS1000Z Programming Guide, ":WAVeform" (p. 2-136 to 2-140), ":ACQuire:MDEPth", ":TRIGger:STATus?"; DS1000Z-E
Programming Guide p. 2-180 (windows); DHO800/DHO900 Programming Guide, April 2025, 3.3.2 (p. 20), 3.27.3 (p. 302), 3.28
(p. 404-413). Depth only while running: the package ds1054z 0.4.0. Largest window of a DHO: assumed, as it is not in its guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from drivers.edge_channel import EdgeAtChannel
from drivers.read_back import Setting
from drivers.scope_models import Model, Rails, known
from drivers.scope_records import Asked, Channel, Described, numbers_of, part
from drivers.scpi import Identity, Scpi
from drivers.scpi_apart import OneByOne
from drivers.scpi_digitizer import POSITION, RANGE
from drivers.time_bases import TimeBases
from drivers.waveform.record import Axis, Memory, Scale, Words

DIVISIONS = 8  # of the screen's height
DEPTH = "memory depth"


@dataclass(frozen=True, slots=True)
class Family:
    """The limits that models of a family share.

    Args:
        divisions: of the screen's width.
        form, code: of the words: how it is told, and its number in the preamble.
        kind: NumPy's name of a word.
        window: words that are read at once, at most.
        rails: words of a clipped input.
        rates_hz, depths: samples/s at most, and record lengths, with one, two, and more channels on.
    """

    divisions: int
    form: str
    code: int
    kind: str
    window: int
    rails: Rails
    rates_hz: tuple[float, float, float]
    depths: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


Z = Family(
    12, "BYTE", 0, "u1", 250_000, Rails(0, 255), (1e9, 500e6, 250e6),
    tuple(tuple(base * 10**power for power in range(4)) for base in (12_000, 6_000, 3_000)),  # type: ignore[arg-type]
)  # fmt: skip
DHO = Family(
    10, "WORD", 1, "<u2", 125_000, Rails(0, 0xFFF0), (1.25e9, 625e6, 312.5e6),
    ((1_000, 10_000, 100_000, 1_000_000, 5_000_000, 10_000_000, 25_000_000),
     (1_000, 10_000, 100_000, 1_000_000, 5_000_000, 10_000_000),
     (1_000, 10_000, 100_000, 1_000_000, 5_000_000)),
)  # fmt: skip
MODELS: dict[str, tuple[Family, bool]] = {  # with an external trigger or without
    "DS1054Z": (Z, False), "DS1074Z": (Z, False), "DS1104Z": (Z, False), "MSO1074Z": (Z, False), "MSO1104Z": (Z, False),
    "DS1102Z-E": (Z, True), "DS1202Z-E": (Z, True),
    "DHO802": (DHO, True), "DHO812": (DHO, True), "DHO804": (DHO, False), "DHO814": (DHO, False), "DHO914": (DHO, False),
    "DHO924": (DHO, False),
}  # fmt: skip


class RigolScope(EdgeAtChannel):
    """The scope, with one channel in use, or several that one trigger records; arguments as of EdgeAtChannel."""

    timed: ClassVar[tuple[str, ...]] = (RANGE, POSITION, DEPTH)
    inputs: ClassVar[Mapping[float, str]] = {1e6: ""}
    averaging = "no guide says that its memory holds the average, nor when all records of a single one were taken"
    speaks: ClassVar[type[Scpi]] = OneByOne
    lock: ClassVar[tuple[str, str]] = (":SYST:LOCK 1;:SYST:LOCK?", ":SYST:LOCK 0")

    def _limits(self, identity: Identity) -> Model:
        self._family, external = known(MODELS, identity, ", ".join(MODELS))
        self.rails = self._family.rails  # type: ignore[misc]
        self.form = (":WAV:FORM?", self._family.form)
        self._check_inputs(identity, external)
        on = len(self.channels) + (self._edge_channel > 0)
        depths, rate_hz = self._family.depths[min(on, 3) - 1], self._family.rates_hz[min(on, 3) - 1]
        self._bases = TimeBases(depths, self._family.divisions, rate_hz)
        return Model(rate_hz, Memory(1, depths[-1]))

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        header, tail = channel.header, channel.tail
        return (
            Setting(f"scale{tail}", f"{header}:SCAL?", unit="V"),
            Setting(f"offset{tail}", f"{header}:OFFS?", unit="V", tolerance=1e-6),
            Setting(f"display of the channel{tail}", f"{header}:DISP?", "flag"),
            Setting(f"coupling{tail}", f"{header}:COUP?", "word"),
            Setting(f"probe{tail}", f"{header}:PROB?"),
            Setting(f"inversion{tail}", f"{header}:INV?", "flag"),
            Setting(f"bandwidth limit{tail}", f"{header}:BWL?", "word"),
        )

    def _held_besides(self) -> tuple[Setting, ...]:
        return (
            Setting("trigger mode", ":TRIG:MODE?", "word"),
            Setting("trigger source", ":TRIG:EDGE:SOUR?", "word"),
            Setting("trigger level", ":TRIG:EDGE:LEV?", unit="V", tolerance=1e-6),
            Setting("trigger slope", ":TRIG:EDGE:SLOP?", "word"),
            Setting("acquisition", ":ACQ:TYPE?", "word"),
            Setting("time mode", ":TIM:MODE?", "word"),
            Setting(RANGE, ":TIM:MAIN:SCAL?", unit="s"),
            Setting(POSITION, ":TIM:MAIN:OFFS?", unit="s", tolerance=1e-13),
            Setting(DEPTH, ":ACQ:MDEP?", "word"),  # a number, or AUTO
            Setting("reading mode", ":WAV:MODE?", "word"),
            Setting("format", ":WAV:FORM?", "word"),
        )

    def _set_up(self) -> None:
        source = f"CHAN{self._edge_channel}" if self._edge_channel else "EXT"
        used = {*self.channels, *((self._edge_channel,) if self._edge_channel else ())}
        shown = [f":CHAN{n}:DISP {int(n in used)}" for n in sorted({1, *used})]
        screens = [
            command
            for one in self._channels
            for command in (
                f"{one.header}:COUP DC", f"{one.header}:PROB 1", f"{one.header}:VERN 1",
                f"{one.header}:SCAL {one.range_v / DIVISIONS:.6g}", f"{one.header}:OFFS {-one.offset_v:.6g}",
            )
        ]  # fmt: skip
        edge = (f":CHAN{self._edge_channel}:PROB 1", f":CHAN{self._edge_channel}:SCAL 1") if self._edge_channel else ()
        self._scpi.send(
            "*CLS", ":STOP", *shown, *screens, *edge, ":TRIG:MODE EDGE", f":TRIG:EDGE:SOUR {source}",
            f":TRIG:EDGE:LEV {self._trigger_v:.6g}", ":TRIG:EDGE:SLOP POS", ":TRIG:SWE NORM", ":ACQ:TYPE NORM",
            ":TIM:MODE MAIN", f":WAV:SOUR CHAN{self._channels[0].number}", ":WAV:MODE RAW", f":WAV:FORM {self._family.form}",
        )  # fmt: skip
        self._check_form()

    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        base = self._time_base(samples, rate_hz)
        self._scpi.send(
            ":RUN", f":TIM:MAIN:SCAL {base.scale_s:.9g}", f":TIM:MAIN:OFFS {start_s + 0.5 * base.span_s:.12g}",
            f":ACQ:MDEP {base.depth}", ":STOP",
        )  # fmt: skip
        self._took(":ACQ:MDEP?", base.depth, "points")
        self._took(":TIM:MAIN:SCAL?", base.scale_s, "s")

    def arm(self) -> None:
        """Wait for one trigger; see ScpiDigitizer.arm."""
        self._scpi.link.write(b":SING")
        self._armed(False, lambda: self._status() == "WAIT", "trigger status other than WAIT")

    def _runs(self) -> bool:
        return self._status() != "STOP"

    def _status(self) -> str:
        return self._scpi.ask(":TRIG:STAT?").upper()

    def _preamble(self, one: Channel) -> str:
        return self._scpi.ask(f"{self._source(one)}:WAV:PRE?")

    def _described(self, text: str, asked: Asked, one: Channel) -> Described:
        form, _, held, _, step_s, origin_s, reference, volts, origin, zero = numbers_of(text, 10, one.name)
        found = part(asked, Axis(origin_s - reference * step_s, step_s), round(held), Scale(volts, -origin * volts, zero))
        return self._checked(found, asked, one, f"{form:g}", f"{self._family.code:g}")

    def _words(self, one: Channel) -> Words:
        """Read a record in windows, each counted from 1, both ends included."""
        parts, source = [], self._source(one)
        for begin, stop in self._windows(one, self._family.window):
            ends = f"{source}:WAV:STAR {begin + 1};:WAV:STOP {stop};:WAV:DATA?"
            parts.append(self._scpi.ask_block(ends, self._family.kind, stop - begin))
        words: Words = np.concatenate(parts).astype(np.uint16)
        return words
