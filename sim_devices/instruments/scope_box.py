"""Common parts of simulated oscilloscopes: arming, triggering, records, averages, faults, cables. A dialect is in its own file.

A dialect says which models there are, its settings (`_box_parameters`, `_channel_parameters`), its commands (`_table`) and the
volts of its words (`_span_v`, `_middle_v`, `_sampling`).

An average takes `count` records, each at an edge of its own. While one is taken, and worked on, no edge is seen. A scope that
triggers itself (sweep AUTO) does so after a while, as real ones do. Settings that the parts here rest on, by name:
trigger_source, level_<source>, slope, sweep, reference, position, range, type, count of the box; display, range, offset,
coupling and invert of each channel.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.errors import ConfigError, ContractError
from sim_devices.instruments import converter
from sim_devices.instruments.faults import Faults, Moment, Strike
from sim_devices.instruments.hand import FrontPanel, PanelBox
from sim_devices.instruments.operations import Operations
from sim_devices.instruments.parameters import Choice, Number, Parameter
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.record_faults import at_input, in_memory
from sim_devices.instruments.sampling import REFERENCES, Sampling, Window
from sim_devices.instruments.scope_record import Record
from sim_devices.instruments.scpi import Call, Command, Scpi
from sim_devices.instruments.settings import Settings

HIGH_RESOLUTION_BITS, FINEST_BITS = 12, 14
RISING = ("POS", "RIS")  # words for a rising edge


@dataclass(frozen=True, slots=True)
class Model:
    """Name in ``*IDN?``, sampling clock, points of memory, converter bits."""

    identity: str
    clock_hz: float
    memory: int
    bits: int


@dataclass(frozen=True, slots=True)
class Trigger:
    """The edge that is waited for.

    Args:
        source: "EXT" or "CHAN1" to "CHAN4".
    """

    source: str
    level_v: float
    rising: bool


class Upstream(Protocol):
    """Whom the scope's cables lead to. Called with the bench's lock held."""

    def armed(self, scope: ScopeBox) -> None:
        """The scope waits for a trigger from now on."""

    def forced(self, scope: ScopeBox) -> None:
        """The scope triggers itself: it wants what is on its inputs right now."""


Mode = Literal["stopped", "single", "running", "digitizing"]


class ScopeBox(PanelBox, ABC):
    """A simulated oscilloscope.

    Args:
        serial: serial number; None: that of the usual specimen.
        model: one of MODELS; None: the usual one.
        lock: of the bench; boxes that are wired together share one.
        adc_bits: 8 to 14 instead of the model's.
        memory_samples: another memory.
        pace: seconds of waiting per second of record for ``*OPC?``; 0 is ready at once.
        auto_s: how long a scope waits for a trigger before it triggers itself, where it does.
        clock: seconds, monotonic.
    """

    models: ClassVar[Mapping[str, Model]]  # that are simulated, by name
    usual: ClassVar[tuple[str, str]]  # model and serial number of the usual specimen
    maker: ClassVar[str] = ""
    firmware: ClassVar[str] = ""
    plus: ClassVar[bool] = True  # error codes are answered with their sign
    channel_count: ClassVar[int] = 4
    trigger_input: str = "EXT"  # where the SYNC of the bench ends; "CHAN4" of a scope without such an input

    def __init__(
        self,
        serial: str | None = None,
        *,
        model: str | None = None,
        lock: threading.Condition | None = None,
        adc_bits: int | None = None,
        memory_samples: int | None = None,
        pace: float = 0.0,
        auto_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model, self._serial = model or self.usual[0], serial or self.usual[1]
        if self.model not in self.models:
            raise ConfigError("no such scope is simulated", where="model", got=self.model, allowed=", ".join(self.models))
        self.data = self.models[self.model]
        self._bits = self.data.bits if adc_bits is None else adc_bits
        if not 8 <= self._bits <= FINEST_BITS:
            raise ConfigError("no such converter", where="adc_bits", got=f"{adc_bits}", allowed=f"8 to {FINEST_BITS}")
        self._points = self.data.memory if memory_samples is None else memory_samples
        self._pace, self._auto_s = pace, auto_s
        self._lock = lock or threading.Condition()
        self._operations = Operations(self._lock, clock)
        self._upstream: Upstream | None = None
        self.faults = Faults(self._serial, "scope")
        self._box = Settings(self._box_parameters())
        numbers = range(1, self.channel_count + 1)
        self._channels = {n: Settings(self._channel_parameters(n), self._check_channel) for n in numbers}
        self._mode: Mode = "stopped"
        self._wanted: frozenset[int] = frozenset()
        self._events = {"armed": False, "triggered": False}
        self._records: dict[int, Record] = {}
        self._before: dict[int, Record] = {}  # what each channel recorded last, for a memory that lags behind
        self._sums: dict[int, NDArray[np.int64]] = {}  # of an average that is under way
        self._taken = 0
        self._scpi = Scpi(
            self._table(), identity=(self.maker, self.data.identity, self._serial, self.firmware), lock=self._lock,
            operations=self._operations, reset=self._reset, trigger=self._force, plus=self.plus,
        )  # fmt: skip
        self._front = FrontPanel(self._scpi, self.name)

    # -- Dialect ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _box_parameters(self) -> Mapping[str, Parameter]:
        """The settings of the box as a whole."""

    @abstractmethod
    def _channel_parameters(self, n: int) -> Mapping[str, Parameter]:
        """The settings of channel n."""

    def _check_channel(self, s: Settings) -> None:
        """Raises: ScpiError: settings of a channel that do not go together."""

    @abstractmethod
    def _table(self) -> Iterator[Command]:
        """All commands."""

    def _the_box(self, call: Call) -> Settings:
        return self._box

    def _of(self, call: Call) -> Settings:
        return self._channels[call.channel]

    def _edge_from(self, pattern: str, name: str, external: str) -> Command:
        """``pattern <word>`` and ``pattern?`` of the trigger source, where channels are words that end in their number.

        Args:
            pattern: of the command.
            name: of the setting that holds the word.
            external: the word of the external trigger.
        """

        def put(call: Call) -> None:
            word = str(self._box.read(name, call.only()))
            self._box.change(**{name: word, "trigger_source": "EXT" if word == external else f"CHAN{word[-1]}"})

        return Command(pattern, put, lambda call: self._box.shown(name, call))

    def _level_of(self, pattern: str, source: Callable[[Call], str], style: str) -> Command:
        """``pattern <V>`` and ``pattern?`` of the trigger level of a source, "EXT" or "CHAN1"."""

        def put(call: Call) -> None:
            name = f"level_{source(call)}"
            self._box.change(**{name: self._box.read(name, call.only())})

        return Command(pattern, put, lambda call: f"{self._box.number(f'level_{source(call)}'):{style}}")

    def _acquired(self, n: int) -> Record:
        """The record of a channel. Raises: ScpiError: -230, there is none."""
        record = self._records.get(n)
        if record is None:
            raise ScpiError(-230, "no waveform was acquired")
        return record

    # -- Box ----------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Model and serial number."""
        return f"{self.model} {self._serial}"

    def clear(self) -> None:
        """Clear the device: a :DIGitize is stopped, pending queries are dropped, settings stay."""
        with self._lock:
            if self._mode == "digitizing":
                self._stop()
            super().clear()

    def reboot(self) -> None:
        """Lose power for a moment: settings as at power-on, no record."""
        with self._lock:
            self._operations.end_all()
            self._operations.clear()
            self._reset()
            self._front.locks = 0
            self._scpi.status.power_on()

    def outputs(self) -> dict[str, object]:
        """Return {}: a scope drives nothing."""
        return {}

    def snapshot(self) -> dict[str, object]:
        """Return settings, mode, records and status as JSON values."""
        with self._lock:
            return {
                "model": self.model,
                "box": self._box.snapshot(),
                "channels": {str(n): s.snapshot() for n, s in self._channels.items()},
                "mode": self._mode,
                "wanted": sorted(self._wanted),
                "events": dict(self._events),
                "records": {str(n): r.snapshot() for n, r in self._records.items()},
                "status": self._scpi.status.snapshot(),
            }

    def restore(self, state: Mapping[str, object]) -> None:
        """A box that was waiting for a trigger waits again; a half-done average starts anew."""
        channels, records, status = state.get("channels"), state.get("records"), state.get("status")
        wanted, events = state.get("wanted"), state.get("events")
        if not (isinstance(channels, Mapping) and isinstance(records, Mapping) and isinstance(status, Mapping)):
            raise ContractError("not a snapshot of a scope", where=self.name, got=str(state)[:80])
        with self._lock:
            self._box.restore(state["box"])
            for n, settings in self._channels.items():
                settings.restore(channels[str(n)])
            self._forget()
            self._records = {int(n): Record.restored(r) for n, r in records.items()}
            self._wanted = frozenset(n for n in wanted if n in self._channels) if isinstance(wanted, list) else frozenset()
            if isinstance(events, Mapping):
                self._events = {name: bool(events.get(name)) for name in self._events}
            self._scpi.status.restore(status)
            mode = str(state["mode"])
            self._operations.end_all()
            self._mode = "stopped"
            for known in ("single", "running", "digitizing"):
                if mode == known:
                    self._arm(known, self._wanted)

    # -- Cables -------------------------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """State of the acquisition: running, single, digitizing or stopped."""
        return self._mode

    def connect(self, upstream: Upstream) -> None:
        """Ask `upstream` for the voltage at the inputs, and tell it when the scope is armed."""
        self._upstream = upstream

    @property
    def waiting(self) -> bool:
        """Would a trigger be taken now?"""
        return self._mode != "stopped" and not self._operations.pending("between")

    def _awaits(self) -> bool:
        """True while it waits for an edge, as its registers say: the first one, or the next of an average."""
        return self.waiting and (not self._events["triggered"] or 0 < self._taken < self._due())

    def _due(self) -> int:
        """Records that a single acquisition takes."""
        return int(self._box.number("count")) if self._box.text("type") == "AVER" else 1

    def misses(self) -> bool:
        """True if the edge that comes now is overlooked."""
        return self.faults.on_physics and bool(self.faults.strikes(Moment.EDGE))

    def edge(self) -> Trigger:
        """The edge that it triggers on: source, level in V, direction."""
        source = self._box.text("trigger_source")
        return Trigger(source, self._box.number(f"level_{source}"), self._box.text("slope") in RISING)

    def window(self) -> Window:
        """The instants of the next record."""
        fraction = REFERENCES[self._box.text("reference")]
        return self._sampling().window(self._box.number("position") - fraction * self._box.number("range"))

    def wanted(self) -> frozenset[int]:
        """The channels that are recorded."""
        return self._wanted or frozenset(n for n, s in self._channels.items() if s.flag("display"))

    def capture(self, window: Window, volts: Mapping[int, Tensor]) -> None:
        """A trigger came: the voltage on each input at the instants of `window`. An input without a cable is at 0 V."""
        with self._lock:
            self._keep(window, volts)

    def _keep(self, window: Window, volts: Mapping[int, Tensor]) -> None:
        quiet = torch.zeros(window.points)
        kind = self._box.text("type")
        self._taken += 1
        strikes = self.faults.strikes(Moment.RECORD) if self.faults.on_physics else ()
        self._records = {n: self._recorded(n, window, volts.get(n, quiet), kind, strikes) for n in self.wanted()}
        self._events["triggered"] = True
        record_s = window.points / window.rate_hz
        takes_s = self._pace * record_s if self.timing is None else max(0.0, record_s + window.start_s) + self.timing.acquire_s
        if self._mode != "running":
            if self._taken < self._due():
                self._between(takes_s)
                return
            self._mode = "stopped"
        self._operations.end("acquire")
        if takes_s:
            self._operations.begin("acquire", after_s=takes_s)

    def _between(self, takes_s: float) -> None:
        """A record of several was taken: so much later the next edge is waited for."""
        if takes_s:
            self._operations.begin("between", after_s=takes_s, at_end=self._armed_again)
        else:
            self._armed_again()

    def _armed_again(self) -> None:
        self._events["armed"] = True

    def _recorded(self, n: int, window: Window, volts: Tensor, kind: str, strikes: Sequence[Strike]) -> Record:
        s = self._channels[n]
        if strikes:
            volts = at_input(volts, n, s.number("range"), strikes)
        if s.text("coupling") == "AC":
            volts = volts - volts.mean()
        if self._inverts(s):
            volts = -volts
        bits = max(self._bits, HIGH_RESOLUTION_BITS) if kind == "HRES" else self._bits
        words = converter.words(volts, self._span_v(s), self._middle_v(s), bits)
        if kind == "AVER":
            total = self._sums.setdefault(n, np.zeros(len(words), dtype=np.int64))
            total += words
            words = np.rint(total / self._taken).astype(np.int16)
        record = Record(words, window, self._span_v(s), self._middle_v(s), kind, self._taken if kind == "AVER" else 1)
        before, self._before[n] = self._before.get(n), record
        return in_memory(record, n, strikes, before) if strikes else record

    # -- Acquisition --------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Drop the data and the average."""
        self._records, self._sums, self._taken = {}, {}, 0

    def _arm(self, mode: Mode, wanted: frozenset[int]) -> None:
        if self.timing is not None:
            self._operations.pause(self.timing.arm_s)
        self._forget()
        self._mode, self._wanted = mode, wanted
        self._events = {"armed": True, "triggered": False}
        self._operations.end("acquire")
        self._operations.end("between")
        impatient = self._box.text("sweep") == "AUTO"
        if impatient:
            self._operations.begin("acquire", after_s=self._auto_s, at_end=self._force)
        elif mode == "digitizing":
            self._operations.begin("acquire")
        if self._upstream is not None:
            self._upstream.armed(self)

    def _stop(self) -> None:
        self._mode = "stopped"
        self._operations.end("acquire")
        self._operations.end("between")

    def _force(self) -> None:
        if self._mode == "stopped":
            return
        if self._upstream is not None:
            self._upstream.forced(self)
        else:
            self.capture(self.window(), {})

    @abstractmethod
    def _sampling(self) -> Sampling:
        """Rate and points of the next record."""

    def _span_v(self, s: Settings) -> float:
        """Volts from the lowest code of a channel's converter to the highest."""
        return s.number("range")

    def _inverts(self, s: Settings) -> bool:
        return s.flag("invert")

    def _middle_v(self, s: Settings) -> float:
        """Volts at the middle of the screen."""
        return s.number("offset")

    def _reset(self) -> None:
        """``*RST``."""
        self._mode, self._wanted = "stopped", frozenset()
        self._events = {"armed": False, "triggered": False}
        self._forget()
        for settings in (self._box, *self._channels.values()):
            settings.reset()

    def _start(self, call: Call, mode: Mode) -> None:
        call.none()
        self._arm(mode, frozenset())

    def _halt(self, call: Call) -> None:
        call.none()
        self._stop()

    def _force_trigger(self, call: Call) -> None:
        call.none()
        self._force()

    def _polled(self) -> Mode:
        """The mode now: an automatic trigger that is due comes first, and a record that is being taken is not complete."""
        taking = self._operations.pending("acquire")
        return "single" if taking and self._mode == "stopped" else self._mode


def edge_sources(external_v: float, channel_v: float, style: str) -> dict[str, Parameter]:
    """The settings trigger_source and level_<source> of a scope with four channels and an external trigger.

    Args:
        external_v: highest level of the external trigger, either sign.
        channel_v: highest level of a channel, either sign.
        style: of the numbers.
    """
    return {
        "trigger_source": Choice(("CHANnel1", "CHANnel2", "CHANnel3", "CHANnel4", "EXT"), "CHAN1"),
        "level_EXT": Number(-external_v, external_v, 0, "V", style=style),
        **{f"level_CHAN{n}": Number(-channel_v, channel_v, 0, "V", style=style) for n in range(1, 5)},
    }
