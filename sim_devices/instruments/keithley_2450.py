"""Simulated Keithley 2450 source-meter in its SCPI language: levels, lists, linear sweeps, reading buffers, trips.

    :SOURce:VOLTage 1.5   :OUTPut 1   :READ? "defbuffer1",READ,SOURSTATus  ->  1.500000E-03,128      160: held back at the limit

A current beyond a range that was chosen reads 9.900000E+37. In another language than SCPI it knows *LANG, *IDN?, *RST, *CLS.

Source: Model 2450 Reference Manual, 2450-901-01 Rev. B, section 6 (SCPI commands), 8-29 (state of the source), 2-127 ff.
(limits). Not simulated: four wires, filters and relative values (taken and forgotten), digital lines, the trigger model beside
sweeps, settings that the instrument adjusts to each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

import numpy as np

from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter, number
from sim_devices.instruments.program_message import Quoted, ScpiError
from sim_devices.instruments.reading_buffer import OVERFLOW, Buffers, Language, Reading, TouchBox
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import setting
from sim_devices.instruments.source_box import OUTPUT
from sim_devices.instruments.source_meter_box import STYLE, Measured, SourceMeterBox, meter_parameters

LIMITED, OUTPUT_ON = 32, 128
MOST_LISTED, MOST_POINTS = 100, 2500
SENSED = {"CURR": '"CURR:DC"', "VOLT": '"VOLT:DC"', "RES": '"RES"'}
UNITS = {"CURR": "A", "VOLT": "V", "RES": "Ohm"}


class Keithley2450(TouchBox, SourceMeterBox):
    """A simulated source-meter.

    Args:
        serial: serial number.
        load_ohm: of the resistor at its terminals.
        language: that it was switched on in.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, serial: str = "SIM-2450-0001", *, load_ohm: float = 1e3, language: str = "SCPI",
        lock: threading.Condition | None = None,
    ) -> None:  # fmt: skip
        self._language = Language(language)
        self._buffers = Buffers(lambda: self._reading(self._measured()), lambda: UNITS[self._sense])
        self._sense, self._list, self._sweep = "CURR", list[float](), list[float]()
        super().__init__(("KEITHLEY INSTRUMENTS", "MODEL 2450", serial, "1.7.12b"), 1, _parameters, load_ohm, lock)

    def _table(self) -> Iterator[Command]:
        yield from self._shared("<1>", "SOURce<1>", "[SENSe<1>]")
        yield from self._touched(self._of)
        for word, limit, compliance in (("VOLTage", "ILIMit", "compliance_a"), ("CURRent", "VLIMit", "compliance_v")):
            yield setting(f"SOURce<1>:{word}:{limit}[:LEVel]", compliance, self._of)
            yield Command(f"SOURce<1>:{word}:{limit}[:LEVel]:TRIPped", get=lambda call: self._tripped())
            yield setting(f"SOURce<1>:{word}:DELay", "delay", self._of)
            yield setting(f"SOURce<1>:{word}:DELay:AUTO", "delay_auto", self._of)
            yield setting(f"SOURce<1>:{word}:READ:BACK", "read_back", self._of)
            yield setting(f"OUTPut<1>:{word}:SMODe", "off_mode", self._of)
            yield setting(f"[SENSe<1>]:{word}[:DC]:RSENse", "four_wires", self._of)
            yield from self._averaged(f"[SENSe<1>]:{word}[:DC]", self._of)
            yield Command(f"SOURce<1>:LIST:{word}", self._put_list, lambda c: ",".join(format(v, STYLE) for v in self._list))
            yield Command(f"SOURce<1>:LIST:{word}:APPend", self._append)
            yield Command(f"SOURce<1>:SWEep:{word}:LIST", self._prepare_list)
            yield Command(f"SOURce<1>:SWEep:{word}:LINear", self._prepare_line)
        yield setting("[SENSe<1>]:RESistance:RANGe[:UPPer]", "sense_ohms_range", self._of)
        yield setting("[SENSe<1>]:RESistance:RANGe:AUTO", "sense_ohms_range_auto", self._of)
        yield setting("[SENSe<1>]:RESistance:NPLCycles", "nplc", self._of)
        yield setting("[SENSe<1>]:RESistance:RSENse", "four_wires", self._of)
        yield Command("[SENSe<1>]:FUNCtion[:ON]", self._put_sense, lambda call: SENSED[self._sense])
        yield setting("ROUTe:TERMinals", "terminals", self._of)
        yield Command("STATus:CLEar", lambda call: self._scpi.status.clear())
        yield Command("INITiate[:IMMediate]", lambda call: self._run(call))

    def _reading(self, one: Measured) -> Reading:
        by_function = {"CURR": one.amps, "VOLT": one.volts, "RES": one.volts / one.amps if one.amps else OVERFLOW}
        value = OVERFLOW if one.beyond and self._sense == "CURR" else by_function[self._sense]
        sourced = one.volts if self._channels[1].text("function") == "VOLT" else one.amps
        return Reading(value, sourced, OUTPUT_ON + LIMITED * one.tripped, time.monotonic())

    def _tripped(self) -> str:
        return str(int(self._channels[1].flag(OUTPUT) and self._measured().tripped))

    def _put_sense(self, call: Call) -> None:
        token = call.only()
        word = token.text.upper().removesuffix(":DC") if isinstance(token, Quoted) else ""
        found = {"CURRENT": "CURR", "VOLTAGE": "VOLT", "RESISTANCE": "RES"}.get(word, word)
        if found not in SENSED:
            raise ScpiError(-224, word[:24])
        self._sense = found

    def _put_list(self, call: Call) -> None:
        self._list = self._levels_of(call, MOST_LISTED)

    def _append(self, call: Call) -> None:
        found = self._levels_of(call, MOST_LISTED)
        if len(self._list) + len(found) > MOST_POINTS:
            raise ScpiError(-223, f"{MOST_POINTS} values at most")
        self._list += found

    def _prepare_list(self, call: Call) -> None:
        first, *_ = call.take(1, 5)
        start = int(number(first, ""))
        if not 1 <= start <= len(self._list):
            raise ScpiError(-222, f"value {start} of {len(self._list)}")
        self._sweep = self._list[start - 1 :]

    def _prepare_line(self, call: Call) -> None:
        start, stop, points, *_ = call.take(3, 9)
        ends = [float(self._channels[1].read("volts", token)) for token in (start, stop)]
        count = int(number(points, ""))
        if not 2 <= count <= MOST_POINTS:
            raise ScpiError(-222, f"{count} points")
        self._sweep = np.linspace(ends[0], ends[1], count).tolist()

    def _run(self, call: Call) -> None:
        call.none()
        if not self._sweep:
            raise ScpiError(-221, "no sweep was set up")
        self._buffers.of["defbuffer1"].clear()
        for one in self._through(self._sweep):
            self._buffers.keep(self._reading(one))

    def _reset(self) -> None:
        self._sense, self._list, self._sweep = "CURR", [], []
        self._buffers.reset()
        super()._reset()


def _parameters() -> Mapping[str, Parameter]:
    return meter_parameters(
        210, 1.05, (0.01, 10, 1.0), off_mode=Choice(("NORMal", "HIMPedance", "ZERO", "GUARd"), "NORM"),
        delay=Number(0, 1e4, 0, "S", style=STYLE), delay_auto=Flag(True), read_back=Flag(True), four_wires=Flag(),
        average=Flag(), averages=Number(1, 100, 10, integer=True), average_mode=Choice(("MOVing", "REPeat"), "REP"),
        azero=Flag(True), count=Number(1, 300_000, 1, integer=True), format=Choice(("ASCii", "REAL", "SREal"), "ASC"),
        terminals=Choice(("FRONt", "REAR"), "FRON"), sense_ohms_range=Number(20, 200e6, 200e3, style=STYLE),
        sense_ohms_range_auto=Flag(True),
    )  # fmt: skip
