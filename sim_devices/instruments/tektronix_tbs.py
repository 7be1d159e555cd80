"""Simulated Tektronix TBS1000C, TBS2000 or TBS2000B oscilloscope: two or four channels, bytes, time bases of 1, 2, 4.

    rate = record length / (16 x scale)        a record is 16 divisions long, at 1 GSa/s at most
    YMUlt = scale / 25, also of two bytes, which are a byte times 256
    XZEro and others as engineers write them: -1.6000E-3, five digits

After *RST a probe counts as 10:1 (PRObe:GAIN 0.1), which is told and has no effect here. What it shares with others stands in
tektronix_scope.py. Not simulated: measurements, math, peak detection, roll, FFT.

Source: TBS2000 Series Programmer Manual (077-1149-02); TBS1000C specifications. The reply of a TBS2204B to WFMOutpre?, which
others recorded, is among the tests. That YMUlt does not follow the width is what users tell; that a scale between two becomes
the longer one, and that a longer record at a fast time base has the highest rate, is assumed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim_devices.instruments.parameters import Choice, Number, Parameter
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.sampling import Sampling
from sim_devices.instruments.scope_box import Model
from sim_devices.instruments.scope_record import Record
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings
from sim_devices.instruments.tektronix_scope import FINE, NR3, SOURCES, TektronixScope

ACROSS = 16
SCALES_S = tuple(float(f"{digit}e{power}") for power in range(-9, 3) for digit in (1, 2, 4))[1:-2]  # 2 ns to 100 s


@dataclass(frozen=True, slots=True)
class Family:
    """Channels, divisions of the screen's height, lengths of records, and an external trigger or none."""

    channels: int
    divisions: int
    lengths: tuple[int, ...]
    external: bool


MODELS = {
    "TBS1072C": Model("TBS 1072C", 1e9, 20_000, 8), "TBS2104": Model("TBS2104", 1e9, 2_000_000, 8),
    "TBS2202B": Model("TBS2202B", 1e9, 2_000_000, 8),
    "TBS2204B": Model("TBS2204B", 1e9, 2_000_000, 8),
}  # fmt: skip
LONG = (2_000, 20_000, 200_000, 2_000_000)
FAMILIES = {
    "TBS1072C": Family(2, 8, (1_000, 2_000, 20_000), True), "TBS2104": Family(4, 10, LONG, False),
    "TBS2202B": Family(2, 10, LONG, False),
    "TBS2204B": Family(4, 10, LONG, False),
}  # fmt: skip


class TektronixTBS(TektronixScope):
    """A simulated scope of the TBS1000C, TBS2000 or TBS2000B series, as its programmer manual describes it.

    Arguments as of ScopeBox, and

    Args:
        trigger_channel: the channel that the bench's SYNC leads into; 0: AUX IN, where the model has one.
    """

    models = MODELS
    usual = ("TBS1072C", "C0SIM002")
    firmware = "CF:91.1CT FV:v1.27.16; FPGA:v1.21;"
    external_v = 6.25
    style = ""

    def __init__(
        self,
        serial: str | None = None,
        *,
        model: str | None = None,
        trigger_channel: int = 0,
        lock: threading.Condition | None = None,
        memory_samples: int | None = None,
        pace: float = 0.0,
        auto_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._family = FAMILIES.get(model or self.usual[0], FAMILIES[self.usual[0]])
        self.divisions, self.channel_count = self._family.divisions, self._family.channels  # type: ignore[misc]
        self.trigger_input = f"CHAN{trigger_channel}" if trigger_channel else "EXT"
        super().__init__(serial, model=model, lock=lock, memory_samples=memory_samples, pace=pace, auto_s=auto_s, clock=clock)

    def _divisions_across(self) -> int:
        return ACROSS

    def _sampling(self) -> Sampling:
        points = min(int(self._box.number("points")), self._points)
        return Sampling(min(points / (ACROSS * self._box.number("scale")), self.data.clock_hz), points, 1)

    def _check_channel(self, s: Settings) -> None:
        most = 0.8 if s.number("range") / self.divisions <= 0.2 else 20.0
        if abs(s.number("offset")) > most:
            raise ScpiError(-222, f"offset {s.number('offset'):g}; {most:g} V at most")

    def _coded(self, words: NDArray[np.int16], wide: bool) -> NDArray[Any]:
        codes = words >> 8
        return (codes * 256).astype(np.int16) if wide else codes.astype(np.int8)

    def _step_v(self, record: Record, wide: bool) -> float:
        return record.range_v / 256

    def _own_commands(self) -> Iterator[Command]:
        yield self._level_of("TRIGger:A:LEVel", lambda call: self._box.text("trigger_source"), FINE)
        yield Command("HORizontal[:MAIn]:SCAle", self._put_scale, lambda call: f"{self._box.number('scale'):{FINE}}")
        for pattern in ("HORizontal:RECOrdlength", "HORizontal:RESOlution"):
            yield Command(pattern, self._put_length, lambda call: f"{self._box.number('points'):.0f}")
        yield Command("HORizontal:SAMPLERate", get=lambda call: f"{self._sampling().rate_hz:{FINE}}")
        yield Command("ACQuire:MAXSamplerate", get=lambda call: f"{self.data.clock_hz:{FINE}}")

    def _put_scale(self, call: Call) -> None:
        wanted = float(self._box.read("scale", call.only()))
        self._box.change(scale=min((scale for scale in SCALES_S if scale >= wanted * (1 - 1e-9)), default=SCALES_S[-1]))

    def _put_length(self, call: Call) -> None:
        points = float(self._box.read("points", call.only()))
        if points not in self._family.lengths:
            raise ScpiError(-222, f"{points:g} points; {', '.join(map(str, self._family.lengths))}")
        self._box.change(points=points)

    def _own_parameters(self) -> Mapping[str, Parameter]:
        external = ("AUX",) if self._family.external else ()
        return {
            "edge": Choice((*SOURCES[: self.channel_count], *external, "LINE"), "CH1"),
            "count": Number(2, 512, 16, integer=True),
            "scale": Number(SCALES_S[0], SCALES_S[-1], 4e-6, "S", style=FINE),
            "points": Number(1, self._family.lengths[-1], 2_000, integer=True),
            "width": Number(1, 2, 1, integer=True),
        }

    def _own_channel_parameters(self) -> Mapping[str, Parameter]:
        return {
            "range": Number(self.divisions * 2e-3, self.divisions * 5, self.divisions * 1.0, "V", style=FINE),
            "bandwidth": Choice(("FULl", "TWEnty"), "FUL"),
            "probe": Number(1e-3, 1e3, 0.1, style=NR3),
        }
