"""Common parts of source-meters: volts are held and amperes measured, level by level or along a list; a trip is told.

    answer    current, status, current, status, ...     one pair for each level, of each channel by a question of its own
    trip      status & tripped: the source was held back at its compliance, so the level was not the one that was set
    9.9E37    the current is beyond its range

A measurement that was held back is no data: it raises NotAReading, as one beyond the range does. A driver says in a `Measuring`
how its instrument is asked, one of a single channel in `Words`; what holds and switches is drivers/scpi_source.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from drivers.links.link import Link
from drivers.read_back import Setting
from drivers.scpi import SENTINEL, Expect, Scpi
from drivers.scpi_source import Layout, Level, ScpiSource, resting
from hil.device import Port
from hil.errors import ConfigError, ContractError, Desync, NotAReading
from hil.port import Limit, each
from hil.units import finite

MOST_LEVELS = 100
LONGEST_DELAY_S = 999.0
LIST_S = 1.0  # a list is waited for as a whole, so it must be over long before the wire is given up
PERIODS, LEAST_MAINS_HZ = 4.0, 50.0  # a reading takes some periods of the mains for each that it integrates
RESOLUTION = 1e-4  # of the range: the source rounds to so much
LEAST_A = 1e-9
Columns = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Measuring:
    """A source-meter, asked in its own words.

    Args:
        nplc: how long a measurement integrates, in periods of the mains.
        read: question for one current, of each channel.
        tripped: bits of the status that say so.
        begin: commands that prepare a list: levels of each channel (channels, levels) in V, and how long each is held before
            it is measured, s.
        run: question for all currents of a list of so many levels, of each channel.
        end: commands after a list, before the last level of it is set again.
    """

    nplc: float
    read: tuple[str, ...]
    tripped: int
    begin: Callable[[Columns, float], tuple[str, ...]]
    run: Callable[[int], tuple[str, ...]]
    end: tuple[str, ...] = ()


class SourceMeter(ScpiSource):
    """A source-meter, sourcing V and measuring A on each of its channels.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        layout: describes the box and how it measures; called first, so that limits are refused before anything is sent.
        range_a: range of the measured current, A, either sign; also the compliance of the source.

    Raises:
        OutOfRange, ConfigError: settings that the instrument does not have. WrongInstrument.
    """

    def __init__(self, scpi: Scpi | Link, layout: Callable[[], tuple[Layout, Measuring]], range_a: float) -> None:
        def made() -> Layout:
            found, self._measuring = layout()
            return found

        super().__init__(scpi, made)
        self._reading = Port(f"{self._called} current", -range_a, range_a, "A", self.drive.size)

    @property
    def reading(self) -> Port:
        """Range of the measured current, A, of each channel."""
        return self._reading

    def read(self) -> list[float]:
        """Measure the current of each channel once, A. The output must be on.

        Raises:
            NotAReading: beyond the range, or held back at the compliance. Desync: no number.
        """
        return [found[0] for found in self._currents(self._measuring.read, 1)]

    def sweep(self, rows: Columns, settle_s: float) -> list[list[float]]:
        """Hold each row in turn, (rows, channels) in V, and measure the currents after `settle_s`, (rows, channels) in A.

        They go out in lists of at most MOST_LEVELS levels, and LIST_S as long as one level does not take longer.

        Raises:
            OutOfRange, ContractError: nothing was sent. NotAReading, Desync, CommandRefused.
        """
        port = self.drive
        if not rows or not 0 <= settle_s <= LONGEST_DELAY_S:
            raise ContractError(
                "no such list", where=self._called, got=f"{len(rows)} levels, {settle_s:g} s",
                allowed=f"1 level or more, 0 to {LONGEST_DELAY_S:g} s", outputs="unchanged; nothing was sent",
            )  # fmt: skip
        port.check(torch.tensor([list(row) for row in rows], dtype=torch.float32))
        low, high = each(port.low, port.size), each(port.high, port.size)
        sent = [[min(max(float(v), lo), hi) for v, lo, hi in zip(row, low, high, strict=True)] for row in rows]
        most = max(1, min(MOST_LEVELS, int(LIST_S / (settle_s + PERIODS * self._measuring.nplc / LEAST_MAINS_HZ))))
        parts = [self._listed(sent[k : k + most], settle_s) for k in range(0, len(sent), most)]
        return [row for part in parts for row in part]

    def _listed(self, rows: Columns, settle_s: float) -> list[list[float]]:
        """Measure at each row of one list, in V; the last is held afterwards."""
        columns = list(zip(*rows, strict=True))
        with self._scpi.link.transaction():
            self._scpi.send(*self._measuring.begin(columns, settle_s))
            self._scpi.check("taking a list of levels", outputs=self._unknown)
            try:
                found = self._currents(self._measuring.run(len(rows)), len(rows))
            except NotAReading:
                self._end_list(rows[-1])  # in the list mode no level could be set, not even on the way to rest
                raise
            self._end_list(rows[-1])
        return [list(row) for row in zip(*found, strict=True)]

    def _end_list(self, last: Sequence[float]) -> None:
        """Hold `last`, in V, as a level again."""
        if self._measuring.end:
            self._scpi.send(*self._measuring.end)
        self.levels(last)

    def _currents(self, questions: Sequence[str], count: int) -> list[list[float]]:
        """(channels, count) in A."""
        reply = self._scpi.ask(";".join(questions))
        try:
            found = [[finite(part) for part in of.split(",")] for of in reply.split(";")]
            if [len(of) for of in found] != [2 * count] * len(questions):
                raise ValueError
            told = [int(status) for of in found for status in of[1::2]]
        except ValueError as error:
            self._scpi.link.distrust("a measurement with a wrong answer")
            raise Desync(
                "not a current and a status for each level", where=self._called, got=reply[:80],
                allowed=f"{2 * count} numbers from each channel",
            ) from error  # fmt: skip
        beyond = any(abs(value) >= SENTINEL for of in found for value in of[::2])
        if beyond or any(status & self._measuring.tripped for status in told):
            raise NotAReading(
                "the current is beyond its range" if beyond else "the source was held back at its compliance",
                where=self._called, got=reply[:80], allowed=f"up to {self._reading.shared_high:g} A", outputs="as they were",
                todo="raise range_a, or look whether the device under test is shorted",
            )  # fmt: skip
        return [of[::2] for of in found]


@dataclass(frozen=True, slots=True)
class Asked:
    """Settings that were asked for, of a source-meter of one channel.

    Args:
        widest_v: largest level, either sign.
        rest_v: level at rest.
        range_a: range of the measured current, and compliance.
        nplc: how long a measurement integrates, in periods of the mains.
    """

    widest_v: float
    rest_v: float
    range_a: float
    nplc: float


@dataclass(frozen=True, slots=True)
class Words:
    """A source-meter of one channel, in its own words.

    Args:
        setup: commands that bring it to its known state, outputs off.
        besides: what else is read back.
        measuring: how it is asked.
    """

    setup: tuple[str, ...]
    besides: tuple[Setting, ...]
    measuring: Measuring


class OneSourceMeter(SourceMeter):
    """A source-meter of one channel, sourcing V and measuring A. It can hold voltage and compliance.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        low_v, high_v: narrower limits of the level, V.
        range_a: range of the measured current, A, either sign; also the compliance of the source.
        nplc: how long a measurement integrates, in periods of the mains.
        slew_v_per_s: largest rate of the level, V/s, and of its way down before it is switched off; None: any.
        max_step_v: largest step of the level, V; None: any.

    Raises:
        OutOfRange, ConfigError: settings that the instrument does not have. WrongInstrument.
    """

    expect: ClassVar[Expect]
    highest: ClassVar[tuple[float, float]]  # V, A, either sign
    periods: ClassVar[tuple[float, float]]  # least and largest nplc
    compliance: ClassVar[str]  # header of the compliance

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        low_v: float = -20.0,
        high_v: float = 20.0,
        range_a: float = 1e-3,
        nplc: float = 0.1,
        slew_v_per_s: float | None = None,
        max_step_v: float | None = None,
    ) -> None:
        self.channels = (1,)

        def layout() -> tuple[Layout, Measuring]:
            name = "source-meter"
            check_nplc(name, nplc, *self.periods)
            levels = meter_levels(name, "", self.highest, (low_v, high_v), range_a, (":SOUR:VOLT", self.compliance))
            said = self._words(Asked(max(abs(low_v), abs(high_v)), resting(levels["voltage"].port)[0], range_a, nplc))
            drive = driven(name, low_v, high_v, 1, slew_v_per_s, max_step_v)
            return Layout(
                name, self.expect, levels, ("voltage",), drive, ":OUTP {}", ":OUTP?", 1, said.setup, said.besides
            ), said.measuring  # fmt: skip

        super().__init__(scpi, layout, range_a)

    @abstractmethod
    def _words(self, asked: Asked) -> Words:
        """Say it in the words of the instrument."""


def listed(levels: Sequence[float]) -> str:
    """Levels as the words for a list have them."""
    return ",".join(f"{value:.9g}" for value in levels)


def meter_levels(
    name: str, tail: str, highest: tuple[float, float], limits: tuple[float, float], range_a: float, words: tuple[str, str]
) -> dict[str, Level]:
    """The two levels of a channel: its voltage, and its compliance.

    Args:
        name: of the instrument.
        tail: of the names, "_2" where there are several channels.
        highest: what the instrument can, V and A, either sign.
        limits: lowest and highest voltage that is allowed.
        range_a: highest compliance that is allowed, A.
        words: headers of the voltage and of the compliance.

    Raises:
        OutOfRange: limits wider than the instrument's.
    """
    volts = Port(f"{name} level", -highest[0], highest[0], "V").narrowed(*limits)
    amps = Port(f"{name} compliance", LEAST_A, highest[1], "A").narrowed(LEAST_A, range_a)
    level, compliance = words
    return {
        f"voltage{tail}": Level(volts, f"{level} {{}}", f"{level}?", resolution=RESOLUTION * (limits[1] - limits[0])),
        f"compliance{tail}": Level(amps, f"{compliance} {{}}", f"{compliance}?", resolution=RESOLUTION * range_a),
    }


def driven(name: str, low: Limit, high: Limit, count: int, slew_v_per_s: Limit | None, max_step_v: Limit | None) -> Port:
    """What a node drives: the voltage of each channel."""
    return Port(f"{name} level", low, high, "V", count, slew_per_s=slew_v_per_s, max_step=max_step_v)


def check_nplc(name: str, nplc: float, least: float, most: float) -> None:
    """Raises: ConfigError: no such integration time."""
    if not least <= nplc <= most:
        raise ConfigError("no such integration time", where=f"{name} nplc", got=f"{nplc:g}", allowed=f"{least:g} to {most:g}",
                          outputs="unchanged; nothing was sent")  # fmt: skip
