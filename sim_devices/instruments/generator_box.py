"""Common parts of simulated waveform generators: records, converter, bursts, triggers, cables. A dialect is in its own file.

    record  ->  converter (drive.py)  ->  volts (output_stage.py)

A dialect says which models there are, the settings of a channel (`_parameters`), its commands (`_table`) and what plays when.
A trigger plays the record on every channel it reaches, and a pulse leaves the SYNC connector at its start, output on or off.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

import numpy as np

from hil.errors import ConfigError, ContractError
from sim_devices.instruments import output_stage
from sim_devices.instruments.drive import Drive, built_in, played
from sim_devices.instruments.hand import FrontPanel, PanelBox
from sim_devices.instruments.operations import Operations
from sim_devices.instruments.parameters import INFINITY, Choice, Flag, Name, Number, Parameter
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Call, Command, Scpi
from sim_devices.instruments.settings import Settings
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


class Downstream(Protocol):
    """Whom the generator's cables lead to. Called with the bench's lock held."""

    def fired(self, source: GeneratorBox, channels: tuple[int, ...]) -> None:
        """A burst starts on these channels."""

    def switched(self, source: GeneratorBox, channel: int, on: bool) -> None:
        """An output relay moved."""

    def moved(self, source: GeneratorBox, channel: int) -> None:
        """The level of an output that is on may have changed."""


class GeneratorBox(PanelBox, ABC):
    """A simulated generator of two channels.

    Args:
        serial: serial number; None: that of the usual specimen.
        model: one of MODELS; None: the usual one.
        lock: of the bench; boxes that are wired together share one.
        dac_bits: a coarser converter than the model's.
        samples: another memory than the model's.
        pace: seconds of waiting per second of signal for ``*OPC?``; 0 plays at once.
        clock: seconds, monotonic.
    """

    models: ClassVar[Mapping[str, Model]]  # that are simulated, by name
    usual: ClassVar[tuple[str, str]]  # model and serial number of the usual specimen
    maker: ClassVar[str] = ""
    firmware: ClassVar[str] = ""
    plus: ClassVar[bool] = True  # error codes are answered with their sign
    word_bits: ClassVar[int] = 16  # of a point as it is uploaded; a converter as fine plays it as it is
    texts: ClassVar[Mapping[int, str] | None] = None  # error texts of its own
    box: ClassVar[Mapping[str, Parameter]] = {}  # settings of the box as a whole

    def __init__(
        self,
        serial: str | None = None,
        *,
        model: str | None = None,
        lock: threading.Condition | None = None,
        dac_bits: int | None = None,
        samples: int | None = None,
        pace: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model, self._serial = model or self.usual[0], serial or self.usual[1]
        if self.model not in self.models:
            raise ConfigError("no such generator is simulated", where="model", got=self.model, allowed=", ".join(self.models))
        self.data = self.models[self.model]
        self._bits = self.data.bits if dac_bits is None else dac_bits
        if not 2 <= self._bits <= self.data.bits:
            raise ConfigError(
                "the converter cannot get finer",
                where="dac_bits",
                got=f"{dac_bits}",
                allowed=f"2 to {self.data.bits} ({self.model})",
            )
        self._lock, self._pace = lock or threading.Condition(), pace
        self._operations = Operations(self._lock, clock)
        self._downstream: Downstream | None = None
        self._box = Settings(self.box)
        self._channels = {n: Settings(self._parameters(), self._check, partial(self._moved, n)) for n in (1, 2)}
        self._memory = {n: VolatileMemory(samples or self.data.samples, self.data.least) for n in (1, 2)}
        self._scpi = Scpi(
            self._table(), identity=(self._maker(), self.model, self._serial, self.firmware), lock=self._lock,
            operations=self._operations, reset=self._reset, trigger=self._bus_trigger, texts=self.texts, plus=self.plus,
        )  # fmt: skip
        self._front = self._panel()

    def _panel(self) -> FrontPanel:
        return FrontPanel(self._scpi, self.name)

    @abstractmethod
    def _table(self) -> Iterator[Command]:
        """All commands."""

    def _maker(self) -> str:
        return self.maker

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
        rate_hz = self._rate(s, len(codes)) if shape == "ARB" else s.number("frequency") * len(codes)
        gain, offset_v = output_stage.at_load(s, load_ohm)
        levels = played(codes, self._grid, gain / FULL_SCALE, offset_v, s.text("filter") if shape == "ARB" else "OFF")
        triggered = s.flag("burst") and s.text("burst_mode") == "TRIG" and s.number("cycles") < 0.99 * INFINITY
        cycles = s.number("cycles") if triggered else math.inf
        return Drive(levels, rate_hz, cycles, s.flag("output"), s.number("delay"))

    @property
    def _grid(self) -> int:
        """Bits that codes are rounded to; 16, so not at all, where the words of an upload are as coarse as the converter."""
        return 16 if self._bits >= self.word_bits else self._bits

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
        levels = played(ends, self._grid, gain / FULL_SCALE, offset_v, "OFF")
        return float(levels.min()), float(levels.max())

    @abstractmethod
    def sync(self, channel: int) -> bool:
        """True if a pulse leaves the SYNC connector at the start of this channel's record."""

    def _rate(self, s: Settings, points: int) -> float:
        """Samples/s at which an arbitrary record of `points` is played."""
        return s.number("rate")

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
        """``*TRG``: trigger from the bus. Raises: ScpiError: -211, nothing waits for it."""
        channels = tuple(n for n, s in self._channels.items() if s.text("trigger") == "BUS")
        if not channels:
            raise ScpiError(-211)
        self._fire(channels)

    def _begin(self, channels: tuple[int, ...]) -> None:
        """A burst begins, which takes a while."""
        pace = self._pace if self.timing is None else 1.0
        if channels and pace:
            played = (self.drive(n) for n in channels)
            self._operations.begin("burst", after_s=pace * max(d.delay_s + d.duration_s * min(d.cycles, 1e9) for d in played))

    def _fire(self, channels: tuple[int, ...]) -> None:
        if self.timing is not None:
            self._operations.pause(self.timing.trigger_s)
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

    def _switch(self, call: Call) -> None:
        """``OUTPut 0|1`` of a channel that plays."""
        before = {call.channel: self._of(call).flag("output")}
        self._of(call).change(output=self._of(call).read("output", call.only()))
        self._report_switched(before)

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

    def _parameters(self) -> dict[str, Parameter]:
        """The settings of one channel, with the defaults of ``*RST``."""
        return {
            **output_stage.PARAMETERS,
            "function": Choice(("SINusoid", "SQUare", "TRIangle", "RAMP", "DC", "ARBitrary"), "SIN"),
            "frequency": Number(1e-6, self.data.sine_hz, 1e3, "HZ"),
            "phase": Number(-360, 360, 0),
            "arb": Name(BUILT_IN),
            "rate": Number(1e-6, self.data.rate_hz, 40e3),
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
