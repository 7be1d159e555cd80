"""The two roles on a waveform bench: what plays records, and what takes them.

An instrument that does both has a driver with a `generator` and a `digitizer`, each of which is what is described here.
An instrument may have several channels, counted here from 0 in the order of its port. A driver of one channel need not take
the argument `channel`, nor one that no other generator leads `external`: they are given only where they are not 0 or False.
A digitizer that averages records by itself has `average` and `again` besides (`Averager`).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drivers.waveform.record import Codes, Memory, Record
from hil.device import Port
from hil.errors import ConfigError


class Generator(Protocol):
    """An instrument that plays records. drivers/keysight_33600.py shows the meaning of each."""

    @property
    def drive(self) -> Port:
        """Limits and unit of the outputs, V; `size` is their number, None of one."""

    @property
    def memory(self) -> Memory:
        """Samples that a record may have."""

    def prepare(self, sample_rate_hz: float, external: bool = False) -> None:
        """Set the sample rate, in Hz, and everything else but the records, outputs off.

        Args:
            sample_rate_hz: of all channels.
            external: play when an edge comes to the trigger input, not at `trigger`.
        """

    def encode(self, volts: NDArray[np.float32], channel: int = 0) -> Codes:
        """Turn volts into codes of the DAC, same shape; the caller has checked them against `drive`."""

    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Send the record of a channel and make it the one that the next trigger plays; the digitizer may be read meanwhile."""

    def output(self, on: bool) -> None:
        """Switch the outputs on or off, and verify it."""

    def trigger(self) -> None:
        """Play the records of all channels once, and give an edge at their beginning; do not wait for their end."""

    def forget(self) -> None:
        """Forget what was set, so that it is sent again."""

    def clear(self) -> None:
        """Clear the wire: what is in flight is discarded."""

    def reopen(self) -> None:
        """Close the wire and open it again."""

    def identify(self) -> str:
        """Verify that the same instrument answers; return who it is, a line for people."""

    def close(self) -> None:
        """Bring the output to safe and close the wire."""


class Digitizer(Protocol):
    """An instrument that takes records. drivers/keysight_infiniivision.py shows the meaning of each."""

    @property
    def reading(self) -> Port:
        """Limits and unit of the inputs, V; `size` is their number, None of one."""

    @property
    def memory(self) -> Memory:
        """Samples that a record may have."""

    def finer(self, rate_hz: float, most: int) -> int:
        """Return the largest multiple of `rate_hz`, up to `most`, that it can sample at; 1 if there is none."""

    def configure(self, samples: int, rate_hz: float, start_s: float) -> None:
        """Take `samples` samples at `rate_hz`, the first `start_s` seconds after the trigger."""

    def arm(self) -> None:
        """Make ready for one trigger; return when it may come."""

    def wait(self, timeout_s: float) -> None:
        """Wait until the record is complete: what is uploaded to the generator from then on does not change it.

        Raises:
            MissedTrigger: it is not within `timeout_s`; the digitizer was stopped.
        """

    def read(self, channel: int = 0) -> Record:
        """Return the record that a channel has taken."""

    def forget(self) -> None:
        """Forget what was set, so that it is sent again."""

    def clear(self) -> None:
        """Clear the wire: what is in flight is discarded."""

    def reopen(self) -> None:
        """Close the wire and open it again."""

    def identify(self) -> str:
        """Verify that the same instrument answers; return who it is, a line for people."""

    def close(self) -> None:
        """Stop the acquisition and close the wire."""


class Averager(Digitizer, Protocol):
    """A digitizer that can average records by itself. drivers/tektronix_mso.py shows the meaning of each."""

    def average(self, records: int) -> None:
        """From now on, average so many records, 2 or more, each at an edge of its own. `memory` may get smaller.

        Raises:
            ConfigError: it cannot.
        """

    def again(self, taken: int, timeout_s: float) -> None:
        """Return when it has taken so many records of an average, and the next edge may come.

        Raises:
            MissedTrigger: it has not within `timeout_s`; the digitizer was stopped.
        """


def no_average(where: str, why: str) -> ConfigError:
    """The error of a digitizer that does not average by itself."""
    return ConfigError(
        "the digitizer does not average by itself", where=where, got=f'averaged_by = "scope"; {why}',
        allowed='averaged_by = "host": each record is read, and the computer averages', outputs="off; nothing was set",
        todo="correct [waveform] in the bench file",
    )  # fmt: skip


def playing(driver: Any) -> Any:
    """The generator of a driver: itself, or that of an instrument that does both."""
    return getattr(driver, "generator", driver)


def taking(driver: Any) -> Any:
    """The digitizer of a driver: itself, or that of an instrument that does both."""
    return getattr(driver, "digitizer", driver)


def parts(driver: Any) -> tuple[Any, ...]:
    """What a driver is made of: itself, or generator and digitizer."""
    return tuple(dict.fromkeys((playing(driver), taking(driver))))
