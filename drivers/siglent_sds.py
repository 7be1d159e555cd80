"""Siglent SDS800X HD, SDS1000X HD and SDS2000X HD oscilloscopes: channels triggered from outside, read as 12-bit words.

    :ACQuire:MMANagement FMDepth; :ACQuire:MDEPth <n>      the depth is kept; rate = depth / (10 scale)
    :TRIGger:MODE SINGle, then :TRIGger:STATus?            Arm, Ready when it may come, Trig'd, Stop
    :WAVeform:SOURce C1; :WIDTh WORD; :STARt <first>; :POINt <n>; :DATA?       #9<9 digits><int16...>, little-endian, from 0
    :WAVeform:MAXPoint?                                    points in one answer
    :WAVeform:PREamble?     #9000000346<descriptor>: little-endian; 0x9C float V/div, 0xA0 float offset, 0xA4 float codes/div,
                            0xAC int16 bits, 0xB0 float s a sample, 0xB4 double delay, 0x74 int32 points, 0x148 float probe

    volts = code / codes_per_division * volts_per_division - offset
    seconds after the trigger = delay - 5 scale + i interval

The offset moves the trace: at the middle of the screen stands minus the offset. One command goes in a message. Event registers
and an error queue are not in the guide, so what is set is read back.

Source: Siglent SDS Series Programming Guide EN11D, February 2023, ":ACQuire", ":TIMebase", ":TRIGger", ":WAVeform" with its
example of a descriptor; form and offsets as PyMeasure 0.16 reads them (siglenttechnologies/siglent_sds1000xhd.py).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from drivers.read_back import Setting
from drivers.scope_models import Model, Rails, unknown
from drivers.scope_records import CENTRE, Asked, Channel, Described, part, unsigned
from drivers.scpi import Identity, Scpi
from drivers.scpi_apart import Unregistered
from drivers.scpi_digitizer import POSITION, RANGE, ScpiDigitizer
from drivers.time_bases import TimeBases
from drivers.waveform.record import Axis, Memory, Scale, Words
from hil.errors import InstrumentError, NotAReading

DIVISIONS, ACROSS = 8, 10
DEPTH = "memory depth"
WORDS = {10_000: "10K", 100_000: "100K", 1_000_000: "1M", 10_000_000: "10M"}
DESCRIPTOR_BYTES = 346
MODELS = {"SDS8": 2e9, "SDS1": 2e9, "SDS2": 2e9}  # samples/s with one channel on; …X HD


class SiglentSDS(ScpiDigitizer):
    """The scope, with one channel in use, or several that one trigger records. The constructor resets it.

    Arguments as of ScpiDigitizer, and

    Args:
        input_ohm: 1e6; the SDS2000X HD has 50 besides.
    """

    timed: ClassVar[tuple[str, ...]] = (RANGE, POSITION, DEPTH)
    inputs: ClassVar[Mapping[float, str]] = {50.0: "FIFTy", 1e6: "ONEMeg"}
    rails: ClassVar[Rails] = Rails(0, 0xFFF0)
    beginning: ClassVar[tuple[str, ...]] = ("*RST",)
    stop: ClassVar[str] = ":TRIG:STOP"
    hide: ClassVar[str] = ":CHAN1:SWIT OFF"
    form = (":WAV:WIDT?;:WAV:BYT?", "WORD;LSB")
    source: ClassVar[str] = ":WAV:SOUR C{}"
    speaks: ClassVar[type[Scpi]] = Unregistered
    averaging = "its guide does not say that a single acquisition takes all records of an average, nor that its memory holds it"

    def _limits(self, identity: Identity) -> Model:
        name = identity.model.upper().replace(" ", "")
        rate = next((rate for prefix, rate in MODELS.items() if name.startswith(prefix) and name.endswith("HD")), None)
        if rate is None:
            raise unknown(identity, ", ".join(f"{prefix}… HD" for prefix in MODELS))
        rate /= 1 if len(self.channels) == 1 else 2 if len(self.channels) == 2 else 4
        self._bases = TimeBases(tuple(WORDS), ACROSS, rate)
        return Model(rate, Memory(1, max(WORDS)))

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        header, tail = channel.header, channel.tail
        return (
            Setting(f"scale{tail}", f"{header}:SCAL?", unit="V"),
            Setting(f"offset{tail}", f"{header}:OFFS?", unit="V", tolerance=1e-6),
            Setting(f"channel{tail}", f"{header}:SWIT?", "flag"),
            Setting(f"coupling{tail}", f"{header}:COUP?", "word"),
            Setting(f"impedance{tail}", f"{header}:IMP?", "word"),
            Setting(f"probe{tail}", f"{header}:PROB?"),
            Setting(f"inversion{tail}", f"{header}:INV?", "flag"),
            Setting(f"bandwidth limit{tail}", f"{header}:BWL?", "word"),
        )

    def _held_besides(self) -> tuple[Setting, ...]:
        return (
            Setting("trigger type", ":TRIG:TYPE?", "word"),
            Setting("trigger source", ":TRIG:EDGE:SOUR?", "word"),
            Setting("trigger level", ":TRIG:EDGE:LEV?", unit="V", tolerance=1e-6),
            Setting("trigger slope", ":TRIG:EDGE:SLOP?", "word"),
            Setting("acquisition", ":ACQ:TYPE?", "word"),
            Setting(RANGE, ":TIM:SCAL?", unit="s"),
            Setting(POSITION, ":TIM:DEL?", unit="s", tolerance=1e-13),
            Setting(DEPTH, ":ACQ:MDEP?", "word"),
            Setting("format", ":WAV:WIDT?", "word"),
        )

    def _held_volts(self, one: Channel) -> tuple[tuple[str, float], ...]:
        return (f"{one.header}:SCAL?", one.range_v / DIVISIONS), (f"{one.header}:OFFS?", -one.offset_v)

    def _screen_of(self, one: Channel) -> tuple[str, ...]:
        return (
            f"{one.header}:SWIT ON", f"{one.header}:COUP DC", f"{one.header}:IMP {self._input}", f"{one.header}:PROB VALue,1",
            f"{one.header}:SCAL {one.range_v / DIVISIONS:.6g}", f"{one.header}:OFFS {-one.offset_v:.6g}",
        )  # fmt: skip

    def _set_up(self) -> None:
        rest = (
            ":TRIG:TYPE EDGE", ":TRIG:EDGE:SOUR EX", f":TRIG:EDGE:LEV {self._trigger_v:.6g}", ":TRIG:EDGE:SLOP RISing",
            ":ACQ:TYPE NORMal", ":ACQ:MMAN FMDepth", ":WAV:WIDT WORD", ":WAV:BYT LSB", ":WAV:INT 1",
            self.source.format(self._channels[0].number),
        )  # fmt: skip
        self._send_screens(self._screen_of, rest, self._held_volts)
        self._took(":TRIG:EDGE:LEV?", self._trigger_v, "V")
        self._most_read = max(1, self._scpi.ask_int(":WAV:MAXP?"))

    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        base = self._time_base(samples, rate_hz)
        middle_s = start_s + 0.5 * base.span_s
        self._scpi.send(f":TIM:SCAL {base.scale_s:.9g}", f":TIM:DEL {middle_s:.12g}", f":ACQ:MDEP {WORDS[base.depth]}")
        self._took(":TIM:SCAL?", base.scale_s, "s")
        self._took(":TIM:DEL?", middle_s, "s")
        self._took(":ACQ:SRAT?", base.rate_hz, "Sa/s")

    def arm(self) -> None:
        """Wait for one trigger; see ScpiDigitizer.arm."""
        self._scpi.link.write(b":TRIG:MODE SINGle")
        self._armed(False, lambda: self._status() == "READY", "trigger status other than Ready")

    def _runs(self) -> bool:
        return self._status() != "STOP"

    def _status(self) -> str:
        return self._scpi.ask(":TRIG:STAT?").upper()

    def _preamble(self, one: Channel) -> str:
        block = self._scpi.ask_block(f"{self._source(one)}:WAV:PRE?", "u1", DESCRIPTOR_BYTES)
        return bytes(block).hex()

    def _described(self, text: str, asked: Asked, one: Channel) -> Described:
        block = bytes.fromhex(text)
        per_division, offset, codes = struct.unpack_from("<fff", block, 0x9C)
        (bits,), (step_s, delay_s) = struct.unpack_from("<h", block, 0xAC), struct.unpack_from("<fd", block, 0xB0)
        (held,), (probe,) = struct.unpack_from("<i", block, 0x74), struct.unpack_from("<f", block, 0x148)
        if not (codes > 0 and per_division > 0 and 0 < step_s < 1e3 and probe > 0 and held > 0):
            raise NotAReading("the preamble says that there is no measurement", where=one.name, got=text[0x138 : 0x138 + 80])
        base = self._time_base(asked[0], asked[1])
        exact_s = 1 / base.rate_hz  # the descriptor has it in single precision
        if abs(step_s / exact_s - 1) > 1e-6:
            raise InstrumentError("the scope recorded at another rate", where=one.name, got=f"{step_s:g} s a sample",
                                  allowed=f"{exact_s:g} s", todo="leave the time base alone")  # fmt: skip
        scale = Scale(per_division * probe / codes, -offset * probe, CENTRE)
        found = part(asked, Axis(delay_s - 0.5 * base.span_s, exact_s), held, scale)
        return self._checked(found, asked, one, f"{bits} bits", f"{max(bits, 9)} bits")

    def _words(self, one: Channel) -> Words:
        """Read a record in parts; codes are signed, and are returned shifted, so that no word is negative."""
        parts, source = [], self._source(one)
        for begin, end in self._windows(one, self._most_read):
            ends = f"{source}:WAV:STAR {begin};:WAV:POIN {end - begin};:WAV:DATA?"
            parts.append(self._scpi.ask_block(ends, "<i2", end - begin))
        return unsigned(np.concatenate(parts))
