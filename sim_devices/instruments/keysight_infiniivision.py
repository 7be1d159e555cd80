"""Simulated Keysight InfiniiVision 3000T / 4000X oscilloscope: four channels, edge trigger, raw records.

    :DIGitize  :SINGle  :RUN  :STOP    :OPERegister:CONDition? bit 3 running, bit 5 waiting    :AER? armed    :TER? triggered
    :WAVeform:PREamble?   format,type,points,count,xincrement,xorigin,xreference,yincrement,yorigin,yreference
    :WAVeform:DATA?       #8<8 digits><words>         volts = (word - yreference) yincrement + yorigin, see converter.py

:DIGitize ends when the trigger has come: until then ``*OPC?``, ``*WAI`` and the waveform queries wait, and :STOP or a device
clear frees them. (The real box holds back *every* command; a driver written for that works here too.) With :TRIGger:SWEep AUTO,
the default, the box triggers itself after a while, as the real one does.

Source: Keysight InfiniiVision 3000 X-Series Programmer's Guide. Not simulated: peak detect, segments, measurements, math.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.errors import ConfigError, ContractError
from sim_devices.instruments import converter, front_panel
from sim_devices.instruments.faults import Faults, Moment, Strike
from sim_devices.instruments.front_panel import NR3
from sim_devices.instruments.hand import FrontPanel, PanelBox
from sim_devices.instruments.operations import Operations
from sim_devices.instruments.parameters import INFINITY, Flag, short_or_long
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.record_faults import at_input, in_memory
from sim_devices.instruments.sampling import REFERENCES, SCREEN_POINTS, Sampling, Window, sampling
from sim_devices.instruments.scope_record import Record, Wire
from sim_devices.instruments.scpi import Call, Command, Scpi
from sim_devices.instruments.settings import Settings

RUNNING, WAITING = 1 << 3, 1 << 5  # of OPERegister:CONDition
HIGH_RESOLUTION_BITS = 12
FIELDS = ("COUNt", "XINCrement", "XORigin", "XREFerence", "YINCrement", "YORigin", "YREFerence")  # of the preamble, from 3


@dataclass(frozen=True, slots=True)
class Model:
    """Name in ``*IDN?``, sampling clock, points of memory, converter bits."""

    identity: str
    clock_hz: float
    memory: int
    bits: int


MODELS = {
    "DSOX3024T": Model("DSO-X 3024T", 5e9, 4_000_000, 8),
    "DSOX4024A": Model("DSO-X 4024A", 5e9, 4_000_000, 8),
}


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

    def armed(self, scope: InfiniiVision) -> None:
        """The scope waits for a trigger from now on."""

    def forced(self, scope: InfiniiVision) -> None:
        """The scope triggers itself: it wants what is on its inputs right now."""


Mode = Literal["stopped", "single", "running", "digitizing"]


class InfiniiVision(PanelBox):
    """A simulated InfiniiVision oscilloscope, as its programmer's guide describes it.

    Args:
        serial: serial number.
        model: one of MODELS.
        lock: of the bench; boxes that are wired together share one.
        adc_bits: 8 to 12 instead of the model's.
        memory_samples: another memory.
        any_rate: see sampling.py.
        pace: seconds of waiting per second of record for ``*OPC?``; 0 is ready at once.
        auto_s: patience of SWEep AUTO.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        serial: str = "SIM-3024-0001",
        *,
        model: str = "DSOX3024T",
        lock: threading.Condition | None = None,
        adc_bits: int | None = None,
        memory_samples: int | None = None,
        any_rate: bool = False,
        pace: float = 0.0,
        auto_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if model not in MODELS:
            raise ConfigError("no such scope is simulated", where="model", got=model, allowed=", ".join(MODELS))
        self.model, self.data, self._serial = model, MODELS[model], serial
        self._bits = self.data.bits if adc_bits is None else adc_bits
        if not 8 <= self._bits <= 12:
            raise ConfigError("no such converter", where="adc_bits", got=f"{adc_bits}", allowed="8 to 12")
        self._points = self.data.memory if memory_samples is None else memory_samples
        self._any_rate, self._pace, self._auto_s = any_rate, pace, auto_s
        self._lock = lock or threading.Condition()
        self._operations = Operations(self._lock, clock)
        self._upstream: Upstream | None = None
        self.faults = Faults(serial, "scope")
        self._box = Settings(front_panel.BOX)
        self._channels = {n: Settings(front_panel.channel(n), front_panel.check_channel) for n in range(1, 5)}
        self._mode: Mode = "stopped"
        self._wanted: frozenset[int] = frozenset()
        self._events = {"armed": False, "triggered": False}
        self._records: dict[int, Record] = {}
        self._before: dict[int, Record] = {}  # what each channel recorded last, for a memory that lags behind
        self._sums: dict[int, NDArray[np.int64]] = {}  # of an average that is under way
        self._taken = 0
        self._scpi = Scpi(
            self._table(),
            identity=("KEYSIGHT TECHNOLOGIES", self.data.identity, serial, "07.50.2021102830"),
            lock=self._lock,
            operations=self._operations,
            reset=self._reset,
            trigger=self._force,
        )
        self._front = FrontPanel(self._scpi, self.name)

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
        return self._mode != "stopped"

    def misses(self) -> bool:
        """True if the edge that comes now is overlooked."""
        return self.faults.on_physics and bool(self.faults.strikes(Moment.EDGE))

    def edge(self) -> Trigger:
        """The edge that it triggers on: source, level in V, direction."""
        source = self._box.text("trigger_source")
        return Trigger(source, self._box.number(f"level_{source}"), self._box.text("slope") == "POS")

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
        if self._mode != "running":
            if kind == "AVER" and self._taken < self._box.number("count"):
                return
            self._mode = "stopped"
        self._operations.end("acquire")
        if self._pace:
            self._operations.begin("acquire", after_s=self._pace * window.points / window.rate_hz)

    def _recorded(self, n: int, window: Window, volts: Tensor, kind: str, strikes: Sequence[Strike]) -> Record:
        s = self._channels[n]
        if strikes:
            volts = at_input(volts, n, s.number("range"), strikes)
        if s.text("coupling") == "AC":
            volts = volts - volts.mean()
        if s.flag("invert"):
            volts = -volts
        bits = max(self._bits, HIGH_RESOLUTION_BITS) if kind == "HRES" else self._bits
        words = converter.words(volts, s.number("range"), s.number("offset"), bits)
        if kind == "AVER":
            total = self._sums.setdefault(n, np.zeros(len(words), dtype=np.int64))
            total += words
            words = np.rint(total / self._taken).astype(np.int16)
        record = Record(words, window, s.number("range"), s.number("offset"), kind, self._taken if kind == "AVER" else 1)
        before, self._before[n] = self._before.get(n), record
        return in_memory(record, n, strikes, before) if strikes else record

    # -- Acquisition --------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Drop the data and the average."""
        self._records, self._sums, self._taken = {}, {}, 0

    def _arm(self, mode: Mode, wanted: frozenset[int]) -> None:
        self._forget()
        self._mode, self._wanted = mode, wanted
        self._events = {"armed": True, "triggered": False}
        self._operations.end("acquire")
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

    def _force(self) -> None:
        if self._mode == "stopped":
            return
        if self._upstream is not None:
            self._upstream.forced(self)
        else:
            self.capture(self.window(), {})

    def _sampling(self) -> Sampling:
        """Channels 1 and 2, and 3 and 4, share a converter and its memory: with both of a pair on, each has half of them."""
        wanted = self.wanted()
        shared = len({(n - 1) // 2 for n in wanted}) < len(wanted)
        clock_hz, points = (self.data.clock_hz / 2, self._points // 2) if shared else (self.data.clock_hz, self._points)
        return sampling(self._box.number("range"), clock_hz, points, self._limit(), any_rate=self._any_rate)

    def _limit(self) -> float:
        """Points that may be transferred."""
        wanted = self._box.number("points")
        return min(wanted, SCREEN_POINTS) if self._box.text("points_mode") == "NORM" else wanted

    def _reset(self) -> None:
        """``*RST``."""
        self._mode, self._wanted = "stopped", frozenset()
        self._events = {"armed": False, "triggered": False}
        self._forget()
        for settings in (self._box, *self._channels.values()):
            settings.reset()

    # -- Waveform -----------------------------------------------------------------------------------------------------

    def _record(self) -> Record:
        """Return the record of :WAVeform:SOURce, as many points of it as were asked for.

        Raises:
            ScpiError: -230, there is none.
        """
        self._operations.wait("acquire")
        record = self._records.get(int(self._box.text("source")[-1]))
        if record is None:
            raise ScpiError(-230, "no waveform was acquired")
        return record.thinned(self._limit())

    def _wire(self) -> Wire:
        return Wire(self._box.text("format"), self._box.text("byte_order") == "LSBF", self._box.flag("unsigned"))

    def _preamble(self, call: Call) -> str:
        call.none()
        return self._record().preamble(self._wire())

    def _data(self, call: Call) -> bytes:
        call.none()
        return self._record().data(self._wire())

    def _points_query(self, call: Call) -> str:
        if call.tokens:
            return self._box.shown("points", call)
        points = len(self._record().words) if self._records else min(self._limit(), self._sampling().points)
        return f"{points:+.0f}"

    # -- Commands -----------------------------------------------------------------------------------------------------

    def _table(self) -> Iterator[Command]:
        yield from front_panel.commands(self._box, lambda call: self._channels[call.channel])
        yield Command("DIGitize", self._digitize)
        yield Command("SINGle", lambda call: self._start(call, "single"))
        yield Command("RUN", lambda call: self._start(call, "running"))
        yield Command("STOP", self._halt)
        yield Command("TRIGger:FORCe", self._force_trigger)
        yield Command("AER", get=lambda call: self._event("armed"))
        yield Command("TER", get=lambda call: self._event("triggered"))
        yield Command("RSTate", get=lambda call: {"stopped": "STOP", "single": "SING"}.get(self._polled(), "RUN"))
        yield Command("OPERegister:CONDition", get=self._condition)
        yield Command("ACQuire:SRATe[:ANALog]", get=lambda call: f"{self._sampling().rate_hz:{NR3}}")
        yield Command("ACQuire:POINts[:ANALog]", get=lambda call: f"{self._sampling().points:+d}")
        yield Command("WAVeform:PREamble", get=self._preamble)
        yield Command("WAVeform:DATA", get=self._data)
        yield Command("WAVeform:POINts", self._put_points, self._points_query)
        yield Command("SYSTem:LOCK", self._put_lock, lambda call: f"{self._front.locks:d}")
        for at, name in enumerate(FIELDS, start=3):
            yield Command(f"WAVeform:{name}", get=partial(self._field, at))

    def _put_lock(self, call: Call) -> None:
        self._front.locks = int(Flag().read(call.only()))

    def _digitize(self, call: Call) -> None:
        sources = (self._box.read("source", token) for token in call.take(0, 4))
        self._arm("digitizing", frozenset(int(str(source)[-1]) for source in sources))

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
        """The mode now: an automatic trigger that is due comes first."""
        self._operations.pending()
        return self._mode

    def _event(self, name: str) -> str:
        self._polled()
        happened, self._events[name] = self._events[name], False
        return f"{happened:+d}"

    def _condition(self, call: Call) -> str:
        call.none()
        mode = self._polled()
        waiting = mode != "stopped" and not self._events["triggered"]
        return f"{RUNNING * (mode != 'stopped') | WAITING * waiting:+d}"

    def _put_points(self, call: Call) -> None:
        token = call.only()
        everything = isinstance(token, str) and short_or_long("MAXimum", token)
        self._box.change(points=INFINITY if everything else self._box.read("points", token))

    def _field(self, at: int, call: Call) -> str:
        return self._preamble(call).split(",")[at]
