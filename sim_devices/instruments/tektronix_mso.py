"""Simulated Tektronix 4/5/6 Series MSO oscilloscope: four channels, edge trigger, curves in several encodings.

    ACQuire:STATE RUN     once with ACQuire:STOPAfter SEQuence, of MODe AVErage NUMAVg times
    TRIGger:STATE?        ARMED (once), READY, TRIGGER, SAVE, AUTO
    CURVe?                ASCIi, RIBinary, RPBinary, SRIbinary, SRPbinary; one or two bytes; points DATa:STARt to DATa:STOP
    volts = (word - YOFf) YMUlt + YZEro                       YMUlt = scale / 25, of two bytes scale / 6400
    ALLEv?                the events that were there at the last *ESR?, which it empties

Rates are 1, 2, 5, 10, ... times below the highest: another one becomes the next higher. Replies have headers until HEADer
OFF, and long words until VERBose OFF: *RST leaves both as they are. Not simulated: measurements, math, digital channels,
FastFrame, automatic horizontal mode, the mains as trigger.

Source: 4/5/6 Series MSO Programmer Manual (077-1305). That words of 12 bits are left-justified, and the delay counted to the
middle of the record, are assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim_devices.instruments.box import Message
from sim_devices.instruments.parameters import Choice, Flag, Name, Number, Parameter, short_form
from sim_devices.instruments.program_message import ScpiError, blocked
from sim_devices.instruments.sampling import Sampling, Window
from sim_devices.instruments.scope_box import Model, ScopeBox, edge_sources
from sim_devices.instruments.scope_record import Record
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, scaled, setting

NR3 = ".4E"
FINE = ".6E"
DIVISIONS, CODES = 10, 25  # of the screen's height; of a byte, a division
MODELS = {
    "MSO44": Model("MSO44", 6.25e9, 31_250_000, 12), "MSO54": Model("MSO54", 6.25e9, 62_500_000, 12),
    "MSO64": Model("MSO64", 25e9, 62_500_000, 12), "MSO24": Model("MSO24", 1.25e9, 10_000_000, 8),
}  # fmt: skip
LADDER = tuple(digit * 10**power for power in range(9) for digit in (1, 2, 5))
ENCODINGS = ("ASCIi", "RIBinary", "RPBinary", "SRIbinary", "SRPbinary")
FORMATS = {"ASCI": ("RI", "MSB"), "RIB": ("RI", "MSB"), "RPB": ("RP", "MSB"), "SRI": ("RI", "LSB"), "SRP": ("RP", "LSB")}
SOURCES = ("CH1", "CH2", "CH3", "CH4")


class TektronixMSO(ScopeBox):
    """A simulated scope of the 2, 4, 5 or 6 Series, as its programmer manual describes it. Arguments as of ScopeBox."""

    models = MODELS
    usual = ("MSO54", "C0SIM001")
    maker = "TEKTRONIX"
    firmware = "CF:91.1CT FV:2.6.39.1203"
    _arming = False  # the next trigger state is ARMED
    _told: tuple[str, ...] = ()  # events that the last *ESR? made readable

    @cached_property
    def _long_words(self) -> dict[str, str]:
        """Long form of each word of a setting, by its short form."""
        words = (
            one for one in (*self._box_parameters().values(), *self._channel_parameters(1).values()) if isinstance(one, Choice)
        )
        return {short_form(word): word.upper() for one in words for word in one.options}

    # -- Sampling and scale -------------------------------------------------------------------------------------------

    def _sampling(self) -> Sampling:
        points = min(int(self._box.number("points")), self._points)
        return Sampling(self._box.number("rate"), points, 1)

    def window(self) -> Window:
        """The instants of the next record: the delay is that of its middle; without one the trigger stands at a share of it."""
        found = self._sampling()
        span_s = found.points / found.rate_hz
        delayed, share = self._box.flag("delayed"), 0.01 * self._box.number("share")
        return found.window(self._box.number("position") - 0.5 * span_s if delayed else -share * span_s)

    def _span_v(self, s: Settings) -> float:
        return s.number("range") / DIVISIONS * 256 / CODES

    def _middle_v(self, s: Settings) -> float:
        return s.number("offset") - s.number("place") * s.number("range") / DIVISIONS

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
        words, encoding, wide = record.words[first:last], self._box.text("encoding"), self._box.number("width") == 2
        codes: NDArray[Any] = words if wide else (words >> 8).astype(np.int8)
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
                  "ENCDG": "ASCII" if encoding == "ASCI" else "BINARY"}  # fmt: skip
        if name in simple:
            return simple[name]
        record, first, last = self._curve()
        step_s = 1 / record.window.rate_hz
        per_word = record.range_v / (65536 if wide == 2 else 256)
        numbers = {"NR_PT": last - first, "PT_OFF": 0}
        if name in numbers:
            return f"{numbers[name]}"
        shift = (32768 if wide == 2 else 128) if kind == "RP" else 0
        values = {"XINCR": step_s, "XZERO": record.window.start_s + first * step_s, "YMULT": per_word, "YOFF": shift,
                  "YZERO": record.offset_v}  # fmt: skip
        return f"{values[name]:.9E}"

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
        return (Command(one.pattern, one.put, None if one.get is None else self._headed(one)) for one in self._commands())

    def _headed(self, command: Command) -> Callable[[Call], str | bytes]:
        def get(call: Call) -> str | bytes:
            assert command.get is not None
            answer = command.get(call)
            verbose = self._box.flag("verbose")
            if verbose and isinstance(answer, str):
                answer = self._long_words.get(answer, answer)
            if not self._box.flag("header"):
                return answer
            name = command.pattern.replace("<4>", f"{call.channel if call.suffixes else 1}")
            header = f":{name.upper() if verbose else short_form(name)} "
            return header.encode() + answer if isinstance(answer, bytes) else header + answer

        return get

    def _commands(self) -> Iterator[Command]:
        the_box, of = self._the_box, self._of
        for pattern, name in (
            ("HEADer", "header"), ("VERBose", "verbose"), ("TRIGger:A:TYPe", "trigger"), ("TRIGger:AUXLevel", "level_EXT"),
            ("TRIGger:A:EDGE:SLOpe", "slope"), ("TRIGger:A:MODe", "sweep"),
            ("ACQuire:STOPAfter", "after"), ("ACQuire:NUMAVg", "count"), ("HORizontal:MODe", "horizontal"),
            ("HORizontal:POSition", "share"),
            ("HORizontal:DELay:MODe", "delayed"), ("HORizontal:DELay:TIMe", "position"),
            ("DATa:SOUrce", "source"), ("DATa:ENCdg", "encoding"), ("DATa:WIDth", "width"), ("DATa:STARt", "start"),
            ("DATa:STOP", "stop"), ("WFMOutpre:BYT_Nr", "width"),
        ):  # fmt: skip
            yield setting(pattern, name, the_box)
        for pattern, name in (
            ("COUPling", "coupling"), ("TERmination", "impedance"), ("BANdwidth", "bandwidth"), ("INVert", "invert"),
            ("OFFSet", "offset"), ("POSition", "place"), ("PRObe:GAIN", "probe"), ("PROBEFunc:EXTAtten", "attenuation"),
            ("LABel:NAMe", "label"),
        ):  # fmt: skip
            yield setting(f"CH<4>:{pattern}", name, of)
        yield scaled("CH<4>:SCAle", "range", of, DIVISIONS, FINE)
        yield setting("DISplay:GLObal:CH<4>:STATE", "display", of)
        yield setting("SELect:CH<4>", "display", of)
        yield self._edge_from("TRIGger:A:EDGE:SOUrce", "edge", "AUX")
        yield self._level_of("TRIGger:A:LEVel:CH<4>", lambda call: f"CHAN{call.channel}", FINE)
        for pattern in ("HORizontal:MODe:SAMPLERate", "HORizontal:SAMPLERate"):
            yield Command(pattern, self._put_rate, lambda call: f"{self._box.number('rate'):{FINE}}")
        for pattern in ("HORizontal:MODe:RECOrdlength", "HORizontal:RECOrdlength"):
            yield setting(pattern, "points", the_box)
        for pattern in ("HORizontal:MODe:SCAle", "HORizontal:SCAle"):
            yield Command(pattern, self._put_scale, lambda call: f"{self._scale_s():{FINE}}")
        yield Command("ACQuire:MODe", self._put_mode, lambda call: self._box.shown("mode", call))
        yield Command("ACQuire:STATE", self._put_state, lambda call: f"{int(self._polled() != 'stopped')}")
        yield Command("ACQuire:NUMACq", get=lambda call: f"{self._taken}")
        yield Command("TRIGger:STATE", get=self._state)
        yield Command("TRIGger", self._trigger_command)
        yield Command("BUSY", get=lambda call: f"{int(self._polled() != 'stopped')}")
        yield Command("CURVe", get=self._data)
        yield Command("DATa:SOUrce:AVAILable", get=lambda call: ",".join(f"CH{n}" for n in sorted(self.wanted())))
        for name in ("BIT_Nr", "BN_Fmt", "BYT_Or", "NR_Pt", "PT_Fmt", "XINcr", "XZEro", "PT_Off", "YMUlt", "YOFf", "YZEro",
                     "ENCdg"):  # fmt: skip
            yield Command(f"WFMOutpre:{name}", get=partial(self._field_query, name.upper()))
        yield Command("ALLEv", get=self._all_events)

    def _put_mode(self, call: Call) -> None:
        word = str(self._box.read("mode", call.only()))
        self._box.change(mode=word, type={"SAM": "NORM", "AVE": "AVER", "HIR": "HRES"}[word])

    def _put_rate(self, call: Call) -> None:
        wanted = float(self._box.read("rate", call.only()))
        slowest = [divider for divider in LADDER if self.data.clock_hz / divider >= wanted * (1 - 1e-6)]
        self._box.change(rate=self.data.clock_hz / max(slowest, default=1))

    def _scale_s(self) -> float:
        return self._sampling().points / self._sampling().rate_hz / DIVISIONS

    def _put_scale(self, call: Call) -> None:
        """The rate stays, as with CONFIGure RECORDLength: the record gets longer or shorter."""
        span_s = DIVISIONS * Number(1e-10, 1e3, 1e-6, "S").read(call.only())
        self._box.change(points=float(max(1000, min(round(span_s * self._box.number("rate")), self._points))))

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
            "edge": Choice((*SOURCES, "AUXiliary"), "CH1"),
            **edge_sources(8, 100, FINE),
            "slope": Choice(("RISe", "FALL", "EITher"), "RIS"),
            "sweep": Choice(("AUTO", "NORMal"), "AUTO"),
            "mode": Choice(("SAMple", "AVErage", "HIRes"), "SAM"),
            "type": Choice(("NORMal", "AVERage", "HRESolution"), "NORM"),
            "count": Number(2, 10_240, 16, integer=True, style=FINE),
            "after": Choice(("RUNSTop", "SEQuence"), "RUNST"),
            "horizontal": Choice(("AUTO", "MANual"), "AUTO"),
            "delayed": Flag(True),
            "position": Number(-10, 5e3, 0, "S", style=".12E"),
            "share": Number(0, 100, 50, style=NR3),
            "rate": Number(1.5625, 25e9, 6.25e6, style=FINE),
            "points": Number(1000, 62_500_000, 1250, integer=True, style=FINE),
            "source": Choice(SOURCES, "CH1"),
            "encoding": Choice(ENCODINGS, "RIB"),
            "width": Number(1, 2, 1, integer=True),
            "start": Number(1, 62_500_000, 1, integer=True),
            "stop": Number(1, 62_500_000, 1250, integer=True),
        }

    def _channel_parameters(self, n: int) -> dict[str, Parameter]:
        return {
            "display": Flag(n == 1),
            "range": Number(DIVISIONS * 500e-6, DIVISIONS * 10, DIVISIONS * 0.1, "V", style=FINE),
            "offset": Number(-100, 100, 0, "V", style=FINE),
            "place": Number(-5, 5, 0, style=NR3),
            "coupling": Choice(("DC", "AC", "DCREJ"), "DC"),
            "impedance": Number(50, 1e6, 1e6, "OHM", style=FINE),
            "bandwidth": Number(20e6, 10e9, 500e6, "HZ", style=FINE),
            "invert": Flag(),
            "probe": Number(1e-3, 1e3, 1, style=NR3),
            "attenuation": Number(1e-3, 1e3, 1, style=NR3),
            "label": Name("", 32),
        }
