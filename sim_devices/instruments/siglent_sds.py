"""Simulated Siglent SDS1000X HD oscilloscope: four channels, edge trigger, binary descriptor, records read in parts.

    :TRIGger:STATus?      Stop, Arm (once after :TRIGger:MODE SINGle), Ready, Trig'd, Auto
    :WAVeform:PREamble?   #9000000346<descriptor>        :WAVeform:DATA?   #9<9 digits><int16 or int8>, so many points at most
    volts = code / codes_per_division * scale - offset          rate = depth / (10 scale)

Event registers and an error queue are not in the guide: *ESR? and *CLS are those of the simulated boxes, and no driver should
rest on them. Not simulated: measurements, sequences, math, digital channels.

Source: Siglent SDS Series Programming Guide EN11D, February 2023. The descriptor has the fields that the guide's example reads;
codes per division of a word, and that a word is left-justified, are assumed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from sim_devices.instruments.parameters import Choice, Name, Number, Parameter
from sim_devices.instruments.program_message import blocked
from sim_devices.instruments.sampling import Sampling
from sim_devices.instruments.scope_box import Model, ScopeBox, edge_sources
from sim_devices.instruments.scope_record import Record
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, scaled, setting

NR3 = ".2E"
FINE = ".6E"
ACROSS, CODES_PER_DIVISION, MOST_READ = 10, 7680.0, 5_000_000
MODELS = {"SDS1104X HD": Model("SDS1104X HD", 2e9, 50_000_000, 12), "SDS824X HD": Model("SDS824X HD", 2e9, 50_000_000, 12)}
DEPTHS = {"10K": 10_000, "100K": 100_000, "1M": 1_000_000, "10M": 10_000_000, "50M": 50_000_000}
SCALES_S = tuple(float(f"{digit}e{power}") for power in range(-10, 3) for digit in (1, 2, 5))[1:]  # a division, from 200 ps
ON_OFF = Choice(("ON", "OFF"), "OFF")


class SiglentSDS(ScopeBox):
    """A simulated scope of the SDS1000X HD series, as its programming guide describes it. Arguments as of ScopeBox."""

    models = MODELS
    usual = ("SDS1104X HD", "SDS1SIM0001")
    maker = "Siglent Technologies"
    firmware = "4.1.1.1.9"
    _arming = False  # the next status is Arm

    # -- Sampling and scale -------------------------------------------------------------------------------------------

    def wanted(self) -> frozenset[int]:
        """The channels that are recorded."""
        return frozenset(n for n, s in self._channels.items() if s.text("display") == "ON")

    def _sampling(self) -> Sampling:
        on = max(1, len(self.wanted()))
        highest, span_s = self.data.clock_hz / (1 if on == 1 else 2 if on == 2 else 4), self._box.number("range")
        rate_hz = min(DEPTHS[self._box.text("depth")] / span_s, highest)
        return Sampling(rate_hz, min(max(1, round(rate_hz * span_s)), self._points), 1)

    def _inverts(self, s: Settings) -> bool:
        return s.text("inversion") == "ON"

    def _span_v(self, s: Settings) -> float:
        return s.number("range") / 8 * 65536 / CODES_PER_DIVISION

    # -- Waveform -----------------------------------------------------------------------------------------------------

    def _record(self) -> Record:
        return self._acquired(int(self._box.text("source")[-1]))

    def _preamble(self, call: Call) -> bytes:
        call.none()
        record, block = self._record(), bytearray(346)
        wide = self._box.text("width") == "WORD"
        per_division = record.range_v * CODES_PER_DIVISION / 65536
        block[:8] = b"WAVEDESC"
        span_s = len(record.words) / record.window.rate_hz
        scale = min(range(len(SCALES_S)), key=lambda k: abs(SCALES_S[k] * ACROSS / span_s - 1))
        codes = CODES_PER_DIVISION if wide else CODES_PER_DIVISION / 256
        for kind, at, value in (
            ("<h", 0x20, int(wide)), ("<i", 0x74, len(record.words)), ("<f", 0x9C, per_division),
            ("<f", 0xA0, -record.offset_v), ("<f", 0xA4, codes), ("<h", 0xAC, self._bits),
            ("<f", 0xB0, 1 / record.window.rate_hz),
            ("<d", 0xB4, record.window.start_s + 0.5 * span_s), ("<h", 0x144, scale), ("<f", 0x148, 1.0),
        ):  # fmt: skip
            struct.pack_into(kind, block, at, value)
        return blocked(bytes(block), 9)

    def _data(self, call: Call) -> bytes:
        call.none()
        words = self._record().words
        first, count = int(self._box.number("start")), int(self._box.number("point")) or len(words)
        part = words[first : first + min(count, MOST_READ)]
        data = part.astype("<i2").tobytes() if self._box.text("width") == "WORD" else (part >> 8).astype(np.int8).tobytes()
        return blocked(data, 9)

    # -- Commands -----------------------------------------------------------------------------------------------------

    def _table(self) -> Iterator[Command]:
        the_box, of = self._the_box, self._of
        for pattern, name in (
            ("TIMebase:DELay", "position"), ("TRIGger:TYPE", "trigger"),
            ("TRIGger:EDGE:SLOPe", "slope"), ("ACQuire:TYPE", "type"), ("ACQuire:MMANagement", "management"),
            ("ACQuire:MDEPth", "depth"), ("WAVeform:SOURce", "source"), ("WAVeform:WIDTh", "width"),
            ("WAVeform:BYTeorder", "order"), ("WAVeform:STARt", "start"), ("WAVeform:POINt", "point"),
            ("WAVeform:INTerval", "interval"),
        ):  # fmt: skip
            yield setting(pattern, name, the_box)
        for pattern, name in (
            ("SWITch", "display"), ("VISible", "visible"), ("COUPling", "coupling"), ("IMPedance", "impedance"),
            ("BWLimit", "bandwidth"), ("INVert", "inversion"), ("UNIT", "unit"),
        ):  # fmt: skip
            yield setting(f"CHANnel<4>:{pattern}", name, of)
        yield scaled("CHANnel<4>:SCALe", "range", of, 8, FINE)
        yield scaled("CHANnel<4>:OFFSet", "offset", of, -1, FINE)
        yield scaled("TIMebase:SCALe", "range", the_box, ACROSS, FINE)
        yield Command(
            "CHANnel<4>:PROBe", lambda call: of(call).change(probe=_probe(call)), lambda call: of(call).shown("probe", call)
        )
        yield self._edge_from("TRIGger:EDGE:SOURce", "source_of_edge", "EX")
        yield self._level_of("TRIGger:EDGE:LEVel", lambda call: self._box.text("trigger_source"), FINE)
        yield Command("TRIGger:MODE", self._put_mode, lambda call: self._box.text("sweep"))
        yield Command("TRIGger:RUN", lambda call: self._start(call, "running"))
        yield Command("TRIGger:STOP", lambda call: self._stop())
        yield Command("TRIGger:STATus", get=self._status)
        yield Command("ACQuire:SRATe", get=lambda call: f"{self._sampling().rate_hz:{FINE}}")
        yield Command("ACQuire:POINts", get=lambda call: f"{self._sampling().points:{FINE}}")
        yield Command("WAVeform:MAXPoint", get=lambda call: f"{MOST_READ}")
        yield Command("WAVeform:PREamble", get=self._preamble)
        yield Command("WAVeform:DATA", get=self._data)

    def _put_mode(self, call: Call) -> None:
        word = call.word()
        if word == "FTRIG":
            self._force()
            return
        self._box.change(sweep=self._box.read("sweep", word))
        self._arming = word.startswith("SING")
        self._start(Call(call.suffixes, ()), "single" if self._arming else "running")

    def _status(self, call: Call) -> str:
        call.none()
        arming, self._arming = self._arming, False
        mode = self._polled()
        return "Arm" if arming else "Stop" if mode == "stopped" else "Trig'd" if self._events["triggered"] else "Ready"

    def _box_parameters(self) -> dict[str, Parameter]:
        edges = ("C1", "C2", "C3", "C4", "EX")
        return {
            "range": Number(ACROSS * 200e-12, ACROSS * 1e3, ACROSS * 1e-6, "S", style=FINE),
            "position": Number(-5e3, 5e3, 0, "S", style=".12E"),
            "reference": Choice(("CENTer",), "CENT"),
            "trigger": Choice(("EDGE",), "EDGE"),
            "source_of_edge": Choice(edges, "C1"),
            **edge_sources(8, 100, FINE),
            "slope": Choice(("RISing", "FALLing"), "RIS"),
            "sweep": Choice(("AUTO", "NORMal", "SINGle"), "AUTO"),
            "type": Choice(("NORMal", "AVERage"), "NORM"),
            "count": Number(4, 1024, 16, integer=True),
            "management": Choice(("AUTO", "FSRate", "FMDepth"), "AUTO"),
            "depth": Choice(tuple(DEPTHS), "10M"),
            "source": Choice(("C1", "C2", "C3", "C4"), "C1"),
            "width": Choice(("BYTE", "WORD"), "BYTE"),
            "order": Choice(("LSB", "MSB"), "LSB"),
            "start": Number(0, 5e7, 0, integer=True),
            "point": Number(0, 5e7, 0, integer=True),
            "interval": Number(1, 1e6, 1, integer=True),
        }

    def _channel_parameters(self, n: int) -> dict[str, Parameter]:
        return {
            "display": Choice(("ON", "OFF"), "ON" if n == 1 else "OFF"),
            "visible": Choice(("ON", "OFF"), "ON"),
            "range": Number(8 * 500e-6, 80, 8, "V", style=FINE),
            "offset": Number(-100, 100, 0, "V", style=FINE),
            "coupling": Choice(("DC", "AC", "GND"), "DC"),
            "impedance": Choice(("ONEMeg", "FIFTy"), "ONEM"),
            "bandwidth": Choice(("20M", "FULL"), "FULL"),
            "inversion": ON_OFF,
            "probe": Number(1e-6, 1e6, 1, style=NR3),
            "unit": Choice(("V", "A"), "V"),
            "label": Name(str(n), 10),
        }


def _probe(call: Call) -> float:
    """``VALue,10`` or ``10``."""
    return Number(1e-6, 1e6, 1).read(call.take(1, 2)[-1])
