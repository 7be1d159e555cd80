"""Keysight InfiniiVision oscilloscopes (2000X, 3000T, 4000X, 1200): channels triggered from outside, read as raw words.

    :WAVeform:FORMat WORD; BYTeorder LSBFirst; UNSigned 1; POINts:MODE RAW; POINts <n>
    :WAVeform:PREamble?  format,type,points,count,xincrement,xorigin,xreference,yincrement,yorigin,yreference
    :WAVeform:DATA?      #8<8 digits><uint16...>

    volts = (word - yreference) yincrement + yorigin        seconds after the trigger = (i - xreference) xincrement + xorigin

Words with a meaning of their own: 0 a hole (nothing was acquired), 1 clipped low, 0xFFFF clipped high. Preamble numbers of
9.9E37 mean that there is no measurement. :SYSTem:LOCK locks the front panel. Channels 1 and 2, and 3 and 4, share a converter
and its memory: both of a pair on halve rate and record length (data sheets, "Maximum sample rate": half channel, all channels).

    :ACQuire:TYPE AVERage; COUNt <n>       an average is done after n edges; :AER? 1 before each; :WAVeform:COUNt? its records

Of an average 1000 points at most are read (2000 X-Series Programmer's Guide, p. 631, "AVERage Data"). That :SINGle takes all n
is assumed, and COUNt is asked after each.

Source: Keysight InfiniiVision 4000 X-Series Programmer's Guide, ":WAVeform Commands", ":ACQuire Commands", ":AER", and
"Synchronizing Acquisitions" (SINGle, wait for AER 1, trigger, wait until the Run bit of OPERegister:CONDition falls).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from drivers.read_back import Setting
from drivers.scope_models import Averaging, Model, Rails, beginnings, known, paired
from drivers.scope_records import Asked, Channel, Described, numbers_of
from drivers.scpi import Identity
from drivers.scpi_digitizer import POSITION, RANGE, ScpiDigitizer
from drivers.scpi_digitizer import VERIFY_EVERY as VERIFY_EVERY
from drivers.waveform.record import Axis, Memory, Scale, Words

RUNNING = 1 << 3  # of OPERegister:CONDition
WORD = 1  # format in the preamble
MODELS = {
    "DSOX1": Model(2e9, Memory(100, 1_000_000)),
    "DSOX2": Model(2e9, Memory(100, 1_000_000)),
    "DSOX3": Model(5e9, Memory(100, 4_000_000)),
    "DSOX4": Model(5e9, Memory(100, 4_000_000)),
    "MSOX2": Model(2e9, Memory(100, 1_000_000)),
    "MSOX3": Model(5e9, Memory(100, 4_000_000)),
    "MSOX4": Model(5e9, Memory(100, 4_000_000)),
}


class InfiniiVision(ScpiDigitizer):
    """The scope, with one channel in use, or several that one trigger records. The constructor resets it.

    Arguments as of ScpiDigitizer, and

    Args:
        input_ohm: 50 or 1e6.
    """

    inputs: ClassVar[Mapping[float, str]] = {50.0: "FIFT", 1e6: "ONEM"}
    rails: ClassVar[Rails] = Rails(1, 0xFFFF, hole=0)
    lock: ClassVar[tuple[str, str]] = (":SYST:LOCK 1;:SYST:LOCK?", ":SYST:LOCK 0")
    averaging = Averaging(
        65_536, (":ACQ:TYPE AVER", ":ACQ:COUN {}"), {"averages": ":ACQ:COUN?"},
        waits=lambda scpi, taken: bool(scpi.ask_int(":AER?")),  # set anew for every record of an average
        complete=lambda scpi, records: scpi.ask_int(":WAV:COUN?") == records, samples=1000,
    )  # fmt: skip

    def _limits(self, identity: Identity) -> Model:
        return paired(known(MODELS, identity, beginnings(MODELS)), self.channels)

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        header, tail = channel.header, channel.tail
        return (
            Setting(f"range{tail}", f"{header}:RANG?", unit="V"),
            Setting(f"offset{tail}", f"{header}:OFFS?", unit="V", tolerance=1e-6),
            Setting(f"display of the channel{tail}", f"{header}:DISP?", "flag"),
            Setting(f"coupling{tail}", f"{header}:COUP?", "word"),
            Setting(f"impedance{tail}", f"{header}:IMP?", "word"),
            Setting(f"probe{tail}", f"{header}:PROB?"),
            Setting(f"inversion{tail}", f"{header}:INV?", "flag"),
            Setting(f"bandwidth limit{tail}", f"{header}:BWL?", "flag"),
        )

    def _held_besides(self) -> tuple[Setting, ...]:
        source = (Setting("source of the words", ":WAV:SOUR?", "word"),) if len(self._channels) == 1 else ()
        return (
            Setting("trigger mode", ":TRIG:MODE?", "word"),
            Setting("trigger source", ":TRIG:EDGE:SOUR?", "word"),
            Setting("trigger level", ":TRIG:EDGE:LEV?", unit="V", tolerance=1e-6),
            Setting("trigger slope", ":TRIG:EDGE:SLOP?", "word"),
            Setting("trigger sweep", ":TRIG:SWE?", "word"),
            Setting("acquisition", ":ACQ:TYPE?", "word"),
            Setting("time mode", ":TIM:MODE?", "word"),
            Setting("time reference", ":TIM:REF?", "word"),
            Setting(RANGE, ":TIM:RANG?", unit="s"),
            Setting(POSITION, ":TIM:POS?", unit="s", tolerance=1e-13),
            *source,
            Setting("format", ":WAV:FORM?", "word"),
            Setting("byte order", ":WAV:BYT?", "word"),
            Setting("sign of the words", ":WAV:UNS?", "flag"),
        )

    def _set_up(self) -> None:
        self._scpi.send("*CLS", ":STOP")
        if all(channel.number != 1 for channel in self._channels):
            self._scpi.send(":CHAN1:DISP 0")  # *RST shows it, and a channel that is on may halve the rate of another
        for channel in self._channels:
            header = channel.header
            self._scpi.send(f"{header}:DISP 1", f"{header}:COUP DC", f"{header}:IMP {self._input}", f"{header}:PROB 1",
                            f"{header}:RANG {channel.range_v:.6g}", f"{header}:OFFS {channel.offset_v:.6g}")  # fmt: skip
        self._scpi.send(":TRIG:MODE EDGE", ":TRIG:EDGE:SOUR EXT", f":TRIG:EDGE:LEV {self._trigger_v:.6g}",
                        ":TRIG:EDGE:SLOP POS", ":TRIG:SWE NORM", *self._acquisition)  # fmt: skip
        self._scpi.send(
            f":WAV:SOUR CHAN{self._channels[0].number}", ":WAV:FORM WORD", ":WAV:BYT LSBF", ":WAV:UNS 1", ":WAV:POIN:MODE RAW"
        )
        order, _, unsigned = self._scpi.ask(":WAV:BYT?;:WAV:UNS?").partition(";")
        if not (order.upper().startswith("LSBF") and unsigned.lstrip("+") == "1"):
            raise self._refuse_form(f"{order}, unsigned {unsigned}", "LSBF, unsigned 1")

    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        """The record fills the screen; the position is the time of the middle of the screen after the trigger."""
        span_s = samples / rate_hz
        middle_s = start_s + 0.5 * span_s
        self._scpi.send(":TIM:MODE MAIN", ":TIM:REF CENT", f":TIM:RANG {span_s:.12g}", f":TIM:POS {middle_s:.12g}",
                        f":WAV:POIN {samples}")  # fmt: skip

    def arm(self) -> None:
        """Wait for one trigger; see ScpiDigitizer.arm."""
        armed = bool(self._scpi.ask_int(":SING;:AER?"))
        self._armed(armed, lambda: bool(self._scpi.ask_int(":AER?")), "arm event register 0")

    def _runs(self) -> bool:
        return bool(self._scpi.ask_int(":OPER:COND?") & RUNNING)

    def _preamble(self, one: Channel) -> str:
        return self._scpi.ask(f"{self._source(one)}:WAV:PRE?")

    def _described(self, text: str, asked: Asked, one: Channel) -> Described:
        form, _, points, _, step_s, origin_s, reference, volts, origin_v, zero = numbers_of(text, 10, one.name)
        axis = Axis(origin_s - reference * step_s, step_s)
        told = "1 (WORD)" if form == WORD else f"{form:g}"
        return self._checked(Described(round(points), Scale(volts, origin_v, zero), axis), asked, one, told, "1 (WORD)")

    def _words(self, one: Channel) -> Words:
        words: Words = self._scpi.ask_block(f"{self._source(one)}:WAV:DATA?", "<u2", one.points)
        return words
