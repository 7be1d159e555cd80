"""Simulated Keysight 33500B / 33600A waveform generator: arbitrary records, bursts, bus trigger, SYNC output.

    SOURce<n>:DATA:ARBitrary:DAC name,#<d><bytes><int16...>   ->  record  ->  converter (drive.py)  ->  volts (output_stage.py)

A trigger plays the record on every channel it reaches, and a pulse leaves the SYNC connector at its start, output on or off.

Source: Keysight 33500B/33600A Series Operating and Service Guide, subsystems DATA, FUNCtion, VOLTage, OUTPut, BURSt, TRIGger,
SYSTem:LOCK;
data sheets 5991-0692EN (33500B) and 5991-3272EN (33600A). Not simulated: sequences, modulation, sweeps, noise, pulse, PRBS.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from hil.errors import ConfigError, ContractError
from sim_devices.instruments import output_stage
from sim_devices.instruments import volatile_memory as memory
from sim_devices.instruments.drive import Drive, built_in, played
from sim_devices.instruments.hand import FrontPanel, PanelBox
from sim_devices.instruments.operations import Operations
from sim_devices.instruments.parameters import INFINITY, Choice, Flag, Name, Number, Parameter, numbers
from sim_devices.instruments.program_message import Block, ScpiError
from sim_devices.instruments.scpi import Call, Command, Scpi
from sim_devices.instruments.settings import Settings, setting
from sim_devices.instruments.volatile_memory import BUILT_IN, FULL_SCALE, VolatileMemory


@dataclass(frozen=True, slots=True)
class Model:
    """Highest arbitrary sample rate (with a filter, and with FILTer OFF), converter bits, samples per channel, top sine."""

    rate_hz: float
    unfiltered_hz: float
    bits: int
    samples: int
    least: int
    sine_hz: float


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


class Downstream(Protocol):
    """Whom the generator's cables lead to. Called with the bench's lock held."""

    def fired(self, source: Keysight33600, channels: tuple[int, ...]) -> None:
        """A burst starts on these channels."""

    def switched(self, source: Keysight33600, channel: int, on: bool) -> None:
        """An output relay moved."""

    def moved(self, source: Keysight33600, channel: int) -> None:
        """The level of an output that is on may have changed."""


class Keysight33600(PanelBox):
    """A simulated generator of the 33600A series, as its programming guide describes it.

    Args:
        serial: serial number.
        model: one of MODELS.
        lock: of the bench; boxes that are wired together share one.
        dac_bits: a coarser converter than the model's.
        samples: another memory than the model's.
        pace: seconds of waiting per second of signal for ``*OPC?``; 0 plays at once.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        serial: str = "SIM-33622-0001",
        *,
        model: str = "33622A",
        lock: threading.Condition | None = None,
        dac_bits: int | None = None,
        samples: int | None = None,
        pace: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if model not in MODELS:
            raise ConfigError("no such generator is simulated", where="model", got=model, allowed=", ".join(MODELS))
        self.model, self.data, self._serial = model, MODELS[model], serial
        self._bits = self.data.bits if dac_bits is None else dac_bits
        if not 2 <= self._bits <= self.data.bits:
            raise ConfigError(
                "the converter cannot get finer",
                where="dac_bits",
                got=f"{dac_bits}",
                allowed=f"2 to {self.data.bits} ({model})",
            )
        self._lock, self._pace = lock or threading.Condition(), pace
        self._operations = Operations(self._lock, clock)
        self._downstream: Downstream | None = None
        self._box = Settings(BOX)
        self._channels = {n: Settings(_parameters(self.data), self._check, partial(self._moved, n)) for n in (1, 2)}
        self._memory = {n: VolatileMemory(samples or self.data.samples, self.data.least) for n in (1, 2)}
        self._scpi = Scpi(
            self._table(),
            identity=(
                "Agilent Technologies" if model == "33522B" else "Keysight Technologies",
                model,
                serial,
                "A.02.03-3.15-03",
            ),
            lock=self._lock,
            operations=self._operations,
            reset=self._reset,
            trigger=self._bus_trigger,
            texts=memory.TEXTS,
        )
        self._front = FrontPanel(self._scpi, self.name)

    # -- Box ----------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Model and serial number."""
        return f"{self.model} {self._serial}"

    def reboot(self) -> None:
        """Lose power for a moment: settings as at power-on, volatile memory empty, outputs off."""
        with self._lock:
            self._operations.end_all()
            self._operations.clear()
            self._reset()
            for volatile in self._memory.values():
                volatile.clear()
            self._front.locks = 0
            self._scpi.status.power_on()

    def outputs(self) -> dict[str, object]:
        """Return by channel whether it is on, and its lowest and highest level in V."""
        with self._lock:
            return {
                str(n): {"on": s.flag("output"), "low_v": output_stage.low_v(s), "high_v": output_stage.high_v(s)}
                for n, s in self._channels.items()
            }

    def snapshot(self) -> dict[str, object]:
        """Return settings, records and status as JSON values."""
        with self._lock:
            return {
                "model": self.model,
                "box": self._box.snapshot(),
                "channels": {str(n): s.snapshot() for n, s in self._channels.items()},
                "memory": {str(n): m.snapshot() for n, m in self._memory.items()},
                "status": self._scpi.status.snapshot(),
            }

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot.

        Raises:
            ContractError: it is none of this model.
        """
        channels, volatile, status = state.get("channels"), state.get("memory"), state.get("status")
        if not (isinstance(channels, Mapping) and isinstance(volatile, Mapping) and isinstance(status, Mapping)):
            raise ContractError("not a snapshot of a generator", where=self.name, got=str(state)[:80])
        with self._lock:
            before = {n: s.flag("output") for n, s in self._channels.items()}
            self._box.restore(state["box"])
            for n in (1, 2):
                self._channels[n].restore(channels[str(n)])
                self._memory[n].restore(volatile[str(n)])
                if self._channels[n].text("arb") not in self._memory[n]:
                    raise ContractError("a record that is not there", where=self.name, got=self._channels[n].text("arb"))
            self._scpi.status.restore(status)
            self._report_switched(before)
            for n in (1, 2):
                self._moved(n)

    # -- Cables -------------------------------------------------------------------------------------------------------

    def connect(self, downstream: Downstream) -> None:
        """Tell `downstream` whenever an output changes or plays."""
        self._downstream = downstream

    def drive(self, channel: int, load_ohm: float = 50.0) -> Drive:
        """Return what `channel` plays, in V at a load of `load_ohm` (math.inf: open)."""
        s = self._channels[channel]
        shape = s.text("function")
        codes = self._memory[channel][s.text("arb")] if shape == "ARB" else built_in(shape)
        rate_hz = s.number("rate") if shape == "ARB" else s.number("frequency") * len(codes)
        gain, offset_v = output_stage.at_load(s, load_ohm)
        levels = played(codes, self._bits, gain / FULL_SCALE, offset_v, s.text("filter") if shape == "ARB" else "OFF")
        triggered = s.flag("burst") and s.text("burst_mode") == "TRIG" and s.number("cycles") < 0.99 * INFINITY
        cycles = s.number("cycles") if triggered else math.inf
        return Drive(levels, rate_hz, cycles, s.flag("output"), s.number("delay"))

    def on(self, channel: int) -> bool:
        """The output relay."""
        return self._channels[channel].flag("output")

    def span(self, channel: int, load_ohm: float, whole: bool) -> tuple[float, float]:
        """Lowest and highest V at the connector while `channel` is on.

        Args:
            channel: 1 or 2.
            load_ohm: what is connected.
            whole: of a record that is played, else at rest.
        """
        s = self._channels[channel]
        if s.text("function") == "ARB" and s.text("filter") != "OFF":  # a filter overshoots
            levels = self.drive(channel, load_ohm).levels
            return (float(levels.min()), float(levels.max())) if whole else (float(levels[-1]), float(levels[-1]))
        codes = self._memory[channel][s.text("arb")] if s.text("function") == "ARB" else built_in(s.text("function"))
        ends = np.array([codes.min(), codes.max()] if whole else [codes[0]], dtype=np.int16)
        gain, offset_v = output_stage.at_load(s, load_ohm)
        levels = played(ends, self._bits, gain / FULL_SCALE, offset_v, "OFF")
        return float(levels.min()), float(levels.max())

    def sync(self, channel: int) -> bool:
        """True if a pulse leaves the SYNC connector at the start of this channel's record."""
        return self._box.flag("sync") and self._box.text("sync_source") == f"CH{channel}"

    def external(self) -> tuple[int, ...]:
        """Return the channels that play when a rising edge comes to the EXT TRIG connector."""
        ready = {"trigger": "EXT", "slope": "POS"}
        return tuple(
            n for n, s in self._channels.items() if s.flag("burst") and all(s.text(key) == word for key, word in ready.items())
        )

    def edge(self) -> tuple[int, ...]:
        """A rising edge comes to the EXT TRIG connector: return the channels that begin to play."""
        channels = self.external()
        self._begin(channels)
        return channels

    def free_running(self, channel: int) -> bool:
        """True if the channel plays without being triggered."""
        s = self._channels[channel]
        return not s.flag("burst") or s.text("trigger") in ("IMM", "TIM")

    def _bus_trigger(self) -> None:
        channels = tuple(n for n, s in self._channels.items() if s.text("trigger") == "BUS")
        if not channels:
            raise ScpiError(-211)
        self._fire(channels)

    def _begin(self, channels: tuple[int, ...]) -> None:
        """A burst begins, which takes a while."""
        if channels and self._pace:
            played = (self.drive(n) for n in channels)
            self._operations.begin(
                "burst", after_s=self._pace * max(d.delay_s + d.duration_s * min(d.cycles, 1e9) for d in played)
            )

    def _fire(self, channels: tuple[int, ...]) -> None:
        self._begin(channels)
        if channels and self._downstream is not None:
            self._downstream.fired(self, channels)

    def _moved(self, channel: int) -> None:
        if self._downstream is not None and self._channels[channel].flag("output"):
            self._downstream.moved(self, channel)

    def _report_switched(self, before: Mapping[int, bool]) -> None:
        for n, was in before.items():
            now = self._channels[n].flag("output")
            if now != was and self._downstream is not None:
                self._downstream.switched(self, n, now)

    # -- Commands -----------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        """``*RST``. Volatile memory stays, outputs go off."""
        before = {n: s.flag("output") for n, s in self._channels.items()}
        for settings in (self._box, *self._channels.values()):
            settings.reset()
        self._report_switched(before)

    def _check(self, s: Settings) -> None:
        """Volts inside what the output stage and the limits allow, rate inside what the filter allows."""
        output_stage.check(s)
        if s.text("filter") == "OFF" and s.number("rate") > self.data.unfiltered_hz:
            raise ScpiError(-221, f"with FILTer OFF up to {self.data.unfiltered_hz:g} Sa/s")

    def _of(self, call: Call) -> Settings:
        return self._channels[call.channel]

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

    def _switch(self, call: Call) -> None:
        before = {call.channel: self._of(call).flag("output")}
        self._of(call).change(output=self._of(call).read("output", call.only()))
        self._report_switched(before)

    def _trigger_channel(self, call: Call) -> None:
        call.none()
        self._fire((call.channel,))


def _parameters(model: Model) -> dict[str, Parameter]:
    """The settings of one channel, with the defaults of ``*RST``."""
    return {
        **output_stage.PARAMETERS,
        "function": Choice(("SINusoid", "SQUare", "TRIangle", "RAMP", "DC", "ARBitrary"), "SIN"),
        "frequency": Number(1e-6, model.sine_hz, 1e3, "HZ"),
        "phase": Number(-360, 360, 0),
        "arb": Name(BUILT_IN),
        "rate": Number(1e-6, model.rate_hz, 40e3),
        "filter": Choice(("NORMal", "STEP", "OFF"), "NORM"),
        "advance": Choice(("SRATe",), "SRAT"),
        "burst": Flag(),
        "burst_mode": Choice(("TRIGgered", "GATed"), "TRIG"),
        "cycles": Number(1, 1e8, 1, integer=True, infinite=True),
        "burst_period": Number(1e-6, 8000, 10e-3, "S"),
        "burst_phase": Number(-360, 360, 0),
        "trigger": Choice(("IMMediate", "EXTernal", "TIMer", "BUS"), "IMM"),
        "delay": Number(0, 1000, 0, "S"),
        "slope": Choice(("POSitive", "NEGative"), "POS"),
    }


def _seen_or_heard(call: Call) -> None:
    """Ignore a command that is for people in front of the box."""
    call.take(0, 1)
