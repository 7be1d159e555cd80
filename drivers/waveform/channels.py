"""All channels that drive a node, and all that read it, as if each were one instrument.

    drive k     channel of a generator          the first generator gives the edge, the others play when it comes
    reading l   channel of a digitizer          every digitizer waits for the same edge

Generators with several channels, several generators, or both: codes are (K, samples). Whatever is done to all instruments is
done in the order in which they were named; generators that follow are made ready before the one that leads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.waveform.record import Codes, Memory, Record
from drivers.waveform.roles import Digitizer, Generator, no_average
from hil.device import Port
from hil.errors import ConfigError
from hil.port import Limit, each


@dataclass(frozen=True, slots=True)
class Drive:
    """A channel of a generator, counted from 0."""

    generator: Generator
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """A channel of a digitizer, counted from 0."""

    digitizer: Digitizer
    channel: int = 0


class Instruments:
    """Several instruments that are worked one after the other. all: each once, in the order in which they were named."""

    def __init__(self, named: Iterable[Any]) -> None:
        self.all: tuple[Any, ...] = tuple({id(one): one for one in named}.values())

    def forget(self) -> None:
        """Forget what was set, so that it is sent again."""
        for one in self.all:
            one.forget()

    def clear(self) -> None:
        """Clear all wires: what is in flight is discarded."""
        for one in self.all:
            one.clear()

    def reopen(self) -> None:
        """Close all wires and open them again."""
        for one in self.all:
            one.reopen()

    def identify(self) -> tuple[str, ...]:
        """Verify that the same instruments answer; return who they are, a line each."""
        return tuple(one.identify() for one in self.all)


class Drives(Instruments):
    """The channels that drive, in the order of the node's inputs. port: their limits, V. memory: that they have in common.

    Raises:
        ConfigError: a channel that is not there, one twice, or one that nobody drives.
    """

    def __init__(self, drives: Sequence[Drive]) -> None:
        super().__init__(one.generator for one in drives)
        self._drives = tuple(drives)
        _check("drive", [(id(one.generator), one.channel, one.generator.drive) for one in drives], every=True)
        self.port = _joined("drive", [(one.generator.drive, one.channel) for one in drives])
        memories = [one.memory for one in self.all]
        self.memory = memories[0] if len(memories) == 1 else Memory(
            max(one.least for one in memories), min(one.most for one in memories), math.lcm(*(one.step for one in memories))
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._drives)

    def limits(self, drive: int) -> Port:
        """The port of one drive alone."""
        one = self._drives[drive]
        return _joined(self.port.name, [(one.generator.drive, one.channel)])

    def prepare(self, sample_rate_hz: float) -> None:
        """Set everything but the records, outputs off; generators that follow first."""
        for one in self.all[:0:-1]:
            one.prepare(sample_rate_hz, external=True)
        self.all[0].prepare(sample_rate_hz)

    def encode(self, drive: int, volts: NDArray[np.float32]) -> Codes:
        """Turn the volts of a drive into codes, same shape."""
        one = self._drives[drive]
        return one.generator.encode(volts, one.channel) if one.channel else one.generator.encode(volts)

    def upload(self, records: Sequence[Codes]) -> None:
        """Send a record (samples,) for each drive."""
        for one, codes in zip(self._drives, records, strict=True):
            if one.channel:
                one.generator.upload(codes, one.channel)
            else:
                one.generator.upload(codes)

    def output(self, on: bool) -> None:
        """Switch all outputs on or off, and verify it."""
        for one in self.all:
            one.output(on)

    def trigger(self) -> None:
        """Play the records once: the first generator gives the edge for all."""
        self.all[0].trigger()


class Reads(Instruments):
    """The channels that read, in the order of the node's outputs. port: their ranges, V. names: for messages.

    Args:
        reads: these channels.
        sync: the channel that reads the SYNC pulse of the generator; None: none does.
        averages: records that each digitizer averages by itself.

    Raises:
        ConfigError: a channel that is not there, or one twice; a digitizer that does not average.
    """

    def __init__(self, reads: Sequence[Read], sync: Read | None = None, averages: int = 1) -> None:
        every = (*reads, *(() if sync is None else (sync,)))
        super().__init__(one.digitizer for one in every)
        self._reads, self._sync, self._averages = tuple(reads), sync, averages
        _check("read", [(id(one.digitizer), one.channel, one.digitizer.reading) for one in every], every=False)
        self.port = _joined("reading", [(one.digitizer.reading, one.channel) for one in reads])
        if averages > 1:
            self._average()
        least, most = (max(one.memory.least for one in self.all), min(one.memory.most for one in self.all))
        self.memory = self.all[0].memory if len(self.all) == 1 else Memory(least, most)
        alone = len(reads) == 1
        self.names = tuple(
            one.digitizer.reading.name if alone else f"reading {k}, {one.digitizer.reading.name}"
            for k, one in enumerate(reads, 1)
        )

    def __len__(self) -> int:
        return len(self._reads)

    def _average(self) -> None:
        """Let each digitizer average. Raises: ConfigError: one cannot."""
        for one in self.all:
            if not callable(getattr(one, "average", None)):
                raise no_average(one.reading.name, f"{type(one).__name__} has no average(records)")
            one.average(self._averages)

    def finer(self, rate_hz: float, most: int) -> int:
        """Return the largest multiple of `rate_hz`, up to `most`, that all of them can sample at; 1 if there is none."""
        found = most
        while (common := min(one.finer(rate_hz, found) for one in self.all)) < found:
            found = common
        return found

    def configure(self, samples: int, rate_hz: float, start_s: float) -> None:
        """Take `samples` samples at `rate_hz`, the first `start_s` seconds after the trigger."""
        for one in self.all:
            one.configure(samples, rate_hz, start_s)

    def arm(self) -> None:
        """Make all ready for one trigger; return when it may come."""
        for one in self.all:
            one.arm()

    def play(self, drives: Drives, rest_s: float, timeout_s: float) -> None:
        """Take what the drives play: once, or as often as the digitizers average.

        Args:
            drives: have their records.
            rest_s: that they play on behind the last sample that is taken: no generator is triggered before it has ended.
            timeout_s: for each edge and the record behind it.

        Raises:
            MissedTrigger: an edge did not come.
        """
        self.arm()
        drives.trigger()
        for taken in range(1, self._averages):
            for one in self.all:
                one.again(taken, timeout_s)
            if rest_s > 0:
                time.sleep(rest_s)
            drives.trigger()
        self.wait(timeout_s)

    def wait(self, timeout_s: float) -> None:
        """Wait until all records are complete. Raises: MissedTrigger."""
        for one in self.all:
            one.wait(timeout_s)

    def take(self) -> tuple[Record, ...]:
        """Return the record of each reading."""
        return tuple(_record(one) for one in self._reads)

    def pulse(self) -> Record:
        """Return the record of the SYNC pulse."""
        assert self._sync is not None  # asked for by the bench file
        return _record(self._sync)


def _record(one: Read) -> Record:
    return one.digitizer.read(one.channel) if one.channel else one.digitizer.read()


def _joined(name: str, channels: Sequence[tuple[Port, int]]) -> Port:
    """Join ports to one of many channels, each with the limits that it has in its own; a single one stays as it is."""
    (port, _), *more = channels
    if not more and port.size is None:
        return port

    def of(limit: Callable[[Port], Limit]) -> Limit:
        found = tuple(each(limit(one), one.size)[k] for one, k in channels)
        return found if len(set(found)) > 1 else found[0]

    named = " and ".join(dict.fromkeys(one.name for one, _ in channels))
    whole = Port(f"{name}: {named}", of(lambda one: one.low), of(lambda one: one.high), port.unit, len(channels))
    return whole if more else replace(whole, name=port.name, size=None)


def _check(role: str, channels: Sequence[tuple[int, int, Port]], every: bool) -> None:
    """Raises: ConfigError: a channel that is not there, one twice, or one that is left out and must not be."""
    named = [(which, k) for which, k, _ in channels]
    known = {(which, k): port for which, _, port in channels for k in range(port.size or 1)}
    wrong = [f"channel {k + 1} of {port.name}" for which, k, port in channels if (which, k) not in known]
    idle = [f"channel {k + 1} of {port.name}" for (which, k), port in known.items() if every and (which, k) not in named]
    if wrong or idle or len(set(named)) < len(named) or not named:
        raise ConfigError(
            f"the channels of {role} make no sense", where="waveform", outputs="off; nothing was set",
            got=f"no {wrong[0]}" if wrong else f"nobody drives {idle[0]}" if idle else "one twice, or none",
            allowed="channels that the instruments have, each once" + (", and all that are switched on" if every else ""),
            todo="correct [node], or channels of the instrument",
        )  # fmt: skip
