"""A stream of symbols as a record that says itself where it begins and ends.

    | lead | head marker | guard |  data: `symbols` values  | guard | tail marker | trail | padding |      in symbols

Where several channels drive a node, each has a head and a tail marker of its own, one after the other, and rests while the
others play theirs: `markers` times "marker | guard" before the data, "guard | marker" behind it.

A node with memory would mix markers and data. Around its data the record rests, for as long as the node remembers, after a
reset pulse where it takes one; with no markers at all the record begins with these (Frame):

    | lead | head marker | guard, rest | reset, rest |  data  | guard, rest | tail marker | trail | padding |
    | lead |                             reset, rest |  data  |                              trail | padding |

Short sequences for such a node share a record, each behind a reset and a rest of its own, alike to the first:

    ... reset, rest |  sequence  | reset, rest |  sequence  | ...

Lead, guards, rests, trail and padding stay at the rest level. A marker is the Barker code of length 13 (R. H. Barker, Group
Synchronizing of Binary Digital Systems, 1953), whose autocorrelation has side lobes of at most 1/13. How it is found again in
what was measured: alignment.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import ConfigError

Codes = NDArray[np.int16]  # for a DAC, -32767 to 32767
Words = NDArray[np.uint16]  # from an ADC

BARKER = np.array([1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1], dtype=np.float32)
LEAD, GUARD, TRAIL = 12, 8, 12  # symbols; lead and trail leave room to look for a marker that moved


@dataclass(frozen=True, slots=True)
class Memory:
    """Capacity of a generator or digitizer, in samples: at least, at most, and in whole multiples of `step`."""

    least: int
    most: int
    step: int = 1

    def padded(self, samples: int) -> int:
        """The shortest record the memory takes that holds `samples`."""
        return -(-max(samples, self.least) // self.step) * self.step


@dataclass(frozen=True, slots=True)
class Frame:
    """What a record holds besides its data, in symbols.

    Args:
        markers: at either end, one for each channel that drives; 0: none.
        rest: for which a node forgets; between markers and data, and before the data.
        reset: of the reset pulse; 0: none.
    """

    markers: int = 1
    rest: int = 0
    reset: int = 0

    @property
    def lead(self) -> int:
        """Symbols before the first marker, or before the reset and rest of a record without markers."""
        return max(LEAD, self.rest) if self.markers else LEAD

    @property
    def between(self) -> int:
        """Symbols between two sequences: reset and rest."""
        return self.reset + self.rest

    @property
    def before(self) -> int:
        """Symbols between the head markers with their guards and the data."""
        pulse = self.between if self.reset or not self.markers else 0
        return (self.rest if self.markers else 0) + pulse

    @property
    def overhead(self) -> int:
        """Symbols of a record besides its data."""
        return self.lead + self.before + 2 * self.markers * SLOT + (self.rest if self.markers else 0) + TRAIL


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """Layout of a batch in records, and of each record. All positions are in symbols.

    Args:
        symbols: values in each record.
        records: so many, all alike; the last is filled up with the rest level.
        total: symbols of the record with its frame, before the padding of `sent`.
        sent: samples of the generator's record, padding included.
        per_symbol: samples of the generator per symbol.
        frame: what it holds besides its data.
        sequences: in each record, as long as each other.
    """

    symbols: int
    records: int
    total: int
    sent: int
    per_symbol: int
    frame: Frame = Frame()
    sequences: int = 1

    @property
    def length(self) -> int:
        """Symbols of a sequence."""
        return self.symbols // self.sequences

    @property
    def pitch(self) -> int:
        """Symbols from the beginning of a sequence to that of the next."""
        return self.length + self.frame.between

    @property
    def span(self) -> int:
        """Symbols from the first value to the last, with the rests between sequences."""
        return self.symbols + (self.sequences - 1) * self.frame.between

    @property
    def head(self) -> int:
        """Symbol at which the first head marker begins; the next begins SLOT later."""
        return self.frame.lead

    @property
    def data(self) -> int:
        """Symbol at which the data begins."""
        return self.frame.lead + self.frame.markers * SLOT + self.frame.before

    @property
    def reset(self) -> int:
        """Symbol at which the first reset pulse begins."""
        return self.data - self.frame.rest - self.frame.reset

    @property
    def tail(self) -> int:
        """Symbol at which the first tail marker begins; the next begins SLOT later."""
        return self.data + self.span + GUARD + self.frame.rest

    @property
    def begins(self) -> int:
        """First symbol that must be measured: of the first head marker, or of the data."""
        return self.head if self.frame.markers else self.data

    @property
    def ends(self) -> int:
        """Symbol behind the last that must be measured: the last of the last tail marker, or of the data."""
        return self.tail + self.frame.markers * SLOT - GUARD if self.frame.markers else self.data + self.span


SLOT = len(BARKER) + GUARD
OVERHEAD = Frame().overhead


def cut(
    values: int, drive: Memory, read: Memory, drive_per_symbol: int, read_per_symbol: int, frame: Frame = Frame(), late: int = 0
) -> RecordPlan:  # fmt: skip
    """Cut `values` symbols into as few equal records as fit both memories.

    Args:
        values: symbols.
        drive: memory of the generators.
        read: memory of the digitizers.
        drive_per_symbol: samples of the generators for a symbol.
        read_per_symbol: samples of the digitizers for a symbol.
        frame: of each record.
        late: samples by which a channel's record may be shifted.

    Raises:
        ConfigError: not even one symbol fits beside the frame.
    """
    room = _room(drive, read, drive_per_symbol, read_per_symbol, frame, late)
    if room < 1:
        raise ConfigError(
            f"a record with its {'markers' if frame.markers else 'rest'} does not fit the instruments' memories",
            where="waveform record",
            got=f"{frame.overhead + 1} symbols of {drive_per_symbol} samples out, {read_per_symbol} in",
            allowed=f"{drive.most} samples out, {read.most} in",
            todo="use fewer samples per symbol, or more memory" + (", or a shorter rest in [memory]" if frame.rest else ""),
        )
    records = max(1, -(-values // room))
    return _planned(-(-values // records), records, 1, drive, drive_per_symbol, frame, late)


def uncut(
    steps: int, nodes: int, sequences: int, drive: Memory, read: Memory, drive_per_symbol: int, read_per_symbol: int,
    frame: Frame, late: int = 0,
) -> RecordPlan:  # fmt: skip
    """Lay `sequences` whole into as few equal records as fit both memories.

    Args:
        steps: of a sequence.
        nodes: symbols of a step.
        sequences: how many.
        drive: memory of the generators.
        read: memory of the digitizers.
        drive_per_symbol: samples of the generators for a symbol.
        read_per_symbol: samples of the digitizers for a symbol.
        frame: of each record.
        late: samples by which a channel's record may be shifted.

    Raises:
        ConfigError: a sequence does not fit.
    """
    room = max(0, _room(drive, read, drive_per_symbol, read_per_symbol, frame, late))
    if steps * nodes > room:
        raise ConfigError(
            "a sequence does not fit one record, and a sequence is never cut",
            where="waveform record",
            got=f"{steps} steps of {nodes} symbols",
            allowed=f"{room // nodes} steps: {drive.most} samples out, {read.most} in, {frame.overhead} symbols around",
            outputs="at rest; nothing was sent",
            todo=f"use shorter sequences (steps = {room // nodes} in [data]), fewer samples per symbol, a shorter rest in "
            "[memory], or instruments with more memory",
        )  # fmt: skip
    length = steps * nodes
    records = -(-sequences // (1 + (room - length) // (length + frame.between)))
    each = -(-sequences // records)
    return _planned(each * length, -(-sequences // each), each, drive, drive_per_symbol, frame, late)


def _room(drive: Memory, read: Memory, drive_per_symbol: int, read_per_symbol: int, frame: Frame, late: int) -> int:
    """Symbols of data that one record has room for."""
    out = (drive.most // drive.step * drive.step - late) // drive_per_symbol
    return min(out, read.most // read_per_symbol) - frame.overhead


def _planned(
    symbols: int, records: int, sequences: int, drive: Memory, per_symbol: int, frame: Frame, late: int
) -> RecordPlan:  # fmt: skip
    total = symbols + (sequences - 1) * frame.between + frame.overhead
    return RecordPlan(symbols, records, total, drive.padded(total * per_symbol + late), per_symbol, frame, sequences)


def data_of(plan: RecordPlan, samples: NDArray[Any], first: int, per_symbol: int) -> NDArray[Any]:
    """View the data of a record (n,), a row a sequence: (sequences, samples of one).

    Args:
        plan: of the record.
        samples: of the whole record.
        first: of the first value.
        per_symbol: samples of a symbol.
    """
    span, length, pitch = (symbols * per_symbol for symbols in (plan.span, plan.length, plan.pitch))
    windows = np.lib.stride_tricks.sliding_window_view(samples[first : first + span], length, writeable=True)
    return windows[:: max(1, pitch)]


def blank(plan: RecordPlan, rest: int, low: int, high: int, marker_at: int | None = 0, late: int = 0, reset: int = 0) -> Codes:
    """The record (sent,) with both markers and the reset pulses, as far as its frame has them, and without data.

    Args:
        plan: of the record.
        rest: code of the rest level.
        low: code of the low level.
        high: code of the high level.
        marker_at: place of the channel's markers among those of all channels; None: no marker.
        late: samples by which all of it is shifted.
        reset: code of the level of the reset pulse.
    """
    marker = np.where(BARKER > 0, high, low).astype(np.int16)
    record = np.full(plan.sent, rest, dtype=np.int16)
    for k in range(plan.sequences if plan.frame.reset else 0):
        first = (plan.reset + k * plan.pitch) * plan.per_symbol + late
        record[first : first + plan.frame.reset * plan.per_symbol] = reset
    for start in (plan.head, plan.tail) if marker_at is not None and plan.frame.markers else ():
        first = (start + (marker_at or 0) * SLOT) * plan.per_symbol + late
        record[first : first + len(marker) * plan.per_symbol] = np.repeat(marker, plan.per_symbol)
    return record


def fill(plan: RecordPlan, empty: Codes, rest: int, values: Codes, late: int = 0) -> Codes:
    """Lay codes of all values (n,) into records (records, sent) with the markers of `empty`, all `late` samples shifted."""
    records = np.empty((plan.records, plan.sent), dtype=np.int16)
    records[:] = empty
    every = np.full(plan.records * plan.symbols, rest, dtype=np.int16)
    every[: len(values)] = values
    parts = every.repeat(plan.per_symbol).reshape(plan.records, plan.sequences, -1)
    for record, part in zip(records, parts, strict=True):
        data_of(plan, record, plan.data * plan.per_symbol + late, plan.per_symbol)[:] = part
    return records


@dataclass(frozen=True, slots=True)
class Axis:
    """Time axis of a measured record: sample i was taken at start_s + i * step_s after the trigger."""

    start_s: float
    step_s: float


@dataclass(frozen=True, slots=True)
class Scale:
    """Word -> volts: (word - reference) * volts_per_word + origin_v."""

    volts_per_word: float
    origin_v: float
    reference: float

    @property
    def zero_v(self) -> float:
        """Voltage that the word 0 would stand for."""
        return self.origin_v - self.reference * self.volts_per_word


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a digitizer: raw words (n,), what they mean, and when they were taken."""

    words: Words
    scale: Scale
    axis: Axis

    def volts(self) -> NDArray[np.float32]:
        """Convert the words (n,) to V, float32 (n,)."""
        scaled: NDArray[np.float32] = self.words * np.float32(self.scale.volts_per_word) + np.float32(self.scale.zero_v)
        return scaled
