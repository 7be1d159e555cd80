"""Simulated Keithley DMM6500 multimeter in its SCPI language: DC volts, DC amperes, ohms, reading buffers.

    :SENSe:FUNCtion "VOLT:DC"    :SENSe:VOLTage:RANGe 9    :READ?  ->  1.500000E+00        the range is then 10 V

A value beyond 120 % of a range that was chosen reads 9.900000E+37; ranges are the ones that the instrument has. In another
language than SCPI it knows *LANG, *IDN?, *RST, *CLS.

Source: Model DMM6500 Reference Manual, DMM6500-901-01, "SCPI command reference"; data sheet (ranges, 20 % above them). Not
simulated: AC, frequency, temperature, scans, digitizing; filters, relative values and displays are taken and forgotten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from sim_devices.instruments.meter_box import MeterBox
from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter
from sim_devices.instruments.program_message import Quoted, ScpiError
from sim_devices.instruments.reading_buffer import OVERFLOW, Buffers, Language, Reading, TouchBox
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting

STYLE = ".6E"
ABOVE = 1.2
FUNCTIONS = {"VOLT:DC": ("VOLTage", "V", (0.1, 1, 10, 100, 1000)),
             "CURR:DC": ("CURRent", "A", (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 3)),
             "RES": ("RESistance", "Ohm", (10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8))}  # fmt: skip
SPELLED = {"VOLT": "VOLT:DC", "CURR": "CURR:DC", "VOLTAGE:DC": "VOLT:DC", "CURRENT:DC": "CURR:DC", "VOLTAGE": "VOLT:DC",
           "CURRENT": "CURR:DC", "RESISTANCE": "RES"}  # fmt: skip


class KeithleyDMM6500(TouchBox, MeterBox):
    """A simulated multimeter.

    Args:
        serial: serial number.
        there: what is at its input, in the unit of whatever it measures.
        language: that it was switched on in.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, serial: str = "SIM-DMM6500-0001", *, there: float = 0.0, language: str = "SCPI",
        lock: threading.Condition | None = None,
    ) -> None:  # fmt: skip
        self._language = Language(language)
        self._buffers = Buffers(self._reading, lambda: FUNCTIONS[self._settings.text("function")][1])
        super().__init__(("KEITHLEY INSTRUMENTS", "MODEL DMM6500", serial, "1.7.12b"), _parameters(), lambda _: there, lock)

    def _table(self) -> Iterator[Command]:
        def of(call: Call) -> Settings:
            return self._settings

        yield from self._touched(of)
        yield Command("[SENSe<1>]:FUNCtion[:ON]", self._put_function, lambda call: self._settings.text("function"))
        for function, (word, _, ranges) in FUNCTIONS.items():
            root, key = f"[SENSe<1>]:{word}" + ("" if function == "RES" else "[:DC]"), f"range {function}"
            yield Command(
                f"{root}:RANGe[:UPPer]",
                lambda call, k=key, r=ranges: self._put_range(call, k, r),  # type: ignore[misc]
                lambda call, k=key: self._settings.shown(k, call),  # type: ignore[misc]
            )
            yield setting(f"{root}:RANGe:AUTO", f"auto {function}", of)
            yield setting(f"{root}:NPLCycles", "nplc", of)
            yield from self._averaged(root, of)
            yield setting(f"{root}:RELative", f"relative {function}", of)
            yield setting(f"{root}:RELative:STATe", "relative", of)
            yield setting(f"DISPlay:{word}" + ("" if function == "RES" else "[:DC]") + ":DIGits", "digits", of)
        yield setting("ROUTe:SCAN:COUNt:SCAN", "scans", of)
        yield setting("ROUTe:SCAN:INTerval", "interval", of)
        yield setting("DISPlay:LIGHt:STATe", "light", of)
        yield Command("ROUTe:TERMinals", get=lambda call: "FRON")

    def _put_function(self, call: Call) -> None:
        token = call.only()
        word = token.text.upper() if isinstance(token, Quoted) else ""
        found = SPELLED.get(word, word)
        if found not in FUNCTIONS:
            raise ScpiError(-224, word[:24])
        self._settings.change(function=found)

    def _put_range(self, call: Call, key: str, ranges: tuple[float, ...]) -> None:
        """Take the smallest range that holds the value; what is chosen by hand is not automatic any more."""
        wanted = abs(float(self._settings.read(key, call.only())))
        fits = next((one for one in ranges if wanted <= one * ABOVE), ranges[-1])
        self._settings.change(**{key: fits, key.replace("range", "auto"): False})

    def _reading(self) -> Reading:
        s = self._settings
        function, value = s.text("function"), self._there()
        if not s.flag(f"auto {function}") and abs(value) > ABOVE * s.number(f"range {function}"):
            value = OVERFLOW
        return Reading(value, at_s=time.monotonic())

    def _reset(self) -> None:
        self._buffers.reset()
        super()._reset()


def _parameters() -> dict[str, Parameter]:
    each: dict[str, Parameter] = {}
    for function, (_, unit, ranges) in FUNCTIONS.items():
        top = ABOVE * ranges[-1]
        each[f"range {function}"] = Number(-top, top, ranges[-1], unit.upper(), style=STYLE)
        each[f"auto {function}"] = Flag(True)
        each[f"relative {function}"] = Number(-top, top, 0.0, unit.upper(), style=STYLE)
    return {
        "function": Choice(tuple(FUNCTIONS), "VOLT:DC"), "nplc": Number(5e-4, 15, 1.0, style=STYLE), "average": Flag(),
        "averages": Number(1, 100, 10, integer=True, style="d"), "average_mode": Choice(("MOVing", "REPeat"), "REP"),
        "azero": Flag(True), "relative": Flag(), "digits": Number(3, 6, 6, integer=True),
        "count": Number(1, 1_000_000, 1, integer=True), "format": Choice(("ASCii", "REAL", "SREal"), "ASC"),
        "scans": Number(1, 9999, 1, integer=True), "interval": Number(0, 1e5, 0, "S", style=STYLE),
        "light": Choice(("ON100", "ON75", "ON50", "ON25", "OFF", "BLACkout"), "ON50"), **each,
    }  # fmt: skip
