"""Simulated Keysight B2902A source-meter: two channels, levels and lists, trips.

    :SOURce2:VOLTage 1.5   :OUTPut2 1   :FORMat:ELEMents:SENSe CURR,STAT   :MEASure? (@2)  ->  +1.500000E-03,+0.000000E+00

Status: 2 held back at the compliance, 8192 beyond the range, whose current is +9.910000E+37.

Source: Keysight B2900 SCPI Command Reference, edition 2, 1-14 and chapter 4. Not simulated: pulses, limit tests, traces, math,
the arm layer, output filters, ranges by the sum of both channels; the trigger model is a count, and :INITiate measures at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import setting
from sim_devices.instruments.source_box import OUTPUT, channels_of
from sim_devices.instruments.source_meter_box import (
    STYLE,
    Measured,
    SourceMeterBox,
    any_function,
    elements_of,
    meter_parameters,
)

HELD_BACK, BEYOND = 2, 8192
NAN = "+9.910000E+37"
ORDER = ("VOLT", "CURR", "RES", "TIME", "STAT", "SOUR")
MOST_LEVELS = 2500


class KeysightB2900(SourceMeterBox):
    """A simulated source-meter.

    Args:
        serial: serial number.
        model: "B2901A" has one channel, "B2902A" two.
        load_ohm: of the resistor at the terminals of each channel.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, serial: str = "SIM-B2902A-0001", *, model: str = "B2902A", load_ohm: float = 1e3,
        lock: threading.Condition | None = None,
    ) -> None:  # fmt: skip
        self._elements: tuple[str, ...] = ORDER
        self._lists: dict[int, list[float]] = {}
        self._found: dict[int, list[Measured]] = {}
        identity = ("Keysight Technologies", model, serial, "3.4.2011.5100")
        super().__init__(identity, 1 if model[4] == "1" else 2, _parameters, load_ohm, lock)

    def _table(self) -> Iterator[Command]:
        n = f"<{self._count}>"
        yield from self._shared(n, f"[SOURce{n}]", f"SENSe{n}")
        yield setting(f"OUTPut{n}:ON:AUTO", "auto_on", self._of)
        yield setting(f"OUTPut{n}:OFF:MODE", "off_mode", self._of)
        yield setting(f"SENSe{n}:REMote", "four_wires", self._of)
        yield Command(f"SENSe{n}:FUNCtion[:ON]", any_function, lambda call: '"VOLT","CURR"')
        for word, level, compliance in (("VOLTage", "volts", "compliance_v"), ("CURRent", "amps", "compliance_a")):
            yield setting(f"[SOURce{n}]:{word}:MODE", f"{level}_mode", self._of)
            yield setting(f"SENSe{n}:{word}[:DC]:PROTection[:LEVel]", compliance, self._of)
            yield Command(f"SENSe{n}:{word}[:DC]:PROTection:TRIPped", get=self._tripped)
        yield Command(f"[SOURce{n}]:LIST:VOLTage", self._put_list, self._get_list)
        yield setting(f"TRIGger{n}[:ALL]:COUNt", "count", self._of)
        yield setting(f"TRIGger{n}:ACQuire:DELay", "delay", self._of)
        yield Command("FORMat:ELEMents:SENSe", self._put_elements, lambda call: ",".join(self._elements))
        yield Command("INITiate[:IMMediate][:ALL]", lambda call: self._run(self._numbers(call)))
        yield Command("FETCh:ARRay", get=lambda call: ",".join(self._fetched(self._numbers(call))))
        yield Command("MEASure", get=lambda call: self._each(call, self._elements))
        for word, element in (("VOLTage", "VOLT"), ("CURRent", "CURR"), ("RESistance", "RES")):
            yield Command(f"MEASure:{word}[:DC]", get=lambda call, e=element: self._each(call, (e,)))  # type: ignore[misc]

    def _numbers(self, call: Call) -> list[int]:
        return channels_of(call.only(), self._channels) if call.tokens else [1]

    def _tripped(self, call: Call) -> str:
        n = call.channel if call.suffixes else 1
        return str(int(self._channels[n].flag(OUTPUT) and self._measured(n).tripped))

    def _each(self, call: Call, elements: tuple[str, ...]) -> str:
        return ",".join(self._line(self._measured(n), elements) for n in self._numbers(call))

    def _put_list(self, call: Call) -> None:
        n = call.channel if call.suffixes else 1
        self._lists[n] = self._levels_of(call, MOST_LEVELS, n)

    def _get_list(self, call: Call) -> str:
        return ",".join(format(v, STYLE) for v in self._lists.get(call.channel if call.suffixes else 1, []))

    def _run(self, numbers: list[int]) -> None:
        """All channels go through their lists step by step, so that each is measured with the others where they are then."""
        counts = {n: int(self._channels[n].number("count")) for n in numbers}
        levels = {n: self._levels(n, counts[n]) for n in numbers}
        self._found = {n: [] for n in numbers}
        for step in range(max(counts.values())):
            for n in numbers:
                if step < counts[n]:
                    self._channels[n].change(volts=levels[n][step])
            for n in numbers:
                if step < counts[n]:
                    self._found[n].append(self._measured(n))

    def _levels(self, n: int, count: int) -> list[float]:
        s = self._channels[n]
        if s.text("volts_mode") != "LIST":
            return [s.number("volts")] * count
        if count > len(self._lists.get(n, [])):
            raise ScpiError(-221, "more triggers than levels in the list")
        return self._lists[n][:count]

    def _fetched(self, numbers: list[int]) -> Iterator[str]:
        if not all(self._found.get(n) for n in numbers):
            raise ScpiError(-230, "nothing was measured")
        return (self._line(one, self._elements) for n in numbers for one in self._found[n])

    def _put_elements(self, call: Call) -> None:
        self._elements = elements_of(call, ORDER)

    def _line(self, one: Measured, elements: tuple[str, ...]) -> str:
        values = {
            "VOLT": format(one.volts, STYLE), "CURR": NAN if one.beyond else format(one.amps, STYLE),
            "RES": format(one.volts / one.amps, STYLE) if one.amps else NAN, "TIME": format(time.monotonic(), STYLE),
            "STAT": format(float(HELD_BACK * one.tripped + BEYOND * one.beyond), STYLE), "SOUR": format(one.volts, STYLE),
        }  # fmt: skip
        return ",".join(values[name] for name in elements)

    def _reset(self) -> None:
        self._elements, self._lists, self._found = ORDER, {}, {}
        super()._reset()


def _parameters() -> Mapping[str, Parameter]:
    return meter_parameters(
        210, 3.03, (4e-4, 100, 1.0), auto_on=Flag(True), off_mode=Choice(("NORMal", "HIZ", "ZERO"), "NORM"),
        four_wires=Flag(), count=Number(1, 100_000, 1, integer=True), delay=Number(0, 1e5, 0, "S", style=STYLE),
    )  # fmt: skip
