"""Common parts of simulated Tektronix oscilloscopes: curves and their preamble, trigger states, events, headers.

    ACQuire:STATE RUN     once with ACQuire:STOPAfter SEQuence, of MODe AVErage NUMAVg times
    TRIGger:STATE?        ARMED (once), READY, TRIGGER, SAVE, AUTO
    CURVe?                ASCIi, RIBinary, RPBinary, SRIbinary, SRPbinary; one or two bytes; points DATa:STARt to DATa:STOP
    volts = (word - YOFf) YMUlt + YZEro                       YMUlt = scale / 25 of a byte
    ALLEv?                the events that were there at the last *ESR?, which it empties

Replies have headers until HEADer OFF, and long words until VERBose OFF: *RST leaves both as they are. A dialect says how its
channels are shown, where the edge comes in, its time axis, and the settings that only it has.

Source: 4/5/6 Series MSO Programmer Manual (077-1305), TBS2000 Series Programmer Manual (077-1149). That the delay is counted to
the middle of the record is assumed.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sim_devices.instruments.box import Message
from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter, short_form
from sim_devices.instruments.program_message import ScpiError, blocked
from sim_devices.instruments.sampling import Window
from sim_devices.instruments.scope_box import ScopeBox, edge_sources
from sim_devices.instruments.scope_record import Record
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, scaled, setting

NR3 = ".4E"
FINE = ".6E"
CODES = 25  # of a byte, a division
ENCODINGS = ("ASCIi", "RIBinary", "RPBinary", "SRIbinary", "SRPbinary")
FORMATS = {"ASCI": ("RI", "MSB"), "RIB": ("RI", "MSB"), "RPB": ("RP", "MSB"), "SRI": ("RI", "LSB"), "SRP": ("RP", "LSB")}
OPTIONAL = str.maketrans("", "", "[]")  # marks of what may be left out in a header
SOURCES = ("CH1", "CH2", "CH3", "CH4")
FIELDS = ("BYT_Nr", "BIT_Nr", "ENCdg", "BN_Fmt", "BYT_Or", "WFId", "NR_Pt", "PT_Fmt", "XUNit", "XINcr", "XZEro", "PT_Off",
          "YUNit", "YMUlt", "YOFf", "YZEro", "RECOrdlength")  # fmt: skip


class TektronixScope(ScopeBox):
    """The common part; arguments as of ScopeBox."""

    maker = "TEKTRONIX"
    divisions: int = 10  # of the screen's height
    external_v: ClassVar[float]  # of the external trigger, either sign
    style: ClassVar[str]  # of the numbers of the preamble; "" as engineers write them
    _arming = False  # the next trigger state is ARMED
    _told: tuple[str, ...] = ()  # events that the last *ESR? made readable

    # -- Dialect ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _own_commands(self) -> Iterator[Command]:
        """Commands that only this dialect has."""

    @abstractmethod
    def _own_parameters(self) -> Mapping[str, Parameter]:
        """Settings of the box that only this dialect has, "points" of the record among them."""

    @abstractmethod
    def _own_channel_parameters(self) -> Mapping[str, Parameter]:
        """Settings of a channel that only this dialect has, its range among them."""

    @abstractmethod
    def _coded(self, words: NDArray[np.int16], wide: bool) -> NDArray[Any]:
        """The codes of words of 16 bits, of two bytes or one."""

    @abstractmethod
    def _step_v(self, record: Record, wide: bool) -> float:
        """YMUlt."""

    @property
    def _ch(self) -> str:
        """Pattern of a channel."""
        return f"CH<{self.channel_count}>"

    @cached_property
    def _long_words(self) -> dict[str, str]:
        """Long form of each word of a setting, by its short form."""
        words = (
            one for one in (*self._box_parameters().values(), *self._channel_parameters(1).values()) if isinstance(one, Choice)
        )
        return {short_form(word): word.upper() for one in words for word in one.options}

    # -- Sampling and scale -------------------------------------------------------------------------------------------

    def window(self) -> Window:
        """The instants of the next record: the delay is that of its middle; without one the trigger stands at a share of it."""
        found = self._sampling()
        span_s = found.points / found.rate_hz
        delayed, share = self._box.flag("delayed"), 0.01 * self._box.number("share")
        return found.window(self._box.number("position") - 0.5 * span_s if delayed else -share * span_s)

    def _span_v(self, s: Settings) -> float:
        return s.number("range") / self.divisions * 256 / CODES

    def _middle_v(self, s: Settings) -> float:
        return s.number("offset") - s.number("place") * s.number("range") / self.divisions

    # -- Curve --------------------------------------------------------------------------------------------------------

    def _curve(self) -> tuple[Record, int, int]:
        """The record of DATa:SOUrce, and its points that are read."""
        record = self._records.get(int(self._box.text("source")[-1]))
        if record is None:
            raise ScpiError(2244, "waveform requested is not valid")
        first, last = (int(self._box.number(name)) for name in ("start", "stop"))
        return record, first - 1, max(first, min(last, len(record.words)))

    def _data(self, call: Call) -> bytes:
        call.none()
        record, first, last = self._curve()
        encoding, wide = self._box.text("encoding"), self._box.number("width") == 2
        codes = self._coded(record.words[first:last], wide)
        if encoding == "ASCI":
            return ",".join(map(str, codes.tolist())).encode()
        kind, order = FORMATS[encoding]
        if kind == "RP":
            codes = codes.astype(np.int32) + (32768 if wide else 128)
        data = codes.astype(f"{'<' if order == 'LSB' else '>'}{'u' if kind == 'RP' else 'i'}{2 if wide else 1}").tobytes()
        return blocked(data)

    def _field_query(self, name: str, call: Call) -> str:
        call.none()
        return self._field(name)

    def _field(self, name: str) -> str:
        """A field of WFMOutpre of the curve that would be sent."""
        wide, encoding = int(self._box.number("width")), self._box.text("encoding")
        kind, order = FORMATS[encoding]
        simple = {"BYT_NR": f"{wide}", "BIT_NR": f"{8 * wide}", "BN_FMT": kind, "BYT_OR": order, "PT_FMT": "Y",
                  "ENCDG": "ASCII" if encoding == "ASCI" else "BINARY", "XUNIT": '"s"', "YUNIT": '"V"'}  # fmt: skip
        if name in simple:
            return simple[name]
        record, first, last = self._curve()
        step_s = 1 / record.window.rate_hz
        whole = {"NR_PT": last - first, "PT_OFF": 0, "RECORDLENGTH": len(record.words)}
        if name in whole:
            return f"{whole[name]}"
        if name == "WFID":
            return self._named(record)
        shift = (32768 if wide == 2 else 128) if kind == "RP" else 0
        values = {"XINCR": step_s, "XZERO": record.window.start_s + first * step_s, "YMULT": self._step_v(record, wide == 2),
                  "YOFF": shift, "YZERO": record.offset_v}  # fmt: skip
        return f"{values[name]:{self.style}}" if self.style else engineering(values[name])

    def _preamble(self, call: Call) -> str:
        """All fields of WFMOutpre, in one answer."""
        call.none()
        fields = [(name, self._field(name.upper())) for name in FIELDS]
        if not self._box.flag("header"):
            return ";".join(value for _, value in fields)
        verbose = self._box.flag("verbose")
        return f":{'WFMOUTPRE' if verbose else 'WFMO'}:" + ";".join(
            f"{name.upper() if verbose else short_form(name)} {value}" for name, value in fields
        )

    def _preamble_and_curve(self, call: Call) -> bytes:
        """The preamble, and the curve that belongs to it."""
        data = self._data(call)
        header = (b":CURVE " if self._box.flag("verbose") else b":CURV ") if self._box.flag("header") else b""
        return b";".join((self._preamble(call).encode(), header + data))

    def _put_form(self, call: Call) -> None:
        if Choice(("ASCii", "BINary"), "BIN").read(call.only()) == "ASC":
            self._box.change(encoding="ASCI")
        elif self._box.text("encoding") == "ASCI":
            self._box.change(encoding="RIB")

    def _put_sign(self, call: Call) -> None:
        swapped = self._box.text("encoding").startswith("S")
        self._box.change(encoding=f"{'S' * swapped}{Choice(('RI', 'RP'), 'RI').read(call.only())}{'' if swapped else 'B'}")

    def _named(self, record: Record) -> str:
        n, s = self._box.text("source")[-1], self._channels[int(self._box.text("source")[-1])]
        per = s.number("range") / self.divisions, record.window.points / record.window.rate_hz / self._divisions_across()
        mode = {"NORM": "Sample", "AVER": "Average", "HRES": "High res"}[record.kind]
        scales = f"{short(per[0], 4)}V/div, {short(per[1], 4)}s/div"
        return f'"Ch{n}, {s.text("coupling")} coupling, {scales}, {len(record.words)} points, {mode} mode"'

    def _divisions_across(self) -> int:
        return 10

    def execute(self, message: Message) -> bytes | None:
        """Run one message; see `Box.execute`. With ``*ESR?`` the events that are there become readable."""
        with self._lock:
            while b"*ESR?" in bytes(message).upper() and self._scpi.status.errors:
                code, _, text = self._scpi.status.next_error().partition(",")
                self._told += (f"{abs(int(code))},{text}",)  # their events have no sign
            return super().execute(message)

    def _all_events(self, call: Call) -> str:
        call.none()
        told, self._told = self._told, ()
        return ",".join(told) if told else f'{int(self._scpi.status.errors > 0)},"No events to report"'

    # -- Commands -----------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        """``*RST``; headers stay as they were."""
        kept = {name: self._box.flag(name) for name in ("header", "verbose")}
        super()._reset()
        self._box.change(**kept)

    def _table(self) -> Iterator[Command]:
        """All commands, their replies with headers while HEADer is on."""
        for one in (*self._commands(), *self._own_commands()):
            yield Command(one.pattern, one.put, None if one.get is None else self._headed(one))
        yield Command("WFMOutpre", get=self._preamble)
        yield Command("WAVFrm", get=self._preamble_and_curve)

    def _headed(self, command: Command) -> Callable[[Call], str | bytes]:
        def get(call: Call) -> str | bytes:
            assert command.get is not None
            answer = command.get(call)
            verbose = self._box.flag("verbose")
            if verbose and isinstance(answer, str):
                answer = self._long_words.get(answer, answer)
            if not self._box.flag("header"):
                return answer
            name = re.sub(r"<\d>", f"{call.channel if call.suffixes else 1}", command.pattern).translate(OPTIONAL)
            header = f":{name.upper() if verbose else short_form(name)} "
            return header.encode() + answer if isinstance(answer, bytes) else header + answer

        return get

    def _commands(self) -> Iterator[Command]:
        the_box, of = self._the_box, self._of
        for pattern, name in (
            ("HEADer", "header"), ("VERBose", "verbose"), ("TRIGger:A:TYPe", "trigger"),
            ("TRIGger:A:EDGE:SLOpe", "slope"), ("TRIGger:A:MODe", "sweep"),
            ("ACQuire:STOPAfter", "after"), ("ACQuire:NUMAVg", "count"),
            ("HORizontal:POSition", "share"),
            ("HORizontal:DELay:MODe", "delayed"), ("HORizontal:DELay:TIMe", "position"),
            ("DATa:SOUrce", "source"), ("DATa:ENCdg", "encoding"), ("DATa:WIDth", "width"), ("DATa:STARt", "start"),
            ("DATa:STOP", "stop"), ("WFMOutpre:BYT_Nr", "width"),
        ):  # fmt: skip
            yield setting(pattern, name, the_box)
        for pattern, name in (
            ("COUPling", "coupling"), ("BANdwidth", "bandwidth"), ("INVert", "invert"), ("OFFSet", "offset"),
            ("POSition", "place"), ("PRObe:GAIN", "probe"),
        ):  # fmt: skip
            yield setting(f"{self._ch}:{pattern}", name, of)
        yield scaled(f"{self._ch}:SCAle", "range", of, self.divisions, FINE)
        yield setting(f"SELect:{self._ch}", "display", of)
        yield self._edge_from("TRIGger:A:EDGE:SOUrce", "edge", "AUX")
        yield self._level_of(f"TRIGger:A:LEVel:{self._ch}", lambda call: f"CHAN{call.channel}", FINE)
        yield Command("ACQuire:MODe", self._put_mode, lambda call: self._box.shown("mode", call))
        yield Command("ACQuire:STATE", self._put_state, lambda call: f"{int(self._polled() != 'stopped')}")
        yield Command("ACQuire:NUMACq", get=lambda call: f"{self._taken}")
        yield Command("TRIGger:STATE", get=self._state)
        yield Command("TRIGger", self._trigger_command)
        yield Command("BUSY", get=lambda call: f"{int(self._polled() != 'stopped')}")
        yield Command("CURVe", get=self._data)
        forms = {"ENCdg": self._put_form, "BN_Fmt": self._put_sign}
        for name in FIELDS[1:]:
            yield Command(f"WFMOutpre:{name}", forms.get(name), partial(self._field_query, name.upper()))
        yield Command("ALLEv", get=self._all_events)

    def _put_mode(self, call: Call) -> None:
        word = str(self._box.read("mode", call.only()))
        self._box.change(mode=word, type={"SAM": "NORM", "AVE": "AVER", "HIR": "HRES"}[word])

    def _put_state(self, call: Call) -> None:
        word = call.word()
        if word in ("OFF", "STOP", "0"):
            self._stop()
            return
        Choice(("ON", "RUN", "1"), "ON").read(word)
        self._arming = True
        self._arm("single" if self._box.text("after") == "SEQ" else "running", frozenset())

    def _state(self, call: Call) -> str:
        call.none()
        arming, self._arming = self._arming, False
        mode = self._polled()
        ready = "AUTO" if self._box.text("sweep") == "AUTO" else "READY"
        return "SAVE" if mode == "stopped" else "ARMED" if arming else ready if self._awaits() else "TRIGGER"

    def _trigger_command(self, call: Call) -> None:
        Choice(("FORCe",), "FORC").read(call.only())
        self._force()

    def _box_parameters(self) -> dict[str, Parameter]:
        return {
            "header": Flag(True),
            "verbose": Flag(True),
            "trigger": Choice(("EDGE",), "EDGE"),
            **edge_sources(self.external_v, 100, FINE),
            "slope": Choice(("RISe", "FALL", "EITher"), "RIS"),
            "sweep": Choice(("AUTO", "NORMal"), "AUTO"),
            "mode": Choice(("SAMple", "AVErage", "HIRes"), "SAM"),
            "type": Choice(("NORMal", "AVERage", "HRESolution"), "NORM"),
            "after": Choice(("RUNSTop", "SEQuence"), "RUNST"),
            "delayed": Flag(True),
            "position": Number(-10, 5e3, 0, "S", style=".12E"),
            "share": Number(0, 100, 50, style=NR3),
            "source": Choice(SOURCES[: self.channel_count], "CH1"),
            "encoding": Choice(ENCODINGS, "RIB"),
            "start": Number(1, 62_500_000, 1, integer=True),
            "stop": Number(1, 62_500_000, 1250, integer=True),
            **self._own_parameters(),
        }

    def _channel_parameters(self, n: int) -> dict[str, Parameter]:
        return {
            "display": Flag(n == 1),
            "offset": Number(-100, 100, 0, "V", style=FINE),
            "place": Number(-5, 5, 0, style=NR3),
            "coupling": Choice(("DC", "AC", "DCREJ"), "DC"),
            "invert": Flag(),
            **self._own_channel_parameters(),
        }


def engineering(value: float) -> str:
    """Write a number with four decimals and an exponent that three divides: 160.0000E-9; 0.0E+0."""
    if not value:
        return "0.0E+0"
    mantissa, exponent = f"{value:.10E}".split("E")
    shift = int(exponent) % 3
    return f"{float(mantissa) * 10**shift:.4f}E{int(exponent) - shift:+d}"


def short(value: float, digits: int) -> str:
    """Write a number for people: 200.0u, 1.000."""
    mantissa, exponent = f"{value:.10E}".split("E")
    shift = int(exponent) % 3
    prefix = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k"}.get(int(exponent) - shift, "?")
    return f"{float(mantissa) * 10**shift:.{digits - 1 - shift}f}{prefix}"
