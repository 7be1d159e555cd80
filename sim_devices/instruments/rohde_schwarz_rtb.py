"""Simulated Rohde & Schwarz RTB2000 oscilloscope: four channels, edge trigger, records in text, floats or words.

    ACQuire:STATe?              RUN, STOP, COMP (a single record is complete), BRE
    STATus:OPERation:CONDition? bit 3: waits for a trigger, from the second question after SINGle on; the event register
                                notes that it rises
    SINGle                      takes ACQuire:NSINgle:COUNt records; ACQuire:AVERage:COMPlete? 1 where they are enough
    CHANnel1:DATA?              ASC text; REAL,32; UINT,8 / 16 / 32: words from the left; all samples of the record
    volts = word YINCrement + YORigin                 the range spans 10 divisions of 25 codes of a byte
    rate = ACQuire:POINts / TIMebase:ACQTime          12 divisions of time

Not simulated: measurements, math, digital channels, segments, automatic record length, peak detection, the mains as trigger.

Source: R&S RTB2000 User Manual 1333.1611.02. When the wait bit rises is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim_devices.instruments.parameters import Choice, Flag, Name, Number, Parameter
from sim_devices.instruments.program_message import ScpiError, blocked
from sim_devices.instruments.sampling import Sampling
from sim_devices.instruments.scope_box import Model, ScopeBox, edge_sources
from sim_devices.instruments.scope_record import Record
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, scaled, setting

NR3 = ".3E"
FINE = ".9E"
ACROSS, DIVISIONS, CODES = 12, 10, 25  # of time; that the range spans; of a byte, a division
WAITING, RUNNING = 1 << 3, 1 << 4
MODELS = {"RTB2004": Model("RTB2004", 2.5e9, 20_000_000, 10), "RTB2002": Model("RTB2002", 2.5e9, 20_000_000, 10)}
LENGTHS = (*(digit * 10**power for power in (4, 5, 6) for digit in (1, 2, 5)), 10_000_000, 20_000_000)
SOURCES = ("CH1", "CH2", "CH3", "CH4")
BITS = {"UINT": (8, 16, 32), "REAL": (32,), "ASC": (0,)}


class RohdeSchwarzRTB(ScopeBox):
    """A simulated scope of the RTB2000 series, as its manual describes it. Arguments as of ScopeBox."""

    models = MODELS
    usual = ("RTB2004", "1333.1005k04/SIM001")
    maker = "Rohde&Schwarz"
    firmware = "02.400"
    plus = False
    _arming = False  # the next condition does not say yet that it waits

    def _sampling(self) -> Sampling:
        on = self.wanted()
        halved = {1, 2} <= on or {3, 4} <= on
        points = min(int(self._box.number("points")), self._points // (2 if halved else 1))
        rate_hz = min(points / self._box.number("range"), self.data.clock_hz / (2 if halved else 1))
        return Sampling(rate_hz, points, 1)

    def _inverts(self, s: Settings) -> bool:
        return s.text("polarity") == "INV"

    def _span_v(self, s: Settings) -> float:
        return s.number("range") / DIVISIONS * 256 / CODES

    def _middle_v(self, s: Settings) -> float:
        return s.number("offset") - s.number("place") * s.number("range") / DIVISIONS

    # -- Data ---------------------------------------------------------------------------------------------------------

    def _record(self, call: Call) -> Record:
        call.none()
        return self._acquired(call.channel)

    def _volts(self, record: Record) -> np.ndarray:
        return record.words * (record.range_v / 65536) + record.offset_v

    def _data(self, call: Call) -> bytes:
        record, form, bits = self._record(call), self._box.text("form"), int(self._box.number("bits"))
        if form == "ASC":
            return ",".join(f"{volts:.6E}" for volts in self._volts(record)).encode()
        order = "<" if self._box.text("order") == "LSBF" else ">"
        if form == "REAL":
            data = self._volts(record).astype(f"{order}f4").tobytes()
        else:
            words = record.words.astype(np.int64) + 32768
            data = (words << 16 if bits == 32 else words if bits == 16 else words >> 8).astype(f"{order}u{bits // 8}").tobytes()
        return blocked(data)

    def _header(self, call: Call) -> str:
        record = self._record(call)
        last_s = record.window.start_s + (len(record.words) - 1) / record.window.rate_hz
        return f"{record.window.start_s:.9E},{last_s:.9E},{len(record.words)},1"

    def _per_word(self, record: Record) -> float:
        bits = int(self._box.number("bits")) if self._box.text("form") == "UINT" else 16
        return record.range_v / float(1 << bits)

    # -- Commands -----------------------------------------------------------------------------------------------------

    def _table(self) -> Iterator[Command]:
        the_box, of = self._the_box, self._of
        for pattern, name in (
            ("TIMebase:ACQTime", "range"), ("TIMebase:RANGe", "range"), ("TIMebase:POSition", "position"),
            ("TIMebase:REFerence", "at"), ("TRIGger:A:TYPE", "trigger"), ("TRIGger:A:EDGE:SLOPe", "slope"),
            ("TRIGger:A:MODE", "sweep"), ("TRIGger:A:EDGE:COUPling", "edge_coupling"), ("ACQuire:TYPE", "kind"),
            ("ACQuire:POINts:AUTomatic", "automatic"), ("ACQuire:AVERage:COUNt", "count"), ("FORMat:BORDer", "order"),
            ("ACQuire:NSINgle:COUNt", "records"), ("STATus:OPERation:PTRansition", "rises"),
            ("STATus:OPERation:NTRansition", "falls"),
        ):  # fmt: skip
            yield setting(pattern, name, the_box, self._kind if name == "kind" else None)
        for pattern, name in (
            ("STATe", "display"), ("RANGe", "range"), ("OFFSet", "offset"), ("POSition", "place"), ("COUPling", "coupling"),
            ("BANDwidth", "bandwidth"), ("POLarity", "polarity"), ("DATA:POINts", "part"), ("LABel", "label"), ("SKEW", "skew"),
        ):  # fmt: skip
            yield setting(f"CHANnel<4>:{pattern}", name, of)
        yield setting("PROBe<4>:SETup:ATTenuation:MANual", "probe", of)
        yield scaled("CHANnel<4>:SCALe", "range", of, DIVISIONS, FINE)
        yield scaled("TIMebase:SCALe", "range", the_box, ACROSS, FINE)
        yield Command("ACQuire:POINts[:VALue]", self._put_points, lambda call: f"{self._box.number('points'):.0f}")
        yield Command("ACQuire:SRATe", get=lambda call: f"{self._sampling().rate_hz:{FINE}}")
        yield Command("ACQuire:POINts:ARATe", get=lambda call: f"{self._sampling().rate_hz:{FINE}}")
        yield self._edge_from("TRIGger:A:SOURce", "edge", "EXT")
        yield self._level_of("TRIGger:A:LEVel<5>", lambda call: "EXT" if call.channel == 5 else f"CHAN{call.channel}", FINE)
        yield Command("FORMat[:DATA]", self._put_form, lambda call: f"{self._box.text('form')},{self._box.number('bits'):.0f}")
        yield Command("SINGle", self._single)
        yield Command("RUN", lambda call: self._start(call, "running"))
        yield Command("RUNContinuous", lambda call: self._start(call, "running"))
        yield Command("RUNSingle", self._single)
        yield Command("STOP", self._halt)
        yield Command("ACQuire:STATe", self._put_state, self._state)
        yield Command("STATus:OPERation:CONDition", get=self._condition)
        yield Command("STATus:OPERation[:EVENt]", get=self._event)
        yield Command("ACQuire:AVERage:COMPlete", get=self._complete)
        yield Command("ACQuire:AVERage:RESet", self._reset_average)
        yield Command("CHANnel<4>:DATA", get=self._data)
        yield Command("CHANnel<4>:DATA:HEADer", get=self._header)
        for name, of_record in (
            ("XORigin", lambda record: record.window.start_s), ("XINCrement", lambda record: 1 / record.window.rate_hz),
            ("YINCrement", self._per_word), ("YORigin", lambda record: record.offset_v - record.range_v / 2),
        ):  # fmt: skip
            yield Command(
                f"CHANnel<4>:DATA:{name}",
                get=lambda call, of_record=of_record: f"{of_record(self._record(call)):{FINE}}",  # type: ignore[misc]
            )
        yield Command("CHANnel<4>:DATA:YRESolution", get=lambda call: f"{self._bits}")

    def _kind(self, call: Call) -> None:
        self._box.change(type={"REFR": "NORM", "AVER": "AVER"}[self._box.text("kind")])

    def _put_points(self, call: Call) -> None:
        wanted = float(self._box.read("points", call.only()))
        self._box.change(points=float(next((n for n in LENGTHS if n >= wanted), LENGTHS[-1])), automatic=False)

    def _put_form(self, call: Call) -> None:
        form, *rest = call.take(1, 2)
        word = str(self._box.read("form", form))
        bits = float(self._box.read("bits", rest[0])) if rest else float(BITS[word][0])
        if bits not in BITS[word]:
            raise ScpiError(-221, f"{word},{bits:g}")
        self._box.change(form=word, bits=bits)

    def _single(self, call: Call) -> None:
        self._arming = True
        self._start(call, "single")

    def _put_state(self, call: Call) -> None:
        word = Choice(("RUN", "STOPping", "BREak"), "RUN").read(call.only())
        if word == "RUN":
            self._start(Call((), ()), "running")
        else:
            self._stop()

    def _state(self, call: Call) -> str:
        call.none()
        mode = self._polled()
        return "RUN" if mode != "stopped" else "COMP" if self._events["triggered"] else "BRE"

    def _condition(self, call: Call) -> str:
        call.none()
        arming, self._arming = self._arming, False
        mode = self._polled()
        waiting = mode != "stopped" and self._awaits() and not arming
        return f"{WAITING * waiting}"

    def _event(self, call: Call) -> str:
        """The event register: that it waited for another trigger since the last question."""
        call.none()
        self._polled()
        waited, self._events["armed"] = self._events["armed"], False
        return f"{WAITING * waited}"

    def _due(self) -> int:
        return int(self._box.number("records"))

    def _complete(self, call: Call) -> str:
        call.none()
        return f"{int(self._box.text('type') == 'AVER' and self._taken >= self._box.number('count'))}"

    def _reset_average(self, call: Call) -> None:
        call.none()
        self._forget()

    def _box_parameters(self) -> dict[str, Parameter]:
        return {
            "range": Number(ACROSS * 1e-9, ACROSS * 500, ACROSS * 1e-4, "S", style=FINE),
            "position": Number(-500, 1e4, 0, "S", style=".12E"),
            "reference": Choice(("CENTer",), "CENT"),
            "at": Choice(("50",), "50"),
            "trigger": Choice(("EDGE",), "EDGE"),
            "edge": Choice((*SOURCES, "EXTernanalog"), "CH1"),
            **edge_sources(5, 100, FINE),
            "slope": Choice(("POSitive", "NEGative", "EITHer"), "POS"),
            "edge_coupling": Choice(("DC", "AC", "HF"), "DC"),
            "sweep": Choice(("AUTO", "NORMal"), "AUTO"),
            "kind": Choice(("REFResh", "AVERage"), "REFR"),
            "type": Choice(("NORMal", "AVERage"), "NORM"),
            "count": Number(2, 100_000, 2, integer=True),
            "records": Number(1, 100_000, 1, integer=True),
            "rises": Number(0, 65_535, 65_535, integer=True),
            "falls": Number(0, 65_535, 0, integer=True),
            "automatic": Flag(True),
            "points": Number(1, 20_000_000, 10_000, integer=True),
            "form": Choice(("ASCii", "REAL", "UINTeger"), "ASC"),
            "bits": Number(0, 32, 0, integer=True),
            "order": Choice(("MSBFirst", "LSBFirst"), "MSBF"),
        }

    def _channel_parameters(self, n: int) -> dict[str, Parameter]:
        return {
            "display": Flag(n == 1),
            "range": Number(DIVISIONS * 1e-3, DIVISIONS * 10, DIVISIONS * 0.5, "V", style=FINE),
            "offset": Number(-200, 200, 0, "V", style=FINE),
            "place": Number(-5, 5, 0, style=NR3),
            "coupling": Choice(("DCLimit", "ACLimit", "GND"), "DCL"),
            "bandwidth": Choice(("FULL", "B20"), "FULL"),
            "polarity": Choice(("NORMal", "INVerted"), "NORM"),
            "probe": Number(1e-3, 1e4, 1, style=NR3),
            "part": Choice(("DEFault", "MAXimum", "DMAXimum"), "DEF"),
            "label": Name("", 8),
            "skew": Number(-100e-9, 100e-9, 0, "S", style=NR3),
        }
