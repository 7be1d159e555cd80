"""Simulated Keysight 33500B / 33600A waveform generator: arbitrary records, bursts, bus trigger, SYNC output.

    SOURce<n>:DATA:ARBitrary:DAC name,#<d><bytes><int16...>   ->  record, played as generator_box.py says

Source: Keysight 33500B/33600A Series Operating and Service Guide, subsystems DATA, FUNCtion, VOLTage, OUTPut, BURSt, TRIGger,
SYSTem:LOCK;
data sheets 5991-0692EN (33500B) and 5991-3272EN (33600A). Not simulated: sequences, modulation, sweeps, noise, pulse, PRBS.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim_devices.instruments import output_stage
from sim_devices.instruments import volatile_memory as memory
from sim_devices.instruments.generator_box import GeneratorBox, Model
from sim_devices.instruments.parameters import Choice, Flag, Parameter, numbers
from sim_devices.instruments.program_message import Block, ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import setting
from sim_devices.instruments.timing import Timing
from sim_devices.instruments.volatile_memory import BUILT_IN

MODELS = {
    "33522B": Model(250e6, 62.5e6, 16, 1_048_576, 8, 30e6),
    "33622A": Model(1e9, 250e6, 14, 4_194_304, 32, 120e6),
}


BOX: dict[str, Parameter] = {
    "border": Choice(("NORMal", "SWAPped"), "NORM"),
    "sync": Flag(),
    "sync_source": Choice(("CH1", "CH2"), "CH1"),
    "trigger_out": Flag(),  # no wire leads there
}


class Keysight33600(GeneratorBox):
    """A simulated generator of the 33600A series, as its programming guide describes it. Arguments as of GeneratorBox."""

    typical = Timing(1e-3, 10e6, 5e6, trigger_s=5e-3, settle_s=1e-3)  # assumed: the guide has no figures

    models = MODELS
    usual = ("33622A", "SIM-33622-0001")
    maker = "Keysight Technologies"
    firmware = "A.02.03-3.15-03"
    texts = memory.TEXTS
    box = BOX

    def _maker(self) -> str:
        return "Agilent Technologies" if self.model == "33522B" else self.maker

    def sync(self, channel: int) -> bool:
        """True if a pulse leaves the SYNC connector at the start of this channel's record."""
        return self._box.flag("sync") and self._box.text("sync_source") == f"CH{channel}"

    def _table(self) -> Iterator[Command]:
        yield from self._data_commands()
        yield from output_stage.commands(self._of)
        source, of = "[SOURce<2>]", self._of
        yield setting(f"{source}:FUNCtion[:SHAPe]", "function", of)
        yield setting(f"{source}:FREQuency[:FIXed]", "frequency", of)
        yield setting(f"{source}:PHASe[:ADJust]", "phase", of)
        yield setting(f"{source}:FUNCtion:ARBitrary:SRATe", "rate", of)
        yield setting(f"{source}:FUNCtion:ARBitrary:FILTer", "filter", of)
        yield setting(f"{source}:FUNCtion:ARBitrary:ADVance", "advance", of)
        yield setting(f"{source}:BURSt:STATe", "burst", of)
        yield setting(f"{source}:BURSt:MODE", "burst_mode", of)
        yield setting(f"{source}:BURSt:NCYCles", "cycles", of)
        yield setting(f"{source}:BURSt:INTernal:PERiod", "burst_period", of)
        yield setting(f"{source}:BURSt:PHASe", "burst_phase", of)
        yield Command(f"{source}:PHASe:SYNChronize", lambda call: call.none())
        yield Command("OUTPut<2>[:STATe]", self._switch, lambda call: of(call).shown("output", call))
        yield setting("OUTPut<2>:POLarity", "polarity", of)
        yield setting("OUTPut<2>:SYNC[:STATe]", "sync", lambda call: self._box)
        yield setting("OUTPut<2>:SYNC:SOURce", "sync_source", lambda call: self._box)
        yield setting("TRIGger<2>:SOURce", "trigger", of)
        yield setting("TRIGger<2>:DELay", "delay", of)
        yield setting("TRIGger<2>:SLOPe", "slope", of)
        yield Command("TRIGger<2>[:IMMediate]", self._trigger_channel)
        yield setting("FORMat:BORDer", "border", lambda call: self._box)
        yield setting("OUTPut<2>:TRIGger[:STATe]", "trigger_out", lambda call: self._box)
        yield Command("SYSTem:LOCK:REQuest", get=self._request_lock)
        yield Command("SYSTem:LOCK:RELease", self._release_lock)
        yield Command("DISPlay[:STATe]", lambda call: None, lambda call: "1")
        yield Command("DISPlay:TEXT[:DATA]", _seen_or_heard)
        yield Command("DISPlay:TEXT:CLEar", _seen_or_heard)
        yield Command("SYSTem:BEEPer[:IMMediate]", _seen_or_heard)

    def _request_lock(self, call: Call) -> str:
        """Requests are counted; each wants a release."""
        call.none()
        self._front.locks += 1
        return "+1"

    def _release_lock(self, call: Call) -> None:
        call.none()
        if not self._front.locks:
            raise ScpiError(-221, "no lock is held")
        self._front.locks -= 1

    def _data_commands(self) -> Iterator[Command]:
        source = "[SOURce<2>]"
        yield Command(f"{source}:DATA:VOLatile:CLEar", self._clear_memory)
        yield Command(f"{source}:DATA:VOLatile:FREE", get=lambda call: f"{self._memory[call.channel].free:+d}")
        yield Command(f"{source}:DATA:VOLatile:CATalog", get=self._catalog)
        yield Command(f"{source}:DATA:ATTRibute:POINts", get=self._points)
        yield Command(f"{source}:DATA:ARBitrary", lambda call: self._upload(call, dac=False))
        yield Command(f"{source}:DATA:ARBitrary:DAC", lambda call: self._upload(call, dac=True))
        yield Command(f"{source}:FUNCtion:ARBitrary", self._select, lambda call: f'"{self._of(call).text("arb")}"')

    def _clear_memory(self, call: Call) -> None:
        call.none()
        self._memory[call.channel].clear()
        self._of(call).change(arb=BUILT_IN)

    def _catalog(self, call: Call) -> str:
        return ",".join(f'"{name}"' for name in self._memory[call.channel].names)

    def _points(self, call: Call) -> str:
        name = memory.waveform_name(call.only()) if call.tokens else self._of(call).text("arb")
        return f"{len(self._memory[call.channel][name]):+d}"

    def _upload(self, call: Call, dac: bool) -> None:
        """Store a record: ``name, <block>`` or ``name, value, value, ...``."""
        tokens = call.take(2, self.data.samples + 1)
        name, rest = memory.waveform_name(tokens[0]), tokens[1:]
        swapped = self._box.text("border") == "SWAP"
        if isinstance(rest[0], Block):
            call.take(2, 2)
            record = memory.dac_codes(rest[0], swapped) if dac else memory.fractions(rest[0], swapped)
        else:
            record = memory.from_integers(numbers(rest)) if dac else memory.from_fractions(numbers(rest))
        self._memory[call.channel].load(name, record)

    def _select(self, call: Call) -> None:
        name = memory.waveform_name(call.only())
        if name not in self._memory[call.channel]:
            raise ScpiError(memory.NO_WAVEFORM, name)
        self._of(call).change(arb=name)

    def _trigger_channel(self, call: Call) -> None:
        call.none()
        self._fire((call.channel,))


def _seen_or_heard(call: Call) -> None:
    """Ignore a command that is for people in front of the box."""
    call.take(0, 1)
