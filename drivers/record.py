"""A stream of symbols as a record that says itself where it begins and ends.

    | lead | head marker | guard |  data: `symbols` values  | guard | tail marker | trail | padding |      in symbols

Lead, guards, trail and padding stay at the rest level. A marker is the Barker code of length 13 (R. H. Barker, Group
Synchronizing of Binary Digital Systems, 1953), whose autocorrelation has side lobes of at most 1/13; it is found in what was
measured by the correlation coefficient

    r(lag) = sum (y - <y>)(b - <b>) / sqrt( sum (y - <y>)^2 sum (b - <b>)^2 )

of the samples y under the code b. |r| is used, since a node may invert. The two markers must be the right distance apart, so a
record with a hole, or two clocks that drift apart, cannot pass for data.

Delay with sub-sample resolution: a parabola through the three highest correlations (a, b, c), p = (a - c) / (2 (a - 2 b + c)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.errors import ConfigError, Misaligned

Codes = NDArray[np.int16]  # for a DAC, -32767 to 32767
Words = NDArray[np.uint16]  # from an ADC
Samples = NDArray[np.uint16] | NDArray[np.float64]

BARKER = np.array([1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1], dtype=np.float32)
LEAD, GUARD, TRAIL = 12, 8, 12  # symbols; lead and trail leave room to look for a marker that moved


@dataclass(frozen=True, slots=True)
class Memory:
    """What a generator or digitizer can hold, in samples: at least, at most, and in whole multiples of `step`."""

    least: int
    most: int
    step: int = 1

    def padded(self, samples: int) -> int:
        """The shortest record the memory takes that holds `samples`."""
        return -(-max(samples, self.least) // self.step) * self.step


@dataclass(frozen=True, slots=True)
class Plan:
    """How many records a batch becomes, and where everything lies inside each. All positions are in symbols.

    Args:
        symbols: values in each record. records: so many, all alike; the last is filled up with the rest level.
        total: symbols of the record with markers and guards, before the padding of `sent`.
        sent: samples of the generator's record, padding included. per_symbol: samples of the generator per symbol.
    """

    symbols: int
    records: int
    total: int
    sent: int
    per_symbol: int

    @property
    def head(self) -> int:
        return LEAD

    @property
    def data(self) -> int:
        return LEAD + len(BARKER) + GUARD

    @property
    def tail(self) -> int:
        return self.data + self.symbols + GUARD


OVERHEAD = 2 * len(BARKER) + 2 * GUARD + LEAD + TRAIL


def cut(values: int, drive: Memory, read: Memory, drive_per_symbol: int, read_per_symbol: int) -> Plan:
    """Cut `values` symbols into as few equal records as fit both memories.

    Raises:
        ConfigError: not even one symbol fits beside the markers.
    """
    room = min(drive.most // drive.step * drive.step // drive_per_symbol, read.most // read_per_symbol) - OVERHEAD
    if room < 1:
        raise ConfigError(
            "a record with its markers does not fit the instruments' memories",
            where="waveform record",
            got=f"{OVERHEAD + 1} symbols of {drive_per_symbol} samples out, {read_per_symbol} in",
            allowed=f"{drive.most} samples out, {read.most} in",
            todo="use fewer samples per symbol, or more memory",
        )
    records = max(1, -(-values // room))
    symbols = -(-values // records)
    total = symbols + OVERHEAD
    return Plan(symbols, records, total, drive.padded(total * drive_per_symbol), drive_per_symbol)


def blank(plan: Plan, rest: int, low: int, high: int) -> Codes:
    """The record (sent,) with both markers and without data. rest, low, high: codes of the three levels."""
    marker = np.where(BARKER > 0, high, low).astype(np.int16)
    record = np.full(plan.sent, rest, dtype=np.int16)
    for start in (plan.head, plan.tail):
        first = start * plan.per_symbol
        record[first : first + len(marker) * plan.per_symbol] = np.repeat(marker, plan.per_symbol)
    return record


def fill(plan: Plan, empty: Codes, rest: int, values: Codes) -> Codes:
    """Codes of all values (n,) into records (records, sent) with the markers of `empty`."""
    records = np.empty((plan.records, plan.sent), dtype=np.int16)
    records[:] = empty
    first, last = plan.data * plan.per_symbol, (plan.data + plan.symbols) * plan.per_symbol
    for k, record in enumerate(records):
        part = values[k * plan.symbols : (k + 1) * plan.symbols]
        room = record[first:last].reshape(plan.symbols, plan.per_symbol)
        room[: len(part)] = part[:, None]
        room[len(part) :] = rest
    return records


@dataclass(frozen=True, slots=True)
class Axis:
    """When the samples of a measured record were taken: sample i at start_s + i * step_s after the trigger."""

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
        """What the word 0 would stand for."""
        return self.origin_v - self.reference * self.volts_per_word


@dataclass(frozen=True, slots=True)
class Record:
    """What a digitizer gives back: raw words (n,), what they mean, and when they were taken."""

    words: Words
    scale: Scale
    axis: Axis

    def volts(self) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = self.words * np.float32(self.scale.volts_per_word) + np.float32(self.scale.zero_v)
        return scaled


@dataclass(frozen=True, slots=True)
class Window:
    """Which samples of a measured record belong to which symbol.

    Args:
        origin: first sample not earlier than the start of symbol 0. period: samples per symbol.
        skip: samples of each symbol that are discarded as settling. keep: samples that are averaged.
    """

    origin: int
    period: int
    skip: int
    keep: int

    def first(self, symbol: int) -> int:
        """Index of the first sample inside `symbol`."""
        return self.origin + symbol * self.period


SLACK = 1e-3  # of a sample: two clocks and a sum of floats never agree better than that


def window(axis: Axis, symbol_s: float, delay_s: float, settle: float, where: str) -> Window:
    """Place the symbols of a record on the samples of an axis.

    Args:
        symbol_s: duration of a symbol, s. delay_s: from the trigger to the start of symbol 0, as measured, s.
        settle: fraction of each symbol that is discarded, 0 to below 1.
    Raises:
        ConfigError: a symbol is not a whole number of samples, or no sample is left after settling.
    """
    ratio = symbol_s / axis.step_s
    period = round(ratio)
    if period < 1 or abs(ratio - period) > 1e-6 * period:
        raise ConfigError(
            "a symbol must last a whole number of samples",
            where=where,
            got=f"{symbol_s:.6g} s a symbol at {axis.step_s:.6g} s a sample",
            allowed="the symbol rate divides the sample rate",
            todo=f"set the symbol rate to {1 / (max(1, period) * axis.step_s):.6g} Hz",
        )
    exact = (delay_s - axis.start_s) / axis.step_s
    origin = math.ceil(exact - SLACK)
    late = max(0.0, origin - exact)  # of a sample, how far inside its symbol the first one lies
    skip = max(0, math.ceil(settle * period - late - SLACK))
    if skip >= period:
        raise ConfigError(
            "no sample of a symbol is left after settling",
            where=where,
            got=f"{period} samples a symbol, settling {settle:g} of it, first sample at {late / period:.3f}",
            allowed="at least one sample",
            todo="take more samples per symbol, or discard less",
        )
    return Window(origin, period, skip, period - skip)


@dataclass(frozen=True, slots=True)
class Peak:
    """The best match of the marker: how many samples late, its correlation (signed), and the runner-up."""

    lag: int
    score: float
    second: float
    fraction: float  # of a sample, to be added to lag
    contrast: float  # mean of the high chips minus mean of the low ones, in units of the samples


def find(samples: Samples, expected: int, period: int, reach: int) -> Peak:
    """Look for the marker around index `expected`, `reach` samples either way; `period` samples a chip."""
    low = max(0, expected - reach)
    high = min(len(samples), expected + reach + len(BARKER) * period)
    code = np.repeat(BARKER, period)
    if high - low < len(code):
        return Peak(0, 0.0, 0.0, 0.0, 0.0)
    score = correlation(samples[low:high], code)
    best = int(np.argmax(np.abs(score)))
    apart = np.abs(np.arange(len(score)) - best) > period
    second = float(np.abs(score[apart]).max()) if apart.any() else 0.0
    chips = samples[low + best : low + best + len(code)].astype(np.float64)
    contrast = float(chips[code > 0].mean() - chips[code < 0].mean())
    return Peak(low + best - expected, float(score[best]), second, _vertex(np.abs(score), best), contrast)


def correlation(samples: Samples, code: NDArray[np.float32]) -> NDArray[np.float64]:
    """Coefficient of `code` (m,) with every stretch of `samples` (n,): (n - m + 1,). A flat stretch gives 0."""
    views = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), len(code))
    centred = views - views.mean(axis=1, keepdims=True)
    reference = code.astype(np.float64) - float(code.mean())
    power = (centred * centred).sum(axis=1) * float(reference @ reference)
    dots: NDArray[np.float64] = centred @ reference
    score: NDArray[np.float64] = np.divide(dots, np.sqrt(power), out=np.zeros_like(dots), where=power > 0)
    return score


def _vertex(score: NDArray[np.float64], best: int) -> float:
    if not 0 < best < len(score) - 1:
        return 0.0
    left, top, right = score[best - 1], score[best], score[best + 1]
    bend = left - 2 * top + right
    return float(0.5 * (left - right) / bend) if bend < 0 else 0.0


def accepted(peak: Peak, threshold: float, ambiguous: float, where: str) -> Peak:
    """The peak itself, if it is high enough and alone.

    Raises:
        Misaligned: |correlation| below `threshold`, or a second one above `ambiguous` times the first.
    """
    height = abs(peak.score)
    if height >= threshold and peak.second <= ambiguous * height:
        return peak
    low = height < threshold
    raise Misaligned(
        "the marker was not found" if low else "the marker was found in two places",
        where=where,
        got=f"correlation {height:.3f}" + ("" if low else f" and {peak.second:.3f} elsewhere"),
        allowed=f"at least {threshold:g}" if low else f"a second one of at most {ambiguous * height:.3f}",
        outputs="inside their limits",
        todo="see that light and cables are on, that the two marker levels give different readings, and that the range fits",
    )
