"""Common parts of simulated boxes that hold levels: settings of each output, a relay that is told of, a history of levels.

    level of an output, A or V or W   =  what is set while it is on, else 0
    history   (time_s, channel, level) at each change of what stands at the terminals

A box says its table of commands and what an output can be set to; it is a Box (box.py) that a listener can be connected to.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol

from hil.errors import ContractError
from sim_devices.instruments.hand import FrontPanel, PanelBox
from sim_devices.instruments.operations import Operations
from sim_devices.instruments.parameters import Parameter
from sim_devices.instruments.program_message import ScpiError, Token
from sim_devices.instruments.scpi import Call, Command, Scpi
from sim_devices.instruments.settings import Settings

LENGTH = 100_000
OUTPUT = "output"


class Listener(Protocol):
    """A listener to the outputs. Called with the bench's lock held."""

    def switched(self, source: SourceBox, channel: int, on: bool) -> None:
        """An output relay moved."""

    def level(self, source: SourceBox, channel: int, value: float) -> None:
        """The level at the terminals has changed."""


class SourceBox(PanelBox):
    """A simulated box with outputs 1, 2, ….

    Args:
        identity: the four fields of ``*IDN?``.
        outputs: of each channel: its settings by name; a Flag named "output" is its relay.
        level: name of the setting that stands at the terminals.
        lock: of the bench, which gives it.
        clock: seconds from any origin, for the history.
    """

    def __init__(
        self,
        identity: tuple[str, str, str, str],
        outputs: Mapping[int, Mapping[str, Parameter]],
        level: str,
        lock: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity, self._level, self._clock = identity, level, clock
        self._lock = lock or threading.Condition()
        self._channels = {n: Settings(of, changed=partial(self._moved, n)) for n, of in outputs.items()}
        self._now = dict.fromkeys(outputs, 0.0)
        self._lit = dict.fromkeys(outputs, False)
        self._listeners: list[Listener] = []
        self._reached: dict[int, tuple[float, float]] = {}
        self.history: deque[tuple[float, int, float]] = deque(maxlen=LENGTH)
        self._operations = Operations(self._lock, time.monotonic)
        self._scpi = Scpi(
            self._table(), identity=identity, lock=self._lock, operations=self._operations, reset=self._reset,
            trigger=self._ignored,
        )  # fmt: skip
        self._front = FrontPanel(self._scpi, self.name)

    def _table(self) -> Iterator[Command]:
        """Return the commands of the box."""
        yield from ()

    def connect(self, listener: Listener) -> None:
        """Tell `listener` whenever an output is switched or its level changes."""
        self._listeners.append(listener)

    def stands(self, channel: int) -> float:
        """Return the level at the terminals of a channel while it is on, else 0."""
        return self._now[channel]

    def tell(self) -> None:
        """Tell every listener again what stands at the terminals."""
        for channel, value in self._now.items():
            for listener in self._listeners:
                listener.level(self, channel, value)

    def _moved(self, channel: int) -> None:
        """Tell of what has changed at the terminals of a channel."""
        s = self._channels[channel]
        on = s.flag(OUTPUT)
        value = s.number(self._level) if on else 0.0
        switched, self._lit[channel] = on != self._lit[channel], on
        changed, self._now[channel] = value != self._now[channel], value
        if changed:
            self.history.append((self._clock(), channel, value))
        if on:
            low, high = self._reached.get(channel, (value, value))
            self._reached[channel] = min(low, value), max(high, value)
        for listener in self._listeners:
            if switched:
                listener.switched(self, channel, on)
            if changed:
                listener.level(self, channel, value)

    def reached(self) -> dict[str, object]:
        """Return by channel the lowest and highest level while it was on; one that never was is not there."""
        with self._lock:
            return {str(n): {"low_v": low, "high_v": high} for n, (low, high) in self._reached.items()}

    def _reset(self) -> None:
        """``*RST``."""
        for n, settings in self._channels.items():
            settings.reset()
            self._moved(n)

    def _ignored(self) -> None:
        raise ScpiError(-211)

    # -- Box ----------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Model and serial number."""
        return f"{self._identity[1]} {self._identity[2]}"

    def reboot(self) -> None:
        """Lose power for a moment: settings as at power-on, outputs off."""
        with self._lock:
            self._reset()
            self._scpi.status.power_on()

    def snapshot(self) -> dict[str, object]:
        """Return settings and status as JSON values."""
        with self._lock:
            channels = {str(n): s.snapshot() for n, s in self._channels.items()}
            return {"channels": channels, "status": self._scpi.status.snapshot()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot. Raises: ContractError: it is none of this model."""
        channels, status = state.get("channels"), state.get("status")
        if not (isinstance(channels, Mapping) and isinstance(status, Mapping)):
            raise ContractError("not a snapshot of a source", where=self.name, got=str(state)[:80])
        with self._lock:
            for n, settings in self._channels.items():
                settings.restore(channels[str(n)])
                self._moved(n)
            self._scpi.status.restore(status)

    def outputs(self) -> dict[str, object]:
        """Return by channel whether it is on, and its level in the unit of the box."""
        with self._lock:
            return {str(n): {"on": on, "low_v": self._now[n], "high_v": self._now[n]} for n, on in self._lit.items()}


def channels_of(token: Token, known: Mapping[int, object]) -> list[int]:
    """The channels of a channel list, ``(@1,3)`` or ``(@1:3)``. Raises: ScpiError: no list, or no such channel."""
    text = token.replace(" ", "") if isinstance(token, str) else ""
    if not (text.startswith("(@") and text.endswith(")")):
        raise ScpiError(-104, "a channel list")
    found: list[int] = []
    for part in text[2:-1].split(","):
        first, _, last = part.partition(":")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise ScpiError(-104, text[:24])
        found += range(int(first[:4]), int((last or first)[:4]) + 1)
    if not found or not set(found) <= set(known):
        raise ScpiError(-222, text[:24])
    return found


def listed(pattern: str, name: str, channels: Mapping[int, Settings]) -> Command:
    """``pattern <value>[,(@list)]`` and ``pattern? [(@list)]`` for a setting of each channel; without a list, channel 1."""

    def put(call: Call) -> None:
        value, *rest = call.take(1, 2)
        for n in channels_of(rest[0], channels) if rest else [1]:
            channels[n].change(**{name: channels[n].read(name, value)})

    def get(call: Call) -> str:
        *_, last = call.take(0, 2) or ("(@1)",)
        named = isinstance(last, str) and last.startswith("(@")
        numbers = channels_of(last, channels) if named else [1]
        words = call.tokens[:-1] if named and call.tokens else call.tokens
        return ",".join(channels[n].shown(name, Call((), words)) for n in numbers)

    return Command(pattern, put, get)
