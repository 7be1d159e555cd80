"""Common parts of drivers of SCPI boxes that measure and hold nothing: set up once, asked, read back.

    :READ?   ->   one number, or one for each channel, separated by commas; 9.9E37 and more: it is none

A driver says in a `MeterLayout` who must answer, what sets it up and what is asked. It is Panelled (drivers/read_back.py) and a
Meter (drivers/vector/roles.py). It switches nothing, so it has no safe state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers.closing import close_all
from drivers.links.link import Link
from drivers.read_back import Panel, Setting, close_panel
from drivers.scpi import SENTINEL, Expect, Scpi
from drivers.scpi_driver import ScpiDriver, answering
from hil.device import Port
from hil.errors import Desync, NotAReading
from hil.units import finite


@dataclass(frozen=True, slots=True)
class MeterLayout:
    """A meter, in its own words.

    Args:
        name: for people.
        expect: who must answer.
        reading: range and unit of what it measures, `size` channels.
        read: question for all channels.
        setup: commands that bring the box to its known state.
        held: settings that are read back.
    """

    name: str
    expect: Expect
    reading: Port
    read: str
    setup: tuple[str, ...]
    held: tuple[Setting, ...]


class ScpiMeter(ScpiDriver):
    """A meter. The constructor resets it.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.
        layout: describes the box; called first, so that settings are refused before anything is sent.

    Raises:
        OutOfRange, ConfigError: settings that the instrument does not have. WrongInstrument: another model answers.
    """

    def __init__(self, scpi: Scpi | Link, layout: Callable[[], MeterLayout]) -> None:
        self._scpi = scpi if isinstance(scpi, Scpi) else Scpi(scpi)
        self._closed = self._ready = False
        try:
            self._layout = made = layout()
            self.identity = answering(self._scpi, made.expect, made.name, "it has none")
            self._met()
            self._scpi.send("*RST", "*CLS")
        except BaseException:
            self._scpi.close()
            raise
        self.channels = tuple(range(1, (made.reading.size or 1) + 1))
        self._panel = Panel(self._scpi, f"{made.name} {self.identity.serial}", made.held)

    def _met(self) -> None:
        """Look at the instrument that answered, before anything is set."""

    @property
    def reading(self) -> Port:
        """Range and unit of what is measured."""
        return self._layout.reading

    def prepare(self) -> None:
        """Bring the box to its known state; sends nothing if it is in it. Raises: CommandRefused: the instrument complains."""
        if self._ready:
            return
        self._scpi.send("*CLS", *self._layout.setup)
        self._scpi.check(f"setting up {self._layout.name}", outputs="it has none")
        self._ready = True
        self._panel.renewed()

    def read(self) -> list[float]:
        """Measure every channel once, in the unit of `reading`.

        Raises:
            NotAReading: a channel is beyond its range. Desync: not one number for each.
        """
        self.prepare()
        reply, port = self._scpi.ask(self._layout.read), self.reading
        try:
            found = [finite(part) for part in reply.split(",")]
            if len(found) != (port.size or 1):
                raise ValueError
        except ValueError as error:
            self._scpi.link.distrust("a measurement with a wrong answer")
            raise Desync(
                "not one number for each channel", where=self._layout.name, got=reply[:80], allowed=f"{port.size or 1} numbers"
            ) from error
        if any(abs(value) >= SENTINEL for value in found):
            raise NotAReading(
                "what is measured is beyond its range", where=self._layout.name, got=reply[:80],
                allowed=f"{port.shared_low:g} to {port.shared_high:g} {port.unit}", outputs="as they were",
                todo="raise the range in the bench file, or look at what is connected",
            )  # fmt: skip
        return found

    def forget(self) -> None:
        """Set everything up again next time: the instrument may have lost it (power, fault)."""
        self._ready = False

    def reset(self) -> None:
        """Send ``*RST``, whatever the instrument held."""
        self.forget()
        self._panel.let_in()
        self._scpi.send("*RST", "*CLS")

    def close(self) -> None:
        """Give the front panel back and close the link; the second call does nothing."""
        if self._closed:
            return
        self._closed = True
        close_all([lambda: close_panel(self._panel), self._scpi.close])
