"""The records of all drives, as they are laid out for a batch: plans, levels, markers, and when sampling begins.

What belongs to a size of batch is kept until the levels or the arrival of the drives change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from drivers.waveform.alignment import REACH
from drivers.waveform.arrival import Arrival
from drivers.waveform.channels import Drives, Reads
from drivers.waveform.record import BARKER, GUARD, LEAD, Axis, Codes, Frame, RecordPlan, blank, cut, fill, uncut
from drivers.waveform.settings import MemorySettings, WaveformSettings
from hil.device import Limit, Port
from hil.errors import ConfigError
from hil.port import each

LAYOUTS = 8  # sizes of batches that are remembered


@dataclass(frozen=True, slots=True)
class Levels:
    """Volts of the record outside of its data."""

    rest_v: float
    low_v: float
    high_v: float
    reset_v: float


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """A plan with what is reused by every batch of its size, of each drive: the record without data, the code of rest."""

    plan: RecordPlan
    empty: tuple[Codes, ...]
    rest: tuple[int, ...]


class Layouts:
    """Lays values out in records.

    Args:
        drives: what plays them.
        reads: what takes them.
        settings: of the device.
        memory: of a node that remembers, or None.

    arrival: with which records are laid out. longest: symbols in which the delay is looked for. pulse_s: when the SYNC pulse
    rises after the trigger, s.

    Raises:
        OutOfRange: rest or marker levels outside a generator's limits.
        ConfigError: the longest delay does not fit in one record of each.
    """

    def __init__(self, drives: Drives, reads: Reads, settings: WaveformSettings, memory: MemorySettings | None = None) -> None:
        self._drives, self._reads, self._settings, self._memory = drives, reads, settings, memory
        self._kept: dict[tuple[int, int], BatchLayout] = {}
        self._levels = [_levels(settings, memory, drives.limits(k)) for k in range(len(drives))]
        self._frame = framed(settings, memory, len(drives))
        self.longest = math.ceil(settings.longest_delay_s * settings.symbol_rate_hz) + 1
        self.arrival = Arrival((0,) * len(drives), {})
        self.pulse_s = 0.0
        self._stretch = (0.0, 0)  # delay by which sampling begins, s, and symbols more, see Arrival.stretch
        self._check_memories()

    def _check_memories(self) -> None:
        """The longest delay must fit in one record of each."""
        seen = LEAD + len(BARKER) + GUARD + self.longest
        drive, read = self._drives.memory, self._reads.memory
        if read.most < seen or self._plan(self.longest, Frame(), late=0).records > 1:
            raise ConfigError(
                "the memories are too short to look for the longest delay", where="waveform", got=f"{seen} symbols",
                allowed=f"{read.most} samples in, {drive.most} out", todo="lower longest_delay_s, or raise the memory",
            )  # fmt: skip

    def settle(self, arrival: Arrival) -> None:
        """Lay records out with these delays from now on."""
        if len(self._drives) > 1 or arrival.late != self.arrival.late:
            self._kept.clear()
        s, self.arrival = self._settings, arrival
        self._stretch = arrival.stretch(1 / s.symbol_rate_hz, s.settle, s.sample_phase if s.reads_per_symbol == 1 else None)

    def follow(self, offset: Limit, period: Limit | None) -> list[Levels]:
        """Return the levels of all drives, moved by `offset` from those of the settings; see hil.device.Following."""
        moved, count = [], len(self._drives)
        periods = (None,) * count if period is None else each(period, count)
        for k, by in enumerate(each(offset, count)):
            port = self._drives.limits(k)
            before = _levels(self._settings, self._memory, port)
            set_to = (before.rest_v, before.low_v, before.high_v, before.reset_v)
            levels = (_within(port, level + by, periods[k]) for level in set_to)
            moved.append(Levels(*levels))
        return moved

    def use(self, levels: Sequence[Levels]) -> None:
        """Lay records out with these levels from now on."""
        self._levels = list(levels)
        self._kept.clear()

    def of(self, values: int, sequences: int = 0) -> BatchLayout:
        """Layout of a batch of so many symbols; in whole sequences, as long as each other, or 0: wherever records end.

        Raises:
            ConfigError: a sequence does not fit one record.
        """
        key = values, sequences
        if key not in self._kept:
            if len(self._kept) == LAYOUTS:
                self._kept.clear()
            count, late = len(self._drives), self.arrival.late
            plan = self._plan(values, self._frame, max(late), sequences)
            empty, rest = zip(*(self._blank(plan, k, k, late[k]) for k in range(count)), strict=True)
            self._kept[key] = BatchLayout(plan, empty, rest)
        return self._kept[key]

    def records(self, layout: BatchLayout, k: int, volts: NDArray[np.float32]) -> Codes:
        """Records (records, samples) of drive k for its volts (n,)."""
        codes = self._drives.encode(k, volts)
        return fill(layout.plan, layout.empty[k], layout.rest[k], codes, self.arrival.late[k])

    def probe(self, drive: int) -> list[Codes]:
        """Records without data in which `drive` alone plays a marker, the first one."""
        plan = self._plan(self.longest, Frame(), late=0)
        return [self._blank(plan, k, 0 if k == drive else None, 0)[0] for k in range(len(self._drives))]

    def start_s(self, plan: RecordPlan) -> float:
        """Time of the first sample after the trigger, s."""
        s, symbol_s = self._settings, 1 / self._settings.symbol_rate_hz
        return self._stretch[0] + (self._begins(plan) - REACH + s.sample_phase / s.reads_per_symbol) * symbol_s

    def samples(self, plan: RecordPlan) -> int:
        """Samples that each reading takes of a record."""
        return (plan.ends - self._begins(plan) + 2 * REACH + self._stretch[1]) * self._settings.reads_per_symbol

    def _begins(self, plan: RecordPlan) -> int:
        """First symbol that is measured: the pulse comes with the first of all, and has not the delay of the node."""
        return -self._pulse_before if self._settings.align == "sync" else plan.begins

    @property
    def _pulse_before(self) -> int:
        """Symbols by which the SYNC pulse comes before symbol 0 arrives."""
        return max(0, math.ceil((self._stretch[0] - self.pulse_s) * self._settings.symbol_rate_hz))

    def axis(self) -> Axis:
        """Time axis of the samples of a record, as it is asked for."""
        return Axis(self.start_s(self.of(1).plan), 1 / (self._settings.symbol_rate_hz * self._settings.reads_per_symbol))

    def _plan(self, values: int, frame: Frame, late: int, sequences: int = 0) -> RecordPlan:
        s, memory, more = self._settings, self._memory, self._stretch[1]
        more += self._pulse_before if s.align == "sync" else 0
        drive, read = self._drives.memory, self._reads.memory
        kept = replace(read, most=read.most - more * s.reads_per_symbol) if more else read
        if sequences and memory is not None:
            steps = values // sequences // memory.nodes
            return uncut(steps, memory.nodes, sequences, drive, kept, s.samples_per_symbol, s.reads_per_symbol, frame, late)
        return cut(values, drive, kept, s.samples_per_symbol, s.reads_per_symbol, frame, late)

    def _blank(self, plan: RecordPlan, k: int, marker_at: int | None, late: int) -> tuple[Codes, int]:
        """The record of drive k without data, and the code of its rest level."""
        levels = self._levels[k]
        volts = np.array([levels.rest_v, levels.low_v, levels.high_v, levels.reset_v], dtype=np.float32)
        rest, low, high, reset = (int(code) for code in self._drives.encode(k, volts))
        return blank(plan, rest, low, high, marker_at, late, reset), rest


def framed(settings: WaveformSettings, memory: MemorySettings | None, drives: int) -> Frame:
    """Return what a record for so many drives holds besides its data."""
    spans = (0.0, 0.0) if memory is None else (memory.rest_s, memory.reset_s)
    rest, reset = (math.ceil(span_s * settings.symbol_rate_hz - 1e-6) for span_s in spans)
    return Frame(drives if settings.align == "markers" else 0, rest, reset)


def _levels(settings: WaveformSettings, memory: MemorySettings | None, port: Port) -> Levels:
    """Rest, marker and reset levels, checked against the port like any other drive."""
    span = port.shared_high - port.shared_low
    rest = min(max(0.0, port.shared_low), port.shared_high) if settings.rest_v is None else settings.rest_v
    low = port.shared_low + 0.25 * span if settings.marker_low_v is None else settings.marker_low_v
    high = port.shared_low + 0.75 * span if settings.marker_high_v is None else settings.marker_high_v
    reset = rest if memory is None or memory.reset_v is None else memory.reset_v
    port.check(torch.tensor([rest, low, high, reset], dtype=torch.float64))
    return Levels(rest, low, high, reset)


def _within(port: Port, level: float, period: float | None) -> float:
    """Return `level` inside of the limits: moved by whole periods, or at the limit."""
    if period is not None and level > port.shared_high:
        level -= period * math.ceil((level - port.shared_high) / period)
    if period is not None and level < port.shared_low:
        level += period * math.ceil((port.shared_low - level) / period)
    return min(max(level, port.shared_low), port.shared_high)
