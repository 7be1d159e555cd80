"""Simulated Tektronix 2, 4, 5 or 6 Series MSO oscilloscope: four channels, words of 16 bits, a ladder of rates.

    YMUlt = scale / 25, of two bytes scale / 6400

Rates are 1, 2, 5, 10, ... times below the highest: another one becomes the next higher. What it shares with others stands in
tektronix_scope.py. Not simulated: measurements, math, digital channels, FastFrame, automatic horizontal mode, the mains as
trigger.

Source: 4/5/6 Series MSO Programmer Manual (077-1305). That words of 12 bits are left-justified is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim_devices.instruments.parameters import Choice, Name, Number, Parameter
from sim_devices.instruments.sampling import Sampling
from sim_devices.instruments.scope_box import Model
from sim_devices.instruments.scope_record import Record
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import setting
from sim_devices.instruments.tektronix_scope import FINE, NR3, SOURCES, TektronixScope

MODELS = {
    "MSO44": Model("MSO44", 6.25e9, 31_250_000, 12), "MSO54": Model("MSO54", 6.25e9, 62_500_000, 12),
    "MSO64": Model("MSO64", 25e9, 62_500_000, 12), "MSO24": Model("MSO24", 1.25e9, 10_000_000, 8),
}  # fmt: skip
LADDER = tuple(digit * 10**power for power in range(9) for digit in (1, 2, 5))


class TektronixMSO(TektronixScope):
    """A simulated scope of the 2, 4, 5 or 6 Series, as its programmer manual describes it. Arguments as of ScopeBox."""

    models = MODELS
    usual = ("MSO54", "C0SIM001")
    firmware = "CF:91.1CT FV:2.6.39.1203"
    external_v = 8
    style = ".9E"

    def _sampling(self) -> Sampling:
        points = min(int(self._box.number("points")), self._points)
        return Sampling(self._box.number("rate"), points, 1)

    def _coded(self, words: NDArray[np.int16], wide: bool) -> NDArray[Any]:
        return words if wide else (words >> 8).astype(np.int8)

    def _step_v(self, record: Record, wide: bool) -> float:
        return record.range_v / (65536 if wide else 256)

    def _own_commands(self) -> Iterator[Command]:
        the_box, of = self._the_box, self._of
        yield setting("TRIGger:AUXLevel", "level_EXT", the_box)
        yield setting("HORizontal:MODe", "horizontal", the_box)
        for pattern, name in (("TERmination", "impedance"), ("PROBEFunc:EXTAtten", "attenuation"), ("LABel:NAMe", "label")):
            yield setting(f"CH<4>:{pattern}", name, of)
        yield setting("DISplay:GLObal:CH<4>:STATE", "display", of)
        for pattern in ("HORizontal:MODe:SAMPLERate", "HORizontal:SAMPLERate"):
            yield Command(pattern, self._put_rate, lambda call: f"{self._box.number('rate'):{FINE}}")
        for pattern in ("HORizontal:MODe:RECOrdlength", "HORizontal:RECOrdlength"):
            yield setting(pattern, "points", the_box)
        for pattern in ("HORizontal:MODe:SCAle", "HORizontal:SCAle"):
            yield Command(pattern, self._put_scale, lambda call: f"{self._scale_s():{FINE}}")
        yield Command("DATa:SOUrce:AVAILable", get=lambda call: ",".join(f"CH{n}" for n in sorted(self.wanted())))

    def _put_rate(self, call: Call) -> None:
        wanted = float(self._box.read("rate", call.only()))
        slowest = [divider for divider in LADDER if self.data.clock_hz / divider >= wanted * (1 - 1e-6)]
        self._box.change(rate=self.data.clock_hz / max(slowest, default=1))

    def _scale_s(self) -> float:
        return self._sampling().points / self._sampling().rate_hz / self._divisions_across()

    def _put_scale(self, call: Call) -> None:
        """The rate stays, as with CONFIGure RECORDLength: the record gets longer or shorter."""
        span_s = self._divisions_across() * Number(1e-10, 1e3, 1e-6, "S").read(call.only())
        self._box.change(points=float(max(1000, min(round(span_s * self._box.number("rate")), self._points))))

    def _own_parameters(self) -> Mapping[str, Parameter]:
        return {
            "edge": Choice((*SOURCES, "AUXiliary"), "CH1"),
            "count": Number(2, 10_240, 16, integer=True, style=FINE),
            "horizontal": Choice(("AUTO", "MANual"), "AUTO"),
            "rate": Number(1.5625, 25e9, 6.25e6, style=FINE),
            "points": Number(1000, 62_500_000, 1250, integer=True, style=FINE),
            "width": Number(1, 2, 1, integer=True),
        }

    def _own_channel_parameters(self) -> Mapping[str, Parameter]:
        return {
            "range": Number(self.divisions * 500e-6, self.divisions * 10, self.divisions * 0.1, "V", style=FINE),
            "impedance": Number(50, 1e6, 1e6, "OHM", style=FINE),
            "bandwidth": Number(20e6, 10e9, 500e6, "HZ", style=FINE),
            "probe": Number(1e-3, 1e3, 1, style=NR3),
            "attenuation": Number(1e-3, 1e3, 1, style=NR3),
            "label": Name("", 32),
        }
