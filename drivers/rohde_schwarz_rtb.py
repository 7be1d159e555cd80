"""Rohde & Schwarz RTB2000 oscilloscopes: channels triggered from outside, read as 16-bit words.

    ACQuire:POINts:AUTomatic OFF; ACQuire:POINts <n>; TIMebase:ACQTime <n / rate>        a record has one of a few lengths
    SINGle, then STATus:OPERation:CONDition? bit 3       waits for a trigger; ACQuire:STATe? COMP when the record is complete
    ACQuire:TYPE AVERage; AVERage:COUNt <n>; NSINgle:COUNt <n>      SINGle takes n records then; AVERage:COMPlete? 1
    STATus:OPERation?                                    bit 3: it began to wait for a trigger since the last question
    FORMat UINT,16; FORMat:BORDer LSBF; CHANnel1:DATA:POINts MAX; CHANnel1:DATA?         #<d><bytes><uint16...>, all of it
    CHANnel1:DATA:HEADer?      start,stop in s,samples,values a sample

    volts = word YINCrement + YORigin          seconds after the trigger = i XINCrement + XORigin

*RST gives text and big-endian bytes. Words hold 10 bits from the left. Channels 1 and 2, and 3 and 4, share a converter. The
offset is the voltage at the middle of the screen. The external trigger's level is LEVel5. The front panel has no lock.

Source: R&S RTB2000 User Manual 1333.1611.02, "Reading waveform data in unsigned integer format" (version 06, p. 259),
"FORMat[:DATA]" (p. 369), "CHANnel<m>:DATA:POINts", "ACQuire:STATe", "STATus:OPERation"; data sheet (2.5 GSa/s and 20 Msamples
interleaved). "SINGle", "ACQuire:NSINgle:COUNt", "ACQuire:AVERage" are read in the RTM2 User Manual (p. 414, 417), the largest
count in PyMeasure 0.16 and QCoDeS. That TIMebase:ACQTime takes any time is assumed from programs of others; it is read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from drivers.read_back import Setting
from drivers.scope_models import Averaging, Model, Rails, paired, unknown
from drivers.scope_records import Asked, Channel, Described, numbers_of, part
from drivers.scpi import Identity, Scpi
from drivers.scpi_digitizer import POSITION, RANGE, ScpiDigitizer
from drivers.waveform.record import Axis, Memory, Scale, Words
from hil.errors import ConfigError

DIVISIONS = 10  # that CHANnel:RANGe spans
WAITING = 1 << 3  # of STATus:OPERation:CONDition
LENGTH = "record length"
LENGTHS = (*(digit * 10**power for power in (4, 5, 6) for digit in (1, 2, 5)), 10_000_000, 20_000_000)


def _waits(scpi: Scpi, taken: int) -> bool:
    """Tell whether the scope has begun to wait since the last question: reading the event register clears it."""
    del taken  # it does not count records
    return bool(scpi.ask_int(":STAT:OPER?") & WAITING)


class RohdeSchwarzRTB(ScpiDigitizer):
    """The scope, with one channel in use, or several that one trigger records; arguments as of ScpiDigitizer."""

    timed: ClassVar[tuple[str, ...]] = (RANGE, POSITION, LENGTH)
    inputs: ClassVar[Mapping[float, str]] = {1e6: "DCL"}
    rails: ClassVar[Rails] = Rails(0, 0xFFC0)
    hide: ClassVar[str] = ":CHAN1:STAT OFF"
    plain: ClassVar[str] = ":ACQ:TYPE REFR"
    averaging = Averaging(
        100_000,
        (":ACQ:TYPE AVER", ":ACQ:AVER:COUN {}", ":ACQ:NSIN:COUN {}", f":STAT:OPER:PTR {WAITING}", ":STAT:OPER:NTR 0"),
        {"averages": ":ACQ:AVER:COUN?", "records of a single acquisition": ":ACQ:NSIN:COUN?"},
        waits=_waits, complete=lambda scpi, records: scpi.ask_bool(":ACQ:AVER:COMP?"),
    )  # fmt: skip
    form = (":FORM?;:FORM:BORD?", "UINT,16;LSBF")
    _edge_at = "the scope's EXT TRIG IN"

    def _limits(self, identity: Identity) -> Model:
        if not identity.model.upper().startswith("RTB"):
            raise unknown(identity, "RTB2002, RTB2004")
        self._length = LENGTHS[0]
        return paired(Model(2.5e9, Memory(1, LENGTHS[-1])), self.channels)

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        header, tail = channel.header, channel.tail
        return (
            Setting(f"range{tail}", f"{header}:RANG?", unit="V"),
            Setting(f"offset{tail}", f"{header}:OFFS?", unit="V", tolerance=1e-6),
            Setting(f"position{tail}", f"{header}:POS?", unit="div", tolerance=1e-6),
            Setting(f"display of the channel{tail}", f"{header}:STAT?", "flag"),
            Setting(f"coupling{tail}", f"{header}:COUP?", "word"),
            Setting(f"probe{tail}", f":PROB{channel.number}:SET:ATT:MAN?"),
            Setting(f"polarity{tail}", f"{header}:POL?", "word"),
            Setting(f"bandwidth limit{tail}", f"{header}:BAND?", "word"),
        )

    def _held_besides(self) -> tuple[Setting, ...]:
        return (
            Setting("trigger type", ":TRIG:A:TYPE?", "word"),
            Setting("trigger source", ":TRIG:A:SOUR?", "word"),
            Setting("trigger level", ":TRIG:A:LEV5?", unit="V", tolerance=1e-6),
            Setting("trigger slope", ":TRIG:A:EDGE:SLOP?", "word"),
            Setting("trigger mode", ":TRIG:A:MODE?", "word"),
            Setting("acquisition", ":ACQ:TYPE?", "word"),
            Setting(RANGE, ":TIM:ACQT?", unit="s"),
            Setting(POSITION, ":TIM:POS?", unit="s", tolerance=1e-13),
            Setting(LENGTH, ":ACQ:POIN?"),
            Setting("format", ":FORM?", "word"),
            Setting("byte order", ":FORM:BORD?", "word"),
        )

    def _screen_of(self, one: Channel) -> tuple[str, ...]:
        return (
            f"{one.header}:STAT ON", f"{one.header}:COUP {self._input}", f"{one.header}:POL NORM", f"{one.header}:BAND FULL",
            f":PROB{one.number}:SET:ATT:MAN 1", f"{one.header}:POS 0", f"{one.header}:RANG {one.range_v:.6g}",
            f"{one.header}:OFFS {one.offset_v:.6g}", f"{one.header}:DATA:POIN MAX",
        )  # fmt: skip

    def _set_up(self) -> None:
        rest = (
            ":TRIG:A:TYPE EDGE", ":TRIG:A:SOUR EXT", f":TRIG:A:LEV5 {self._trigger_v:.6g}", ":TRIG:A:EDGE:SLOP POS",
            ":TRIG:A:MODE NORM", *self._acquisition, ":ACQ:POIN:AUT OFF", ":TIM:REF 50", ":FORM UINT,16", ":FORM:BORD LSBF",
        )  # fmt: skip
        self._send_screens(self._screen_of, rest, self._held_volts)

    def _held_volts(self, one: Channel) -> tuple[tuple[str, float], ...]:
        return (f"{one.header}:RANG?", one.range_v), (f"{one.header}:OFFS?", one.offset_v)

    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        """The record is longer than what is asked for: its middle is where that of what is asked for is."""
        length = next((length for length in LENGTHS if length >= samples and length <= self.memory.most), None)
        if length is None:
            raise ConfigError("the scope has no such record length", where=self._name, got=f"{samples} samples",
                              allowed=f"up to {LENGTHS[-1]}", todo="use a smaller batch")  # fmt: skip
        self._length, span_s = length, length / rate_hz
        middle_s = start_s + 0.5 * span_s
        self._scpi.send(f":ACQ:POIN {length}", f":TIM:ACQT {span_s:.12g}", f":TIM:POS {middle_s:.12g}")
        self._took(":ACQ:POIN?", length, "points")
        self._took(":TIM:ACQT?", span_s, "s")
        self._took(":TIM:POS?", middle_s, "s")

    def arm(self) -> None:
        """Wait for one trigger; see ScpiDigitizer.arm."""
        self._scpi.link.write(b":SING" if self._average is None else b":ACQ:AVER:RES;:SING")
        self._armed(False, lambda: bool(self._scpi.ask_int(":STAT:OPER:COND?") & WAITING), "no wait for a trigger")
        if self._average is not None:
            _waits(self._scpi, 0)  # the wait for the first edge is no news

    def _runs(self) -> bool:
        return self._scpi.ask(":ACQ:STAT?").upper() != "COMP"

    def _preamble(self, one: Channel) -> str:
        fields = ";".join(f"{one.header}:DATA:{field}?" for field in ("XOR", "XINC", "YOR", "YINC"))
        return self._scpi.ask(f":FORM?;:FORM:BORD?;{one.header}:DATA:HEAD?;{fields}")

    def _described(self, text: str, asked: Asked, one: Channel) -> Described:
        form, order, numbers = text.split(";", 2)
        *_, held, values, start_s, step_s, origin_v, volts = numbers_of(numbers.replace(";", ","), 8, one.name)
        self._length = round(held)
        found = part(asked, Axis(start_s, step_s), self._length, Scale(volts, origin_v, 0.0))
        return self._checked(found, asked, one, f"{form};{order};{values:g}".upper(), f"{self.form[1]};1")

    def _words(self, one: Channel) -> Words:
        """Read a record, which comes whole; return the part that was asked for."""
        words: Words = self._scpi.ask_block(f"{one.header}:DATA?", "<u2", self._length)
        return words[one.first : one.first + one.points]
