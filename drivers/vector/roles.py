"""The two roles on a vector bench: what holds levels, and what measures; and an instrument that does both along a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hil.device import Port


class Instrument(Protocol):
    """A source or a meter: the members that both have; drivers/scpi_source.py shows the meaning of each."""

    def prepare(self) -> None:
        """Bring it to its known state, outputs off; send nothing if it is in it."""

    def forget(self) -> None:
        """Forget what was set, so that it is sent again."""

    def clear(self) -> None:
        """Clear the wire: what is in flight is discarded."""

    def reopen(self) -> None:
        """Close the wire and open it again."""

    def identify(self) -> str:
        """Verify that the same instrument answers; return who it is, a line for people."""

    def close(self) -> None:
        """Bring the outputs to safe and close the wire."""


@runtime_checkable
class Source(Instrument, Protocol):
    """An instrument that holds levels."""

    @property
    def drive(self) -> Port:
        """Limits, unit and slew of its channels: `size` is their number, `rest` what `prepare` leaves them at."""

    def levels(self, values: Sequence[float]) -> None:
        """Set all channels, in the unit of `drive`, and read them back.

        Raises:
            OutOfRange: nothing was sent. CommandRefused: it holds others.
        """

    def output(self, on: bool) -> None:
        """Switch all of them on or off, and verify it."""


@runtime_checkable
class SelfMeasuring(Source, Protocol):
    """A source that may measure what its channels really hold."""

    @property
    def measures(self) -> bool:
        """True if it measures all of them."""

    def measured(self) -> Sequence[float]:
        """Measure every channel, in the order and unit of `drive`; the outputs are on."""


@runtime_checkable
class Meter(Instrument, Protocol):
    """An instrument that measures. One that has to be switched on to measure has `output` too."""

    @property
    def reading(self) -> Port:
        """Range and unit of its channels: `size` is their number."""

    def read(self) -> Sequence[float]:
        """Measure every channel once, in the unit of `reading`. Raises: NotAReading, Desync."""


@runtime_checkable
class Sweeper(Source, Meter, Protocol):
    """An instrument that goes through a list of levels by itself and measures at each."""

    def sweep(self, rows: Sequence[Sequence[float]], settle_s: float) -> Sequence[Sequence[float]]:
        """Hold each row (rows, channels), wait `settle_s`, measure: (rows, channels read). The last row stays."""
