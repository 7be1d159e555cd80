"""Simulated Keithley 2400 source-meter: sources V or A at a fixed level or along a list, measures at each of them.

    :SOURce:VOLTage 1.5    :OUTPut 1    :READ?  ->  a line of :FORMat:ELEMents for each of :TRIGger:COUNt

Source: Series 2400 SourceMeter User's Manual, 2400S-900-01 Rev. K, chapters 10, 17, 18; 18-47 for the status word, of which the
bits for the compliance (8) and beyond the range (1) are simulated. Not simulated: resistance, the buffer, math, limit tests,
the trigger model beside the count, filters (taken and forgotten), guard and remote sense.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import setting
from sim_devices.instruments.source_meter_box import (
    STYLE,
    Measured,
    SourceMeterBox,
    any_function,
    elements_of,
    meter_parameters,
)
from sim_devices.instruments.timing import Timing

BEYOND = "+9.910000E+37"
OVERFLOW, IN_COMPLIANCE = 1, 8
ELEMENTS = ("VOLT", "CURR", "RES", "TIME", "STAT")
MOST_LEVELS = 100


class Keithley2400(SourceMeterBox):
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
        self._elements: tuple[str, ...] = ELEMENTS
        self._list: list[float] = []
        super().__init__(("KEITHLEY INSTRUMENTS INC.", "MODEL 2400", serial, "C32"), 1, _parameters, load_ohm, lock)

    def _table(self) -> Iterator[Command]:
        yield from self._shared("<1>", "SOURce<1>", "[SENSe<1>]")
        yield setting("OUTPut<1>:SMODe", "off_mode", self._of)
        yield setting("SOURce<1>:CLEar:AUTO", "auto_off", self._of)
        yield setting("SOURce<1>:DELay", "delay", self._of)
        yield setting("SOURce<1>:DELay:AUTO", "delay_auto", self._of)
        for word, level, compliance in (("VOLTage", "volts", "compliance_v"), ("CURRent", "amps", "compliance_a")):
            yield setting(f"SOURce<1>:{word}:MODE", f"{level}_mode", self._of)
            yield setting(f"[SENSe<1>]:{word}[:DC]:PROTection[:LEVel]", compliance, self._of)
            yield Command(f"MEASure:{word}[:DC]", get=lambda call: self._measure())
        listed = "[SOURce<1>]:LIST:VOLTage"
        yield Command(listed, self._put_list, lambda call: ",".join(format(v, STYLE) for v in self._list))
        yield Command("[SENSe<1>]:FUNCtion[:ON]", any_function, lambda call: '"CURR:DC"')
        yield Command("[SENSe<1>]:FUNCtion:ALL", lambda call: call.none())
        yield Command("FORMat:ELEMents[:SENSe<1>]", self._put_elements, lambda call: ",".join(self._elements))
        yield setting("TRIGger:COUNt", "count", self._of)
        yield Command("READ", get=lambda call: self._measure())
        yield setting("SYSTem:AZERo[:STATe]", "azero", self._of)

    def _put_list(self, call: Call) -> None:
        self._list = self._levels_of(call, MOST_LEVELS)

    def _put_elements(self, call: Call) -> None:
        self._elements = elements_of(call, ELEMENTS)

    def _measure(self) -> str:
        """Source and measure, once for each trigger; the list goes on from its beginning."""
        s = self._channels[1]
        count = int(s.number("count"))
        if s.text("volts_mode") != "LIST":
            return ",".join(self._line(self._measured()) for _ in range(count))
        if count > len(self._list):
            raise ScpiError(-221, "more triggers than levels in the list")
        return ",".join(self._line(one) for one in self._through(self._list[:count]))

    def _line(self, one: Measured) -> str:
        values = {
            "VOLT": format(one.volts, STYLE), "CURR": BEYOND if one.beyond else format(one.amps, STYLE), "RES": BEYOND,
            "TIME": format(time.monotonic(), STYLE),
            "STAT": format(float(IN_COMPLIANCE * one.tripped + OVERFLOW * one.beyond), STYLE),
        }  # fmt: skip
        return ",".join(values[name] for name in self._elements)

    def _reset(self) -> None:
        self._list, self._elements = [], ELEMENTS
        super()._reset()


def _parameters() -> Mapping[str, Parameter]:
    return meter_parameters(
        210, 1.05, (0.01, 10, 1.0), off_mode=Choice(("NORMal", "HIMPedance", "ZERO", "GUARd"), "NORM"), auto_off=Flag(),
        delay=Number(0, 999.9999, 0, "S", style=STYLE), delay_auto=Flag(True), count=Number(1, 2500, 1, integer=True),
        azero=Flag(True),
    )  # fmt: skip
