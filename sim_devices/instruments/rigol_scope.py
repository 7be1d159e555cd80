"""Simulated Rigol DS1000Z / DHO800 oscilloscope: four channels, edge trigger, records read in windows.

    :TRIGger:STATus?     STOP  RUN (until it is ready)  WAIT  TD        the first answer after :SINGle is that of before
    :ACQuire:MDEPth      taken only while the scope runs; depths follow the number of channels that are on
    :WAVeform:DATA?      #9<9 digits><bytes>      RAW: points :STARt to :STOP of the memory, in stopped state, so many at most
    :WAVeform:PREamble?  format,type,points,count,xincrement,xorigin,xreference,yincrement,yorigin,yreference

    volts = (word - yorigin - yreference) yincrement        BYTE: yincrement = scale / 25, yreference = 127
    rate = depth / (divisions x scale)

Two commands in a message are refused, which no guide promises. Channels that are on share rate and memory. Not simulated:
measurements, math, segments, digital channels.

Source: MSO1000Z/DS1000Z Programming Guide, ":WAVeform" (p. 2-136 to 2-140); DHO800/DHO900 Programming Guide, April 2025, 3.3.2,
3.28. The late status after :SINGle is assumed from what users tell; that a DHO's words are left-justified, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim_devices.instruments.box import Message
from sim_devices.instruments.parameters import Choice, Flag, Name, Number, Parameter
from sim_devices.instruments.program_message import ScpiError, blocked
from sim_devices.instruments.sampling import Sampling
from sim_devices.instruments.scope_box import Mode, Model, ScopeBox
from sim_devices.instruments.scope_record import Record
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, scaled, setting
from sim_devices.instruments.timing import Timing

NR3 = ".6E"
SCREEN_POINTS = {12: 1200, 10: 1000}
FORMATS, MODES = ("BYTE", "WORD", "ASC"), ("NORM", "MAX", "RAW")
SOURCES = ("CHANnel1", "CHANnel2", "CHANnel3", "CHANnel4")


@dataclass(frozen=True, slots=True)
class Family:
    """Divisions across, volts from the lowest code to the highest in divisions, depths with one, two, more channels on."""

    divisions: int
    codes: float
    window: int
    depths: tuple[tuple[int, ...], ...]


Z = Family(12, 256 / 25, 250_000, tuple(tuple(base * 10**power for power in range(4)) for base in (12_000, 6_000, 3_000)))
D = Family(10, 65536 / 7500, 250_000, ((1_000, 10_000, 100_000, 1_000_000, 5_000_000, 10_000_000, 25_000_000),) * 3)
MODELS = {
    "DS1104Z": Model("DS1104Z", 1e9, 24_000_000, 8),
    "DS1202Z-E": Model("DS1202Z-E", 1e9, 24_000_000, 8),
    "DHO804": Model("DHO804", 1.25e9, 25_000_000, 12),
    "DHO802": Model("DHO802", 1.25e9, 25_000_000, 12),
}
FAMILIES = {"DS1104Z": Z, "DS1202Z-E": Z, "DHO804": D, "DHO802": D}
EXTERNAL = ("DS1202Z-E", "DHO802")


class RigolScope(ScopeBox):
    """A simulated scope of the DS1000Z or DHO800 series, as its programming guide describes it.

    Arguments as of ScopeBox, and

    Args:
        trigger_channel: the channel that the bench's SYNC leads into; 0: the external trigger, where the model has one.
    """

    typical = Timing(2e-3, 1e6, 1e6, arm_s=20e-3, acquire_s=5e-3)  # assumed: the guide has no figures

    models = MODELS
    usual = ("DS1202Z-E", "DS1ZASIM0001")
    maker = "RIGOL TECHNOLOGIES"
    firmware = "00.04.05.SP2"
    _stale = ""  # the status before :SINGle, which the next question is still answered with

    def __init__(
        self,
        serial: str | None = None,
        *,
        model: str | None = None,
        trigger_channel: int = 0,
        lock: threading.Condition | None = None,
        adc_bits: int | None = None,
        memory_samples: int | None = None,
        pace: float = 0.0,
        auto_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._family = FAMILIES.get(model or self.usual[0], Z)
        self.trigger_input = f"CHAN{trigger_channel}" if trigger_channel else "EXT"
        super().__init__(
            serial, model=model, lock=lock, adc_bits=adc_bits, memory_samples=memory_samples, pace=pace, auto_s=auto_s,
            clock=clock,
        )  # fmt: skip

    def execute(self, message: Message) -> bytes | None:
        """Run one message of one command; see `Box.execute`."""
        if b";" in bytes(message).rstrip(b"; \r\n"):
            self.query_error(-102)
            return None
        return super().execute(message)

    # -- Sampling and scale -------------------------------------------------------------------------------------------

    def _on(self) -> int:
        trigger = self._box.text("trigger_source")
        on = {n for n, s in self._channels.items() if s.flag("display") or trigger == f"CHAN{n}"}
        return min(max(len(on), 1), 3)

    def _sampling(self) -> Sampling:
        depths, span_s = self._family.depths[self._on() - 1], self._box.number("range")
        highest = self.data.clock_hz / (1, 2, 4)[self._on() - 1]
        depth = self._box.number("depth") or depths[1]
        rate_hz = min(depth / span_s, highest)
        points = min(max(1, round(rate_hz * span_s)), self._points)
        return Sampling(rate_hz, points, 1)

    def _span_v(self, s: Settings) -> float:
        return s.number("range") / 8 * self._family.codes

    def _middle_v(self, s: Settings) -> float:
        """The offset is a whole number of words: yorigin."""
        step = self._span_v(s) / (256 if self._family is Z else 65536)
        return round(s.number("offset") / step) * step

    # -- Waveform -----------------------------------------------------------------------------------------------------

    def _record(self) -> Record:
        record = self._acquired(int(self._box.text("source")[-1]))
        if self._box.text("points_mode") == "RAW" and self._mode == "running":
            raise ScpiError(-221, "the memory is read in stopped state only")
        screen = self._box.text("points_mode") == "NORM"
        return record.thinned(SCREEN_POINTS[self._family.divisions]) if screen else record

    def _wide(self) -> bool:
        return self._box.text("format") == "WORD" and self._family is D

    def _numbers(self, record: Record) -> tuple[float, int, int]:
        """Yincrement, yorigin, yreference."""
        step = record.range_v / (65536 if self._wide() else 256)
        return step, round(-record.offset_v / step), 32768 if self._wide() else 127

    def _preamble(self, call: Call) -> str:
        call.none()
        record = self._record()
        step, origin, reference = self._numbers(record)
        form, mode = FORMATS.index(self._box.text("format")), MODES.index(self._box.text("points_mode"))
        axis = f"{1 / record.window.rate_hz:{NR3}},{record.window.start_s:.12E},0"
        return f"{form},{mode},{len(record.words)},{record.averaged},{axis},{step:.9E},{origin},{reference}"

    def _field(self, at: int, call: Call) -> str:
        return self._preamble(call).split(",")[at]

    def _words(self, record: Record) -> NDArray[np.unsignedinteger[Any]]:
        """Unsigned words; the lowest and the highest are a clipped input."""
        signed = record.words.astype(np.int32)
        if self._wide():
            return (signed + 32768).astype(np.uint16)
        codes = np.clip((signed >> 8) + 127, 1, 254)
        codes[signed >= 32767], codes[signed <= -32767] = 255, 0
        words: NDArray[np.unsignedinteger[Any]] = codes.astype("u1" if self._box.text("format") == "BYTE" else "u2")
        return words

    def _data(self, call: Call) -> bytes:
        call.none()
        record = self._record()
        words = self._words(record)
        if self._box.text("points_mode") != "NORM":
            first, last = int(self._box.number("start")), int(self._box.number("stop"))
            words = words[first - 1 : last]
            if not 1 <= first <= last or words.nbytes > self._family.window:
                raise ScpiError(-222, f"points {first} to {last}, {self._family.window} bytes at most")
        if self._box.text("format") == "ASC":
            step, origin, reference = self._numbers(record)
            data = ",".join(f"{(int(w) - origin - reference) * step:{NR3}}" for w in words).encode()
            if self._family is D:  # text without a header
                return data
        else:
            data = words.astype(words.dtype.newbyteorder("<")).tobytes()
        return blocked(data, 9)

    # -- Commands -----------------------------------------------------------------------------------------------------

    def _table(self) -> Iterator[Command]:
        the_box, of = self._the_box, self._of
        for pattern, name in (
            ("TIMebase:MODE", "timebase"), ("TRIGger:MODE", "trigger"), ("TRIGger:EDGe:SOURce", "trigger_source"),
            ("TRIGger:EDGe:SLOPe", "slope"), ("TRIGger:SWEep", "sweep"), ("ACQuire:TYPE", "type"),
            ("ACQuire:AVERages", "count"), ("WAVeform:SOURce", "source"), ("WAVeform:FORMat", "format"),
            ("WAVeform:MODE", "points_mode"), ("WAVeform:STARt", "start"), ("WAVeform:STOP", "stop"),
            ("TIMebase[:MAIN]:OFFSet", "position"),
        ):  # fmt: skip
            yield setting(pattern, name, the_box)
        for pattern, name in (
            ("DISPlay", "display"), ("COUPling", "coupling"), ("BWLimit", "bandwidth"), ("INVert", "invert"),
            ("PROBe", "probe"), ("VERNier", "vernier"),
        ):  # fmt: skip
            yield setting(f"CHANnel<4>:{pattern}", name, of)
        yield scaled("CHANnel<4>:SCALe", "range", of, 8, NR3)
        yield scaled("CHANnel<4>:OFFSet", "offset", of, -1, NR3, "V")
        yield scaled("TIMebase[:MAIN]:SCALe", "range", the_box, self._family.divisions, NR3)
        yield self._level_of("TRIGger:EDGe:LEVel", lambda call: self._box.text("trigger_source"), NR3)
        yield Command("ACQuire:MDEPth", self._put_depth, self._depth)
        yield Command("ACQuire:SRATe", get=lambda call: f"{self._sampling().rate_hz:{NR3}}")
        yield Command("SINGle", self._single)
        yield Command("RUN", lambda call: self._start(call, "running"))
        yield Command("STOP", lambda call: self._stop())
        yield Command("TFORce", lambda call: self._force())
        yield Command("TRIGger:STATus", get=self._status)
        yield Command("WAVeform:PREamble", get=self._preamble)
        yield Command("WAVeform:DATA", get=self._data)
        yield Command("WAVeform:POINts", lambda call: None, lambda call: f"{len(self._record().words)}")
        yield Command("SYSTem:LOCKed", self._put_lock, lambda call: f"{self._front.locks:d}")
        for at, name in enumerate(("XINCrement", "XORigin", "XREFerence", "YINCrement", "YORigin", "YREFerence"), start=4):
            yield Command(f"WAVeform:{name}", get=partial(self._field, at))

    def _put_depth(self, call: Call) -> None:
        if self._mode != "running":
            raise ScpiError(-221, "the depth is taken while the scope runs")
        word = call.word()
        depth = 0.0 if word == "AUTO" else float(self._box.read("depth", word))
        if depth and depth not in self._family.depths[self._on() - 1]:
            raise ScpiError(-222, f"{depth:g} points with {self._on()} channels on")
        self._box.change(depth=depth)

    def _depth(self, call: Call) -> str:
        depth = self._box.number("depth")
        return "AUTO" if not depth else f"{depth:.0f}" if self._family is Z else f"{depth:.3E}"

    def _single(self, call: Call) -> None:
        self._stale = self._state()
        self._box.change(sweep="SING")
        mode: Mode = "single"
        self._start(call, mode)

    def _state(self) -> str:
        mode = self._polled()
        return {"stopped": "STOP", "running": "TD" if self._events["triggered"] else "WAIT"}.get(mode, "WAIT")

    def _status(self, call: Call) -> str:
        call.none()
        stale, self._stale = self._stale, ""
        return stale or self._state()

    def _put_lock(self, call: Call) -> None:
        self._front.locks = int(Flag().read(call.only()))

    def _box_parameters(self) -> dict[str, Parameter]:
        span = self._family.divisions
        external = ("EXTernal",) if self.model in EXTERNAL else ()
        return {
            "timebase": Choice(("MAIN", "XY", "ROLL"), "MAIN"),
            "range": Number(span * 5e-9, span * 50, span * 1e-6, "S", style=NR3),
            "position": Number(-5000, 5000, 0, "S", style=".12E"),
            "reference": Choice(("CENTer",), "CENT"),
            "trigger": Choice(("EDGE", "PULSe", "SLOPe"), "EDGE"),
            "trigger_source": Choice((*SOURCES, *external), "CHAN1"),
            "level_EXT": Number(-8, 8, 0, "V", style=NR3),
            **{f"level_CHAN{n}": Number(-50, 50, 0, "V", style=NR3) for n in range(1, 5)},
            "slope": Choice(("POSitive", "NEGative"), "POS"),
            "sweep": Choice(("AUTO", "NORMal", "SINGle"), "AUTO"),
            "type": Choice(("NORMal", "AVERages", "HRESolution"), "NORM"),
            "count": Number(2, 1024, 2, integer=True),
            "source": Choice(SOURCES, "CHAN1"),
            "format": Choice(("WORD", "BYTE", "ASCii"), "BYTE"),
            "points_mode": Choice(("NORMal", "MAXimum", "RAW"), "NORM"),
            "start": Number(1, 5e7, 1, integer=True, style="d"),
            "stop": Number(1, 5e7, 1200, integer=True),
            "depth": Number(0, 5e7, 0, integer=True),
        }

    def _channel_parameters(self, n: int) -> dict[str, Parameter]:
        return {
            "display": Flag(n == 1),
            "range": Number(8e-3 / 8, 80, 8, "V", style=NR3),
            "offset": Number(-100, 100, 0, "V", style=NR3),
            "coupling": Choice(("DC", "AC", "GND"), "DC"),
            "bandwidth": Choice(("20M", "OFF"), "OFF"),
            "invert": Flag(),
            "probe": Number(0.01, 1000, 1, style="g"),
            "vernier": Flag(),
            "label": Name(str(n), 10),
        }
