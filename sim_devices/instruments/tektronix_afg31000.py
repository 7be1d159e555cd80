"""Simulated Tektronix AFG31000 function generator in basic mode: two channels, one edit memory, bursts.

    TRACe:DATA EMEMory1,#<d><bytes><uint16...>     0 .. 0x3FFF, big-endian, for both channels; a period of what is played
    *TRG, TRIGger[:SEQuence][:IMMediate]           plays bursts while TRIGger:SEQuence:SOURce is EXTernal
    volts = offset + (2 code / 0x3FFF - 1) amplitude / 2

Not simulated: modulation, sweeps, pulse, noise, the advanced mode (sequences).

Source: AFG3000 and AFG31000 Series Programmer Manuals (077-0743, 077-1148); data sheet of the AFG31000. The least burst
delay is assumed to be 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim_devices.instruments import output_stage
from sim_devices.instruments.generator_box import GeneratorBox, Model
from sim_devices.instruments.parameters import Choice, Number, Parameter
from sim_devices.instruments.program_message import Block, ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting

TOP, EDIT = 0x3FFF, "EMEM1"
MODELS = {"AFG31052": Model(250e6, 250e6, 14, 131_072, 2, 50e6), "AFG31252": Model(250e6, 250e6, 14, 131_072, 2, 250e6)}
SHAPES = {"SIN": "SIN", "SQU": "SQU", "RAMP": "RAMP", "DC": "DC"}
BOX: dict[str, Parameter] = {
    "trigger": Choice(("TIMer", "EXTernal"), "TIM"),
    "out": Choice(("TRIGger", "SYNC"), "TRIG"),
}


class TektronixAFG31000(GeneratorBox):
    """A simulated generator of the AFG31000 series, as its programmer manual describes it. Arguments as of GeneratorBox."""

    models = MODELS
    usual = ("AFG31052", "C0SIM01")
    maker = "TEKTRONIX"
    firmware = "SCPI:99.0 FV:1.6.1"
    plus = False
    word_bits = 14
    box = BOX

    def sync(self, channel: int) -> bool:
        """True if an edge leaves Trigger Output when channel 1 begins."""
        return channel == 1 and self._box.text("out") == "TRIG"

    def _rate(self, s: Settings, points: int) -> float:
        return s.number("frequency") * points

    def _parameters(self) -> dict[str, Parameter]:
        own: dict[str, Parameter] = {
            "played": Choice(("SINusoid", "SQUare", "RAMP", "DC", "EMEMory1"), "SIN"),
            "load": Number(1, 10_000, 50, "OHM", infinite=True),
            "filter": Choice(("OFF",), "OFF"),
            "vpp": Number(0, 20, 1, "V"),
        }
        return {**super()._parameters(), **own}

    def _table(self) -> Iterator[Command]:
        source, of = "[SOURce<2>]", self._of
        for command in output_stage.commands(of):
            if "LIMit" not in command.pattern:
                yield Command(command.pattern.replace("OUTPut<2>:LOAD", "OUTPut<2>:IMPedance"), command.put, command.get)
        yield Command(f"{source}:FUNCtion[:SHAPe]", self._put_function, lambda call: of(call).shown("played", call))
        yield setting(f"{source}:FREQuency[:FIXed]", "frequency", of)
        yield setting(f"{source}:PHASe[:ADJust]", "phase", of)
        yield Command(f"{source}:PHASe:INITiate", lambda call: None)  # both channels have one clock here
        yield setting(f"{source}:BURSt:STATe", "burst", of, self._sources)
        yield setting(f"{source}:BURSt:MODE", "burst_mode", of)
        yield setting(f"{source}:BURSt:NCYCles", "cycles", of)
        yield setting(f"{source}:BURSt:TDELay", "delay", of)
        yield Command("TRIGger[:SEQuence]:SOURce", self._put_source, lambda call: self._box.shown("trigger", call))
        yield Command("TRIGger[:SEQuence][:IMMediate]", lambda call: self._bus_trigger())
        yield setting("OUTPut<2>:TRIGger:MODE", "out", lambda call: self._box)
        yield Command("OUTPut<2>[:STATe]", self._switch, lambda call: of(call).shown("output", call))
        yield setting("OUTPut<2>:POLarity", "polarity", of)
        yield Command("TRACe[:DATA]", self._upload)
        yield Command("DATA[:DATA]", self._upload)
        yield Command("SYSTem:BEEPer[:IMMediate]", lambda call: None)

    def _put_function(self, call: Call) -> None:
        s = self._of(call)
        word = str(s.read("played", call.only()))
        if word == EDIT and EDIT not in self._memory[call.channel]:
            self._memory[call.channel].replace(EDIT, np.zeros(1000, np.int16))  # edit memory is never empty
        s.change(played=word, function=SHAPES.get(word, "ARB"), **({"arb": EDIT} if word == EDIT else {}))

    def _put_source(self, call: Call) -> None:
        self._box.change(trigger=self._box.read("trigger", call.only()))
        self._sources(call)

    def _sources(self, call: Call) -> None:
        """Both channels are triggered by the one source."""
        for s in self._channels.values():
            s.change(trigger="BUS" if self._box.text("trigger") == "EXT" else "IMM")

    def external(self) -> tuple[int, ...]:
        """Return the channels that play when a rising edge comes to Trigger Input: those that *TRG plays."""
        return tuple(n for n, s in self._channels.items() if s.flag("burst") and s.text("trigger") == "BUS")

    def _bus_trigger(self) -> None:
        if not self.external():
            raise ScpiError(-211)
        self._fire(self.external())

    def _upload(self, call: Call) -> None:
        where, block = call.take(2, 2)
        words = np.frombuffer(block.data, ">u2") if isinstance(block, Block) else np.empty(0, ">u2")
        named = str(where).upper() in (EDIT, "EMEMORY1", "EMEM", "EMEMORY")
        if not named or not self.data.least <= len(words) <= self.data.samples:
            raise ScpiError(-222, f"{len(words)} points")
        if int(words.max()) > TOP:
            raise ScpiError(-222, f"up to {TOP}")
        codes = np.rint((words / TOP * 2 - 1) * 32767).astype(np.int16)
        for n, volatile in self._memory.items():
            volatile.replace(EDIT, codes)
            if self._channels[n].text("arb") == EDIT:
                self._moved(n)
