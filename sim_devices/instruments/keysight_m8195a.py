"""Simulated Keysight M8195A arbitrary waveform generator: channel 1 with two markers, or without; segments in its memory.

    TRACe1:DEFine <id>,<n>; TRACe1:DATA <id>,<offset>,#...     int8; with INSTrument:DACMode MARKer each is followed by a byte
                                                               of marker bits; n in steps of 256, at least 1280
    INITiate:CONTinuous 0; INITiate:IMMediate; TRIGger:BEGin   plays the selected segment once; after ABORt it does not
    volts = offset + sample / 127 * amplitude / 2              into 50 ohm

Channels 2 to 4 have levels and relays, and nothing to play. Not simulated: sequences, dividers, FIR filters, internal memory.

Source: M8195A Revision 2 User's Guide, 5.2.1, 6.21 (p. 150, p. 239); limits as pyarbtools 2025.6 knows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np

from hil.errors import ContractError
from sim_devices.instruments.generator_box import GeneratorBox, Model
from sim_devices.instruments.parameters import Choice, Flag, Name, Number, Parameter
from sim_devices.instruments.program_message import Block, ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting

GRAIN, LEAST = 256, 1280
MODELS = {"M8195A": Model(65e9, 65e9, 16, 1 << 29, LEAST, 30e9)}  # its 8 bits are those of the samples
BOX: dict[str, Parameter] = {
    "mode": Choice(("SINGle", "DUAL", "FOUR", "MARKer", "DCDuplicate", "DCMarker"), "SING"),
    "divider": Choice(("DIV1", "DIV2", "DIV4"), "DIV1"),
    "raster": Number(53.76e9, 65e9, 64e9, "HZ"),
    "function": Choice(("ARBitrary", "STSequence", "STSCenario"), "ARB"),
    "reference": Choice(("AXI", "INTernal", "EXTernal"), "AXI"),
    "reference_hz": Number(10e6, 17e9, 100e6, "HZ"),
    "continuous": Flag(True),
    "gate": Flag(),
    "arm": Choice(("TRIGger", "EVENt", "INTernal"), "TRIG"),
    "enable": Choice(("TRIGger", "EVENt", "INTernal"), "TRIG"),
    "arm_slope": Choice(("POSitive", "NEGative", "EITHer"), "POS"),
    "arm_level": Number(-4, 4, 0, "V"),
}
OTHERS: dict[str, Parameter] = {
    "vpp": Number(75e-3, 1, 0.5, "V"), "offset": Number(-1, 3.3, 0, "V"), "output": Flag(),
    "memory": Choice(("INTernal", "EXTended"), "EXT"),
}  # fmt: skip


class KeysightM8195A(GeneratorBox):
    """A simulated M8195A, as its guide describes it. Arguments as of GeneratorBox."""

    models = MODELS
    usual = ("M8195A", "DE0SIM0001")
    maker = "Keysight Technologies"
    firmware = "3.2.0.0-2"
    box = BOX
    _ready = False  # INITiate:IMMediate came, and no ABORt since

    @cached_property
    def _others(self) -> dict[int, Settings]:
        return {n: Settings(OTHERS) for n in (2, 3, 4)}

    @cached_property
    def _segments(self) -> dict[int, np.ndarray]:
        """(n, 2) samples and marker bits, by the number of the segment."""
        return {}

    def _parameters(self) -> dict[str, Parameter]:
        own: dict[str, Parameter] = {
            "vpp": Number(0, 1, 0.5, "V"), "filter": Choice(("OFF",), "OFF"), "rate": Number(0, 65e9, 64e9),
            "function": Choice(("ARBitrary",), "ARB"), "memory": Choice(("INTernal", "EXTended"), "EXT"), "marked": Flag(),
            "segment": Number(1, 1 << 24, 1, integer=True), "name": Name(),
        }  # fmt: skip
        return {**super()._parameters(), **own}

    def _check(self, s: Settings) -> None:
        """The offset stays inside of the window, and the amplitude above its least value."""
        if s.number("vpp") < 75e-3 or not -1 <= s.number("offset") <= 3.3:
            raise ScpiError(-222, "75 mV to 1 V, offset -1 to 3.3 V")

    def _reset(self) -> None:
        super()._reset()
        self._segments, self._ready = {}, False
        for others in self._others.values():
            others.reset()

    def reboot(self) -> None:
        """Lose power for a moment: settings as at power-on, no segments, outputs off."""
        super().reboot()
        self._segments = {}

    def snapshot(self) -> dict[str, object]:
        """Return settings, the record that is played, and status as JSON values. Segments that are not played are not in it."""
        others = {str(n): settings.snapshot() for n, settings in self._others.items()}
        return {**super().snapshot(), "others": others, "ready": self._ready}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot. Raises: ContractError: it is none of this model."""
        super().restore(state)
        others = state.get("others")
        if not isinstance(others, Mapping):
            raise ContractError("not a snapshot of this generator", where=self.name, got=str(state)[:80])
        for n, settings in self._others.items():
            settings.restore(others[str(n)])
        self._ready = bool(state.get("ready"))

    def sync(self, channel: int) -> bool:
        """True if marker 1 of this channel leaves Channel 3 at the beginning of a record."""
        return channel == 1 and self._others[3].flag("output") and self._channels[1].flag("marked")

    def _rate(self, s: Settings, points: int) -> float:
        return self._box.number("raster")

    def external(self) -> tuple[int, ...]:
        """Return the channels that play when a rising edge comes to Trigger In: those that TRIGger:BEGin plays."""
        return (1,) if self._ready and self._channels[1].flag("burst") else ()

    def _bus_trigger(self) -> None:
        if not self.external():
            raise ScpiError(-211)
        self._fire(self.external())

    def _of(self, call: Call) -> Settings:
        return self._channels[1] if call.channel == 1 else self._others[call.channel]

    def _table(self) -> Iterator[Command]:
        for pattern, name in (
            ("INSTrument:DACMode", "mode"), ("INSTrument:MEMory:EXTended:RDIVider", "divider"), ("FREQuency:RASTer", "raster"),
            ("FUNCtion:MODE", "function"), ("ROSCillator:SOURce", "reference"), ("ROSCillator:FREQuency", "reference_hz"),
            ("INITiate:CONTinuous[:STATe]", "continuous"), ("INITiate:GATE[:STATe]", "gate"),
            ("ARM[:SEQuence][:STARt][:LAYer]:TRIGger:SOURce", "arm"), ("TRIGger[:SEQuence][:STARt]:SOURce:ENABle", "enable"),
            ("ARM[:SEQuence][:STARt][:LAYer]:TRIGger:SLOPe", "arm_slope"),
            ("ARM[:SEQuence][:STARt][:LAYer]:TRIGger:LEVel", "arm_level"),
        ):  # fmt: skip
            yield setting(pattern, name, lambda call: self._box, self._continuing if name == "continuous" else None)
        yield setting("VOLTage<4>[:LEVel][:IMMediate][:AMPLitude]", "vpp", self._of)
        yield setting("VOLTage<4>[:LEVel][:IMMediate]:OFFSet", "offset", self._of)
        yield setting("TRACe<4>:MMODe", "memory", self._of)
        yield Command("OUTPut<4>[:STATe]", self._switch, lambda call: self._of(call).shown("output", call))
        yield Command("ABORt", self._abort)
        yield Command("INITiate:IMMediate", self._initiate)
        yield Command("TRIGger[:SEQuence][:STARt]:BEGin[:IMMediate]", lambda call: self._bus_trigger())
        yield Command("TRACe<4>:DELete:ALL", lambda call: self._segments.clear())
        yield Command("TRACe<4>:DELete", self._delete)
        yield Command("TRACe<4>:DEFine", self._define)
        yield Command("TRACe<4>[:DATA]", self._data)
        yield Command("TRACe<4>:NAME", lambda call: None)
        yield Command("TRACe<4>:SELect", self._select, lambda call: f"{self._channels[1].number('segment'):.0f}")
        yield Command("TRACe<4>:CATalog", get=self._catalog)

    def _continuing(self, call: Call) -> None:
        once = not self._box.flag("continuous")
        self._channels[1].change(burst=once, trigger="BUS" if once else "IMM")

    def _switch(self, call: Call) -> None:
        if call.channel == 1:
            super()._switch(call)
        else:
            self._others[call.channel].change(output=self._others[call.channel].read("output", call.only()))

    def _abort(self, call: Call) -> None:
        self._ready = False

    def _initiate(self, call: Call) -> None:
        segment = self._segments.get(int(self._channels[1].number("segment")))
        if segment is None:
            raise ScpiError(-221, "no such segment")
        codes = np.rint(np.maximum(segment[:, 0].astype(np.float64), -127) / 127 * 32767).astype(np.int16)
        self._memory[1].replace("SEGMENT", codes)
        self._ready = True
        self._channels[1].change(arb="SEGMENT", marked=bool((segment[:, 1] & 1).any()))

    def _delete(self, call: Call) -> None:
        self._segments.pop(_whole(call, 0), None)

    def _define(self, call: Call) -> None:
        number, length = _whole(call, 0), _whole(call, 1)
        if length < LEAST or length % GRAIN or length > self.data.samples:
            raise ScpiError(-222, f"{length} samples; at least {LEAST}, in steps of {GRAIN}")
        self._segments[number] = np.zeros((length, 2), np.int8)

    def _data(self, call: Call) -> None:
        number, offset, block = call.take(3, 3)
        segment = self._segments.get(int(Number(1, 1 << 24, 1).read(number)))
        if segment is None or not isinstance(block, Block):
            raise ScpiError(-221, "no such segment, or no block")
        each = 2 if self._box.text("mode") in ("MARK", "DCM") else 1
        samples = np.frombuffer(block.data, np.int8).reshape(-1, each)
        first = int(Number(0, 1 << 30, 0).read(offset))
        if first + len(samples) > len(segment):
            raise ScpiError(-223, f"{len(samples)} samples for {len(segment)}")
        segment[first : first + len(samples), :each] = samples

    def _select(self, call: Call) -> None:
        self._channels[1].change(segment=float(_whole(call, 0)))

    def _catalog(self, call: Call) -> str:
        return ",".join(f"{number},{len(segment)}" for number, segment in sorted(self._segments.items())) or "0,0"


def _whole(call: Call, place: int) -> int:
    return int(Number(0, 1 << 30, 0, integer=True).read(call.take(place + 1, 3)[place]))
