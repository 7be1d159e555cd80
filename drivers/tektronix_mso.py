"""Tektronix 2, 4, 5 and 6 Series MSO oscilloscopes: channels triggered from outside, read as 16-bit words.

    HORizontal:MODe MANual; HORizontal:MODe:SAMPLERate <Sa/s>; HORizontal:MODe:RECOrdlength <n>
    HORizontal:DELay:MODe ON; HORizontal:DELay:TIMe <s>          the middle of the record, after the trigger
    ACQuire:STOPAfter SEQuence; ACQuire:STATE RUN       one record; TRIGger:STATE? says READY, ACQuire:STATE? 0 when done
    ACQuire:MODe AVErage; NUMAVg <n>                    one record is then the mean of n, 16 bits; ACQuire:NUMACq? says how many
    DATa:SOUrce CH1; ENCdg SRIbinary; WIDth 2; STARt <a>; STOP <b>; CURVe?      #<d><bytes><int16...>, both ends included

    volts = (word - YOFf) YMUlt + YZEro          seconds after the trigger = XZEro + (i - PT_Off) XINcr

How words are coded is not remembered but asked for (BYT_Nr, BN_Fmt, BYT_Or): *RST gives big-endian bytes, and SR and RI differ
in the order alone. XZEro and PT_Off belong to DATa:STARt, so they are asked for with STARt 1. Errors are events: ALLEv? has
those that were there at the last *ESR?. A raw socket (port 4000) must be in the mode "none", not "terminal".

Source: 4/5/6 Series MSO Programmer Manual (077-1305), "Waveform transfer", "Horizontal", "Acquisition", "Trigger", "Status and
events"; data sheets (10 divisions; 6.25 GSa/s, 2 Series 1.25 GSa/s with all channels). The ladder of rates is assumed: 1, 2, 5,
10, ... below the highest; the rate is read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from drivers.read_back import Setting
from drivers.scope_models import Averaging, Model, Rails, beginnings, known
from drivers.scope_records import CENTRE, Channel, Described, Shape, numbers_of, part, unsigned
from drivers.scpi import POWER_ON, Identity, Scpi, reading
from drivers.scpi_digitizer import POSITION, RANGE, ScpiDigitizer
from drivers.time_bases import Rates
from drivers.waveform.record import Axis, Memory, Scale, Words

DIVISIONS = 10  # of the screen's height
LEAST = 1_000  # points of a record
LENGTH = "record length"
LADDER = tuple(digit * 10**power for power in range(9) for digit in (1, 2, 5))
USUAL = frozenset({0, 1, 401, 402, 403})  # events that are no errors: none, power on, operation complete, user request
MODELS = {
    "MSO2": Model(1.25e9, Memory(LEAST, 10_000_000)),
    "MSO4": Model(6.25e9, Memory(LEAST, 31_250_000)),
    "MSO5": Model(6.25e9, Memory(LEAST, 62_500_000)),
    "MSO6": Model(6.25e9, Memory(LEAST, 62_500_000)),
}


class Events(Scpi):
    """A conversation with an instrument whose errors are events. Arguments as of Scpi."""

    def errors(self) -> tuple[str, ...]:
        """Read the register, which makes the events of now readable, then all events; return those that are errors."""
        with self._link.transaction():
            self.power_lost = self.power_lost or bool(self.ask_int("*ESR?") & POWER_ON)
            reply = self.ask(":ALLEV?")
        codes = reply.split(",")[::2] if '"' not in reply else [part.strip(" ,") for part in reply.split('"')[::2]]
        texts = reply.split('"')[1::2]
        try:
            found = [(int(code), text) for code, text in zip(codes, texts, strict=False)]
        except ValueError as error:
            raise self._nonsense(":ALLEV?", reply, 'code,"text",...') from error
        return tuple(f'{code},"{text}"' for code, text in found if code not in USUAL)


def _waits(scpi: Scpi, taken: int) -> bool:
    count, _, state = scpi.ask(":ACQ:NUMAC?;:TRIG:STATE?").partition(";")
    return state.upper() == "READY" and int(reading(count)) >= taken


class TektronixMSO(ScpiDigitizer):
    """The scope, with one channel in use, or several that one trigger records. The constructor resets it.

    Arguments as of ScpiDigitizer, and

    Args:
        input_ohm: 50 or 1e6; a 2 Series has 1e6 alone.
    """

    timed: ClassVar[tuple[str, ...]] = (RANGE, POSITION, LENGTH)
    inputs: ClassVar[Mapping[float, str]] = {50.0: "50", 1e6: "1E6"}
    rails: ClassVar[Rails] = Rails(0, 0xFFF0)
    beginning: ClassVar[tuple[str, ...]] = ("*RST", "*CLS", ":HEAD 0", ":VERB 0")
    stop: ClassVar[str] = ":ACQ:STATE STOP"
    speaks: ClassVar[type[Scpi]] = Events
    hide: ClassVar[str] = ":DIS:GLO:CH1:STATE 0"
    plain: ClassVar[str] = ":ACQ:MOD SAM"
    averaging = Averaging(
        10_240, (":ACQ:MOD AVE", ":ACQ:NUMAV {}"), {"averages": ":ACQ:NUMAV?"}, waits=_waits,
        complete=lambda scpi, records: scpi.ask_int(":ACQ:NUMAC?") == records,
    )  # fmt: skip
    form = (":WFMO:BYT_N?;:WFMO:BN_F?;:WFMO:BYT_O?", "2;RI;LSB")
    _edge_at = "the scope's AUX IN"

    def _limits(self, identity: Identity) -> Model:
        model = known(MODELS, identity, beginnings(MODELS))
        self._bases = Rates(model.rate_hz, LADDER)
        self._points = model.memory.least
        return model

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        header, tail = f":CH{channel.number}", channel.tail
        return (
            Setting(f"scale{tail}", f"{header}:SCA?", unit="V"),
            Setting(f"offset{tail}", f"{header}:OFFS?", unit="V", tolerance=1e-6),
            Setting(f"position{tail}", f"{header}:POS?", unit="div", tolerance=1e-6),
            Setting(f"display of the channel{tail}", f":DIS:GLO:CH{channel.number}:STATE?", "flag"),
            Setting(f"coupling{tail}", f"{header}:COUP?", "word"),
            Setting(f"impedance{tail}", f"{header}:TER?", unit="ohm"),
            Setting(f"probe{tail}", f"{header}:PRO:GAIN?"),
            Setting(f"external attenuation{tail}", f"{header}:PROBEF:EXTA?"),
            Setting(f"inversion{tail}", f"{header}:INV?", "flag"),
            Setting(f"bandwidth limit{tail}", f"{header}:BAN?", unit="Hz"),
        )

    def _held_besides(self) -> tuple[Setting, ...]:
        return (
            Setting("trigger type", ":TRIG:A:TYP?", "word"),
            Setting("trigger source", ":TRIG:A:EDGE:SOU?", "word"),
            Setting("trigger level", ":TRIG:AUXL?", unit="V", tolerance=1e-6),
            Setting("trigger slope", ":TRIG:A:EDGE:SLO?", "word"),
            Setting("trigger mode", ":TRIG:A:MOD?", "word"),
            Setting("acquisition", ":ACQ:MOD?", "word"),
            Setting("stop", ":ACQ:STOPA?", "word"),
            Setting("horizontal mode", ":HOR:MOD?", "word"),
            Setting("delay mode", ":HOR:DEL:MOD?", "flag"),
            Setting(RANGE, ":HOR:MODE:SAMPLER?", unit="Sa/s"),
            Setting(POSITION, ":HOR:DEL:TIM?", unit="s", tolerance=1e-13),
            Setting(LENGTH, ":HOR:MODE:RECO?"),
            Setting("encoding", ":DAT:ENC?", "word"),
            Setting("width of the words", ":DAT:WID?"),
        )

    def _screen_of(self, one: Channel) -> tuple[str, ...]:
        return (
            f":DIS:GLO:CH{one.number}:STATE 1", f":CH{one.number}:COUP DC", f":CH{one.number}:TER {self._input}",
            f":CH{one.number}:INV 0", f":CH{one.number}:POS 0", f":CH{one.number}:SCA {one.range_v / DIVISIONS:.6g}",
            f":CH{one.number}:OFFS {one.offset_v:.6g}",
        )  # fmt: skip

    def _set_up(self) -> None:
        rest = (
            ":TRIG:A:TYP EDGE", ":TRIG:A:EDGE:SOU AUX", f":TRIG:AUXL {self._trigger_v:.6g}", ":TRIG:A:EDGE:SLO RISE",
            ":TRIG:A:MOD NORM", *self._acquisition, ":ACQ:STOPA SEQ", ":HOR:MOD MAN", ":HOR:DEL:MOD 1",
            f":DAT:SOU CH{self._channels[0].number}", ":DAT:ENC SRI", ":DAT:WID 2",
        )  # fmt: skip
        self._send_screens(self._screen_of, rest, self._held_volts)

    def _held_volts(self, one: Channel) -> tuple[tuple[str, float], ...]:
        return (f":CH{one.number}:SCA?", one.range_v / DIVISIONS), (f":CH{one.number}:OFFS?", one.offset_v)

    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        assert isinstance(self._bases, Rates)
        rate = self._bases.clock_hz / self._bases.divider(rate_hz, self._name)
        self._points = max(LEAST, round(samples * rate / rate_hz))
        middle_s = start_s + 0.5 * self._points / rate
        self._scpi.send(f":HOR:MODE:SAMPLER {rate:.9g}", f":HOR:MODE:RECO {self._points}", f":HOR:DEL:TIM {middle_s:.12g}")
        self._took(":HOR:MODE:SAMPLER?", rate, "Sa/s")
        self._took(":HOR:MODE:RECO?", self._points, "points")

    def arm(self) -> None:
        """Wait for one trigger; see ScpiDigitizer.arm."""
        self._scpi.link.write(b":ACQ:STATE RUN")
        self._armed(False, lambda: self._scpi.ask(":TRIG:STATE?").upper() == "READY", "trigger state other than READY")

    def _runs(self) -> bool:
        return self._scpi.ask_bool(":ACQ:STATE?")

    def _preamble(self, one: Channel) -> str:
        fields = ("BYT_N", "BN_F", "BYT_O", "NR_P", "XIN", "XZE", "PT_O", "YMU", "YOF", "YZE")
        asked = ";".join(f":WFMO:{field}?" for field in fields)
        return self._scpi.ask(f":DAT:SOU CH{one.number};:DAT:STAR 1;:DAT:STOP {self._points};{asked}")

    def _described(self, text: str, shape: Shape, one: Channel) -> Described:
        *form, numbers = text.split(";", 3)
        held, step_s, zero_s, trigger, volts, zero, origin_v = numbers_of(numbers.replace(";", ","), 7, one.name)
        axis = Axis(zero_s - trigger * step_s, step_s)
        found = part(shape, axis, round(held), Scale(volts, origin_v, zero + CENTRE))
        return self._checked(found, shape, one, ";".join(form).upper().lstrip("+"), self.form[1])

    def _words(self, one: Channel) -> Words:
        """Read signed words; they are returned shifted, so that none is negative."""
        ends = f":DAT:STAR {one.first + 1};:DAT:STOP {one.first + one.points}"
        return unsigned(self._scpi.ask_block(f":DAT:SOU CH{one.number};{ends};:CURV?", "<i2", one.points))
