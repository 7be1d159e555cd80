"""Simulated Keithley 2400 source-meter: sources V or A at a fixed level or along a list, measures at each of them.

    :SOURce:VOLTage 1.5    :OUTPut 1    :READ?  ->  a line of :FORMat:ELEMents for each of :TRIGger:COUNt

What is connected is a resistor, unless a plant says what current flows (`conducts`). A current beyond the compliance is limited
to it; one beyond the measuring range is answered +9.910000E+37.

Source: Series 2400 SourceMeter User's Manual, 2400S-900-01 Rev. K, chapters 10, 17, 18. Not simulated: resistance, the buffer,
math, limit tests, the trigger model beside the count, filters (taken and forgotten), guard and remote sense.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter, numbers
from sim_devices.instruments.program_message import Quoted, ScpiError, Token
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting
from sim_devices.instruments.source_box import OUTPUT, SourceBox
from sim_devices.instruments.timing import Timing

STYLE = "+.6E"
BEYOND = "+9.910000E+37"
ELEMENTS = {"VOLT": "VOLT", "CURR": "CURR", "RES": "RES", "TIME": "TIME", "STAT": "STAT",
            "VOLTAGE": "VOLT", "CURRENT": "CURR", "RESISTANCE": "RES", "STATUS": "STAT"}  # fmt: skip
MOST_LEVELS = 100
Load = Callable[[float], float]  # V at the terminals -> A that flows


class Keithley2400(SourceBox):
    """A simulated source-meter.

    Args:
        serial: serial number.
        load_ohm: of the resistor at its terminals.
        lock: of the bench, which gives it.
    """

    typical = Timing(2e-3, 100e3, 100e3, acquire_s=20e-3, settle_s=1e-3)  # "NPLC": 1 is 20 ms; rest assumed

    def __init__(
        self, serial: str = "SIM-2400-0001", *, load_ohm: float = 1e3, lock: threading.Condition | None = None
    ) -> None:
        self.conducts: Load = lambda volts: volts / load_ohm
        self._ohm, self._elements = load_ohm, ["VOLT", "CURR", "RES", "TIME", "STAT"]
        self._list: list[float] = []
        self._listed: float | None = None  # the level of the list that is held
        super().__init__(("KEITHLEY INSTRUMENTS INC.", "MODEL 2400", serial, "C32"), {1: _parameters()}, "volts", lock)

    def _table(self) -> Iterator[Command]:
        def of(call: Call) -> Settings:
            return self._channels[1]

        source, sense = "[SOURce<1>]", "[SENSe<1>]"
        yield setting("OUTPut<1>[:STATe]", OUTPUT, of)
        yield setting("OUTPut<1>:SMODe", "off_mode", of)
        yield setting("SOURce<1>:FUNCtion[:MODE]", "function", of)
        yield setting("SOURce<1>:CLEar:AUTO", "auto_off", of)
        yield setting("SOURce<1>:DELay", "delay", of)
        yield setting("SOURce<1>:DELay:AUTO", "delay_auto", of)
        for word, level, span, compliance in (("VOLTage", "volts", "volts_range", "compliance_v"),
                                              ("CURRent", "amps", "amps_range", "compliance_a")):  # fmt: skip
            yield Command(
                f"SOURce<1>:{word}[:LEVel][:IMMediate][:AMPLitude]",
                self._put(level),
                lambda c, n=level: of(c).shown(n, c),  # type: ignore[misc]
            )
            yield setting(f"SOURce<1>:{word}:MODE", f"{level}_mode", of)
            yield setting(f"SOURce<1>:{word}:RANGe", span, of)
            yield setting(f"SOURce<1>:{word}:RANGe:AUTO", f"{span}_auto", of)
            yield setting(f"{sense}:{word}[:DC]:PROTection[:LEVel]", compliance, of)
            yield setting(f"{sense}:{word}[:DC]:RANGe[:UPPer]", f"sense_{span}", of)
            yield setting(f"{sense}:{word}[:DC]:RANGe:AUTO", f"sense_{span}_auto", of)
            yield setting(f"{sense}:{word}[:DC]:NPLCycles", "nplc", of)
            yield Command(f"MEASure:{word}[:DC]", get=lambda call: self._measure())
        yield Command(f"{source}:LIST:VOLTage", self._put_list, lambda call: ",".join(format(v, STYLE) for v in self._list))
        yield Command(f"{sense}:FUNCtion[:ON]", _function, lambda call: '"CURR:DC"')
        yield Command(f"{sense}:FUNCtion:ALL", lambda call: call.none())
        yield Command("FORMat:ELEMents[:SENSe<1>]", self._put_elements, lambda call: ",".join(self._elements))
        yield setting("TRIGger:COUNt", "count", of)
        yield Command("READ", get=lambda call: self._measure())
        yield setting("SYSTem:AZERo[:STATe]", "azero", of)

    def _put(self, level: str) -> Callable[[Call], None]:
        def put(call: Call) -> None:
            s = self._channels[1]
            if s.text(f"{level}_mode") != "FIX":
                raise ScpiError(-221, "not in the list mode")
            value = float(s.read(level, call.only()))
            span = s.number(f"{level}_range")
            if not s.flag(f"{level}_range_auto") and abs(value) > 1.05 * span:
                raise ScpiError(-222, f"beyond the range of {span:g}")
            s.change(**{level: value})

        return put

    def _put_list(self, call: Call) -> None:
        levels = [float(v) for v in numbers(call.take(1, MOST_LEVELS))]
        for level in levels:
            self._channels[1].read("volts", f"{level:.9g}")  # refuses what is out of range
        self._list = levels

    def _put_elements(self, call: Call) -> None:
        words = [_upper(token) for token in call.take(1, 5)]
        if any(word not in ELEMENTS for word in words):
            raise ScpiError(-224, ",".join(words)[:24])
        asked = {ELEMENTS[word] for word in words}
        self._elements = [name for name in ("VOLT", "CURR", "RES", "TIME", "STAT") if name in asked]

    def _measure(self) -> str:
        """Source and measure, once for each trigger; the list goes on from its beginning."""
        s = self._channels[1]
        if not s.flag(OUTPUT):
            raise ScpiError(-221, "the output is off")
        count = int(s.number("count"))
        if s.text("volts_mode") != "LIST":
            return ",".join(self._line(s.number("volts")) for _ in range(count))
        if count > len(self._list):
            raise ScpiError(-221, "more triggers than levels in the list")
        found = []
        for level in self._list[:count]:
            Settings.change(s, volts=level)
            found.append(self._line(level))
        return ",".join(found)

    def _line(self, volts: float) -> str:
        s = self._channels[1]
        if self.timing is not None:
            self._operations.pause(self.timing.acquire_s * s.number("nplc"))
        compliance = abs(s.number("compliance_a"))
        if s.text("function") == "CURR":
            amps = s.number("amps")
            limit = abs(s.number("compliance_v"))
            volts = min(max(amps * self._ohm, -limit), limit)
        else:
            amps = min(max(self.conducts(volts), -compliance), compliance)
        beyond = not s.flag("sense_amps_range_auto") and abs(amps) > 1.05 * s.number("sense_amps_range")
        values = {
            "VOLT": format(volts, STYLE), "CURR": BEYOND if beyond else format(amps, STYLE), "RES": BEYOND,
            "TIME": format(time.monotonic(), STYLE), "STAT": format(0.0, STYLE),
        }  # fmt: skip
        return ",".join(values[name] for name in self._elements)

    def _reset(self) -> None:
        self._list, self._elements = [], ["VOLT", "CURR", "RES", "TIME", "STAT"]
        super()._reset()


def _parameters() -> Mapping[str, Parameter]:
    """The settings, with the defaults of ``*RST``."""
    modes = ("FIXed", "LIST", "SWEep")
    return {
        OUTPUT: Flag(), "off_mode": Choice(("NORMal", "HIMPedance", "ZERO", "GUARd"), "NORM"),
        "function": Choice(("VOLTage", "CURRent"), "VOLT"), "auto_off": Flag(),
        "delay": Number(0, 999.9999, 0, "S", style=STYLE), "delay_auto": Flag(True),
        "volts": Number(-210, 210, 0, "V", style=STYLE), "volts_mode": Choice(modes, "FIX"),
        "volts_range": Number(-210, 210, 21, "V", style=STYLE), "volts_range_auto": Flag(),
        "amps": Number(-1.05, 1.05, 0, "A", style=STYLE), "amps_mode": Choice(modes, "FIX"),
        "amps_range": Number(-1.05, 1.05, 1.05e-4, "A", style=STYLE), "amps_range_auto": Flag(),
        "compliance_v": Number(-210, 210, 21, "V", style=STYLE), "compliance_a": Number(-1.05, 1.05, 1.05e-4, "A", style=STYLE),
        "sense_volts_range": Number(-210, 210, 21, "V", style=STYLE), "sense_volts_range_auto": Flag(True),
        "sense_amps_range": Number(-1.05, 1.05, 1.05e-4, "A", style=STYLE), "sense_amps_range_auto": Flag(True),
        "nplc": Number(0.01, 10, 1.0, style=STYLE), "count": Number(1, 2500, 1, integer=True), "azero": Flag(True),
    }  # fmt: skip


def _upper(token: Token) -> str:
    if not isinstance(token, str):
        raise ScpiError(-104)
    return token.upper()


def _function(call: Call) -> None:
    """Take what is to be measured; it measures all of it in any case."""
    if not all(isinstance(token, Quoted) for token in call.take(1, 3)):
        raise ScpiError(-104)
