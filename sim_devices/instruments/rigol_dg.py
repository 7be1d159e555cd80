"""Simulated Rigol DG800 waveform generator: two channels, records in packets, bursts.

    :SOURce1:DATA:DAC16 VOLATILE,CON|END,#<d><bytes><uint16...>    0 .. 0x3FFF; 8 to 16,384 points a packet; END switches to ARB
    volts = offset + (2 code / 0x3FFF - 1) amplitude / 2           SEQ plays samples at FUNCtion:SEQ:SRATe, ARB at the frequency

Flags are answered as ON and OFF, numbers with seven digits. Not simulated: modulation, sweeps, pulse, noise.

Source: DG800 Programming Guide, ":SOURce:TRACe" (p. 2-136); DG2000 Programming Guide, p. 2-58 to 2-63 (bursts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from sim_devices.instruments import output_stage
from sim_devices.instruments.generator_box import GeneratorBox, Model
from sim_devices.instruments.parameters import INFINITY, Choice, Number, Parameter
from sim_devices.instruments.program_message import Block, ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting

TOP, PACKET, LEAST = 0x3FFF, 16_384, 8
VOLATILE = "VOLATILE"
MODELS = {"DG832": Model(60e6, 60e6, 14, 2_097_152, LEAST, 35e6), "DG992": Model(60e6, 60e6, 14, 2_097_152, LEAST, 100e6)}
NR3 = ".6E"
ON_OFF = ("ON", "OFF")
SHAPES = {"SIN": "SIN", "SQU": "SQU", "RAMP": "RAMP", "DC": "DC"}


class RigolDG(GeneratorBox):
    """A simulated generator of the DG800 series, as its programming guide describes it. Arguments as of GeneratorBox."""

    models = MODELS
    usual = ("DG832", "DG8ASIM0001")
    maker = "Rigol Technologies"
    firmware = "00.02.06"
    word_bits = 14

    @cached_property
    def _parts(self) -> dict[int, list[np.ndarray]]:
        """The packets that came, until END, by channel."""
        return {1: [], 2: []}

    def sync(self, channel: int) -> bool:
        """True if an edge leaves the channel's rear connector at the start of its record."""
        s = self._channels[channel]
        return s.text("out") == "POS" and s.text("trigger") != "EXT"

    def _rate(self, s: Settings, points: int) -> float:
        return s.number("rate") if s.text("played") == "SEQ" else s.number("frequency") * points

    def _parameters(self) -> dict[str, Parameter]:
        own: dict[str, Parameter] = {
            "played": Choice(("SINusoid", "SQUare", "RAMP", "DC", "ARB", "SEQ"), "SIN"),
            "vpp": Number(0, 20, 5, "V"),
            "rate": Number(2e3, self.data.rate_hz, 20e6, style=NR3),
            "load": Number(1, 10_000, INFINITY, "OHM", infinite=True, style=NR3),
            "between": Choice(("SMOOth", "STEP", "INSErt"), "STEP"),  # samples
            "filter": Choice(("NORMal", "OFF"), "OFF"),
            "trigger_word": Choice(("INTernal", "EXTernal", "MANual"), "INT"),
            "out": Choice(("OFF", "POSitive", "NEGative"), "OFF"),
            "idle": Choice(("FPT", "TOP", "CENTER", "BOTTOM"), "FPT"),
            "sync_out": Choice(ON_OFF, "ON"),
        }
        return {**super()._parameters(), **own}

    # -- Commands -----------------------------------------------------------------------------------------------------

    def _table(self) -> Iterator[Command]:
        source, of = "[SOURce<2>]", self._of
        for command in output_stage.commands(of):
            if "LIMit" not in command.pattern:
                yield command
        yield Command(f"{source}:FUNCtion[:SHAPe]", self._put_function, lambda call: of(call).shown("played", call))
        yield setting(f"{source}:FREQuency[:FIXed]", "frequency", of)
        yield setting(f"{source}:PHASe[:ADJust]", "phase", of)
        yield setting(f"{source}:FUNCtion:SEQuence:SRATe", "rate", of)
        yield setting(f"{source}:FUNCtion:SEQuence:FILTer", "between", of, self._filter)
        yield _flag(f"{source}:BURSt:STATe", "burst", of)
        yield setting(f"{source}:BURSt:MODE", "burst_mode", of)
        yield setting(f"{source}:BURSt:NCYCles", "cycles", of)
        yield setting(f"{source}:BURSt:TDELay", "delay", of)
        yield setting(f"{source}:BURSt:IDLE", "idle", of)
        yield setting(f"{source}:BURSt:TRIGger:SOURce", "trigger_word", of, self._trigger_source)
        yield setting(f"{source}:BURSt:TRIGger:TRIGOut", "out", of)
        yield Command(f"{source}:BURSt:TRIGger[:IMMediate]", self._trigger)
        yield Command(f"{source}[:TRACe]:DATA:DAC<16>", self._upload)
        yield Command("OUTPut<2>[:STATe]", self._switch, lambda call: "ON" if of(call).flag("output") else "OFF")
        yield setting("OUTPut<2>:POLarity", "polarity", of)
        yield setting("OUTPut<2>:SYNC[:STATe]", "sync_out", of)
        for shape in ("SINusoid", "SQUare", "RAMP", "DC"):
            yield Command(f"{source}:APPLy:{shape}", lambda call, shape=shape: self._apply(call, shape))  # type: ignore[misc]
        yield Command(f"{source}:APPLy", get=self._applied)

    def _play(self, s: Settings, word: str) -> None:
        shape = SHAPES.get(word, "ARB")
        s.change(played=word, function=shape)

    def _put_function(self, call: Call) -> None:
        s = self._of(call)
        self._play(s, str(s.read("played", call.only())))

    def _filter(self, call: Call) -> None:
        s = self._of(call)
        s.change(filter="OFF" if s.text("between") == "STEP" else "NORM")

    def _trigger_source(self, call: Call) -> None:
        s = self._of(call)
        s.change(trigger={"INT": "IMM", "EXT": "EXT", "MAN": "BUS"}[s.text("trigger_word")])

    def _trigger(self, call: Call) -> None:
        call.none()
        if self._of(call).flag("burst") and self._of(call).text("trigger") == "BUS":
            self._fire((call.channel,))

    def _apply(self, call: Call, shape: str) -> None:
        s, values = self._of(call), [float(str(token)) for token in call.take(0, 4)]
        self._play(s, str(s.read("played", shape)))
        names = ("frequency", "vpp", "offset", "phase")
        s.change(**dict(zip(names, values, strict=False)))

    def _applied(self, call: Call) -> str:
        s = self._of(call)
        values = ",".join(f"{s.number(name):{NR3}}" for name in ("frequency", "vpp", "offset", "phase"))
        return f'"{s.text("played")},{values}"'

    def _upload(self, call: Call) -> None:
        """``VOLATILE,CON|END,<block>``: packets are joined until END comes."""
        where, flag, block = call.take(3, 3)
        words = np.frombuffer(block.data, "<u2") if isinstance(block, Block) else np.empty(0, "<u2")
        if str(where).upper() != VOLATILE or str(flag).upper() not in ("CON", "END") or not LEAST <= len(words) <= PACKET:
            raise ScpiError(-222, f"{len(words)} points; {LEAST} to {PACKET} a packet")
        if int(words.max()) > TOP:
            raise ScpiError(-222, f"up to {TOP}")
        parts = self._parts[call.channel]
        parts.append(np.rint((words / TOP * 2 - 1) * 32767).astype(np.int16))
        if str(flag).upper() == "END":
            self._memory[call.channel].replace(VOLATILE, np.concatenate(parts))
            parts.clear()
            s = self._of(call)
            s.change(arb=VOLATILE)
            self._play(s, "ARB")


def _flag(pattern: str, name: str, of: Callable[[Call], Settings]) -> Command:
    """A flag that is answered as ON or OFF."""

    def put(call: Call) -> None:
        of(call).change(**{name: of(call).read(name, call.only())})

    return Command(pattern, put, lambda call: "ON" if of(call).flag(name) else "OFF")
