"""Speaks to Tektronix oscilloscopes in what they have alike: events for an error queue, single sequences, curves, preambles.

    ACQuire:STOPAfter SEQuence; ACQuire:STATE RUN       one record; TRIGger:STATE? says READY, ACQuire:STATE? 0 when done
    DATa:SOUrce CH1; ENCdg <e>; WIDth <bytes>; STARt <a>; STOP <b>; CURVe?      #<d><bytes><words>, both ends included
    HORizontal:DELay:MODe ON; HORizontal:DELay:TIMe <s>          the middle of the record, after the trigger

    volts = (word - YOFf) YMUlt + YZEro          seconds after the trigger = XZEro + (i - PT_Off) XINcr

How words are coded is not remembered but asked for (BYT_Nr, BN_Fmt, BYT_Or). XZEro and PT_Off belong to DATa:STARt, so they are
asked for with STARt 1. ALLEv? has the events that were there at the last *ESR?. A dialect says how its channels are shown and
terminated, where the edge comes in, and how its time axis is set. A raw socket (port 4000) must be in the mode "none".

Source: 4/5/6 Series MSO Programmer Manual (077-1305) and TBS2000 Series Programmer Manual (077-1149), "Waveform transfer",
"Acquisition", "Trigger", "Status and events".
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from drivers.read_back import Setting
from drivers.scope_records import Asked, Channel, Described, numbers_of, part
from drivers.scpi import POWER_ON, Scpi
from drivers.scpi_digitizer import POSITION, RANGE, ScpiDigitizer
from drivers.waveform.record import Axis, Scale

FORM = ":WFMO:BYT_N?;:WFMO:BN_F?;:WFMO:BYT_O?"
FIELDS = ("BYT_N", "BN_F", "BYT_O", "NR_P", "XIN", "XZE", "PT_O", "YMU", "YOF", "YZE")  # of the preamble, in this order
LENGTH = "record length"
USUAL = frozenset({0, 1, 401, 402, 403})  # events that are no errors: none, power on, operation complete, user request


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


class TektronixScope(ScpiDigitizer):
    """The common part; arguments as of ScpiDigitizer."""

    timed: ClassVar[tuple[str, ...]] = (RANGE, POSITION, LENGTH)
    beginning: ClassVar[tuple[str, ...]] = ("*RST", "*CLS", ":HEAD 0", ":VERB 0")
    stop: ClassVar[str] = ":ACQ:STATE STOP"
    speaks: ClassVar[type[Scpi]] = Events
    plain: ClassVar[str] = ":ACQ:MOD SAM"
    _edge_at = "the scope's AUX IN"

    display: ClassVar[str]  # header of the display of a channel
    across: ClassVar[tuple[Setting, ...]]  # settings of the time axis besides the delay
    divisions: int  # of the screen's height
    encoding: ClassVar[tuple[str, int]]  # of the words, and their bytes
    centre: ClassVar[int]  # word of 0, of signed words that are taken as unsigned ones
    _points = 0  # of the record in the memory

    # What a dialect says in its own words.

    @abstractmethod
    def _held_input(self, header: str, tail: str) -> tuple[Setting, ...]:
        """Settings of an input that only this dialect has."""

    @abstractmethod
    def _set_input(self, header: str) -> tuple[str, ...]:
        """Commands for an input that only this dialect has."""

    @abstractmethod
    def _axis(self, told: Axis, asked: Asked) -> Axis:
        """The axis of the memory, of which the preamble says `told`."""

    @abstractmethod
    def _edge(self) -> tuple[str, str]:
        """The source of the trigger, and the header of its level."""

    # What all of them do.

    @property
    def hide(self) -> str:  # type: ignore[override]
        """Hides channel 1."""
        return f"{self.display.format(1)} 0"

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        header, tail = f":CH{channel.number}", channel.tail
        return (
            Setting(f"scale{tail}", f"{header}:SCA?", unit="V"),
            Setting(f"offset{tail}", f"{header}:OFFS?", unit="V", tolerance=1e-6),
            Setting(f"position{tail}", f"{header}:POS?", unit="div", tolerance=1e-6),
            Setting(f"display of the channel{tail}", f"{self.display.format(channel.number)}?", "flag"),
            Setting(f"coupling{tail}", f"{header}:COUP?", "word"),
            Setting(f"probe{tail}", f"{header}:PRO:GAIN?"),
            Setting(f"inversion{tail}", f"{header}:INV?", "flag"),
            *self._held_input(header, tail),
        )

    def _held_besides(self) -> tuple[Setting, ...]:
        return (
            Setting("trigger type", ":TRIG:A:TYP?", "word"),
            Setting("trigger source", ":TRIG:A:EDGE:SOU?", "word"),
            Setting("trigger level", f"{self._edge()[1]}?", unit="V", tolerance=1e-6),
            Setting("trigger slope", ":TRIG:A:EDGE:SLO?", "word"),
            Setting("trigger mode", ":TRIG:A:MOD?", "word"),
            Setting("acquisition", ":ACQ:MOD?", "word"),
            Setting("stop", ":ACQ:STOPA?", "word"),
            Setting("delay mode", ":HOR:DEL:MOD?", "flag"),
            *self.across,
            Setting(POSITION, ":HOR:DEL:TIM?", unit="s", tolerance=1e-13),
            Setting("encoding", ":DAT:ENC?", "word"),
            Setting("width of the words", ":DAT:WID?"),
        )

    def _screen_of(self, one: Channel) -> tuple[str, ...]:
        header = f":CH{one.number}"
        return (
            f"{self.display.format(one.number)} 1", f"{header}:COUP DC", *self._set_input(header), f"{header}:INV 0",
            f"{header}:POS 0", f"{header}:SCA {one.range_v / self.divisions:.6g}", f"{header}:OFFS {one.offset_v:.6g}",
        )  # fmt: skip

    def _set_up(self) -> None:
        (source, level), (encoding, width) = self._edge(), self.encoding
        rest = (
            ":TRIG:A:TYP EDGE", f":TRIG:A:EDGE:SOU {source}", f"{level} {self._trigger_v:.6g}", ":TRIG:A:EDGE:SLO RISE",
            ":TRIG:A:MOD NORM", *self._acquisition, ":ACQ:STOPA SEQ", ":HOR:DEL:MOD 1",
            f":DAT:SOU CH{self._channels[0].number}", f":DAT:ENC {encoding}", f":DAT:WID {width}",
        )  # fmt: skip
        self._send_screens(self._screen_of, rest, self._held_volts)

    def _held_volts(self, one: Channel) -> tuple[tuple[str, float], ...]:
        return (f":CH{one.number}:SCA?", one.range_v / self.divisions), (f":CH{one.number}:OFFS?", one.offset_v)

    def arm(self) -> None:
        """Wait for one trigger; see ScpiDigitizer.arm."""
        self._scpi.link.write(b":ACQ:STATE RUN")
        self._armed(False, lambda: self._scpi.ask(":TRIG:STATE?").upper() == "READY", "trigger state other than READY")

    def _runs(self) -> bool:
        return self._scpi.ask_bool(":ACQ:STATE?")

    def _preamble(self, one: Channel) -> str:
        asked = ";".join(f":WFMO:{field}?" for field in FIELDS)
        return self._scpi.ask(f":DAT:SOU CH{one.number};:DAT:STAR 1;:DAT:STOP {self._points};{asked}")

    def _described(self, text: str, asked: Asked, one: Channel) -> Described:
        *form, numbers = text.split(";", 3)
        held, step_s, zero_s, trigger, volts, zero, origin_v = numbers_of(numbers.replace(";", ","), 7, one.name)
        axis = self._axis(Axis(zero_s - trigger * step_s, step_s), asked)
        found = part(asked, axis, round(held), Scale(volts, origin_v, zero + self.centre))
        return self._checked(found, asked, one, ";".join(form).upper().lstrip("+"), self.form[1])

    def _ends(self, one: Channel) -> str:
        """The question for the words of a channel."""
        return f":DAT:SOU CH{one.number};:DAT:STAR {one.first + 1};:DAT:STOP {one.first + one.points};:CURV?"
