"""Finding a record again in what was measured, and which samples belong to which symbol.

The marker is found by the correlation coefficient of the samples y under the code b,

    r(lag) = sum (y - <y>)(b - <b>) / sqrt( sum (y - <y>)^2 sum (b - <b>)^2 )

|r| is used, since a node may invert. The delay is resolved below a sample by a parabola through the three highest coefficients
(a, b, c): p = (a - c) / (2 (a - 2 b + c)). Head and tail marker must be the right distance apart, so a record with a hole, or
two clocks that drift apart, cannot pass for data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.waveform.record import BARKER, LEAD, SLOT, Axis, Record, RecordPlan
from hil.errors import ConfigError, Jumped, Misaligned

REACH = 4  # symbols either way in which a marker may be found
FADED = 0.25  # of the marker's contrast when the delay was measured: less than this is another signal
Samples = NDArray[np.uint16] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Conditions for a marker.

    Args:
        threshold: its least correlation.
        ambiguous: the largest share of that which a second match may have.
        echoes: a node with memory gives the marker again and again; the first one counts, and later ones are no second match.
    """

    threshold: float = 0.8
    ambiguous: float = 0.8
    echoes: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """Delay from trigger to the start of a record at the digitizer, s, and the marker's contrast, in V, signed."""

    delay_s: float
    contrast: float


@dataclass(frozen=True, slots=True)
class Window:
    """Assignment of the samples of a measured record to symbols.

    Args:
        origin: first sample not earlier than the start of symbol 0.
        period: samples per symbol.
        skip: samples of each symbol that are discarded as settling.
        keep: samples that are averaged, from there on.
    """

    origin: int
    period: int
    skip: int
    keep: int

    def first(self, symbol: int) -> int:
        """Index of the first sample inside `symbol`."""
        return self.origin + symbol * self.period


SLACK = 1e-3  # of a sample: two clocks and a sum of floats never agree better than that


def window(axis: Axis, symbol_s: float, delay_s: float, settle: float, where: str, spread_s: float = 0.0) -> Window:
    """Place the symbols of a record on the samples of an axis.

    Args:
        axis: of the digitizer's samples.
        symbol_s: duration of a symbol, s.
        delay_s: from the trigger to the start of symbol 0, as measured, s.
        settle: fraction of each symbol that is discarded, 0 to below 1.
        where: the instrument, for messages.
        spread_s: how much earlier than `delay_s` the first of several drives arrives, and goes on to its next symbol, s.

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
    stop = period if spread_s <= 0 else min(period, math.ceil(period - spread_s / axis.step_s - late - SLACK))
    if skip >= stop:
        apart = f", drives {spread_s / symbol_s:.3f} apart" if spread_s > 0 else ""
        raise ConfigError(
            "no sample of a symbol is left after settling",
            where=where,
            got=f"{period} samples a symbol, settling {settle:g} of it, first sample at {late / period:.3f}{apart}",
            allowed="at least one sample",
            todo="take more samples per symbol, or discard less"
            + (", or give the drives cables that take equally long" if apart else ""),
        )
    return Window(origin, period, skip, stop - skip)


@dataclass(frozen=True, slots=True)
class Peak:
    """The best match of the marker: how many samples late, its correlation (signed), and the runner-up."""

    lag: int
    score: float
    second: float
    fraction: float  # of a sample, to be added to lag
    contrast: float  # mean of the high chips minus mean of the low ones, in units of the samples


def find(samples: Samples, expected: int, period: int, reach: int, echoes: float = 0.0) -> Peak:
    """Look for the marker around index `expected`, `reach` samples either way; `period` samples a chip.

    `echoes`: the first match with this correlation counts, whatever comes behind it; 0: the best one.
    """
    low = max(0, expected - reach)
    high = min(len(samples), expected + reach + len(BARKER) * period)
    code = np.repeat(BARKER, period)
    if high - low < len(code):
        return Peak(0, 0.0, 0.0, 0.0, 0.0)
    score = correlation(samples[low:high], code)
    height = np.abs(score)
    first = int(np.argmax(height >= echoes)) if echoes and height.max() >= echoes else -1
    best = int(np.argmax(height)) if first < 0 else first + int(np.argmax(height[first : first + period]))
    apart = np.abs(np.arange(len(score)) - best) > period
    if first >= 0:
        apart[best:] = False
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


def accepted(peak: Peak, acceptance: Acceptance, where: str) -> Peak:
    """The peak itself, if it is high enough and alone.

    Raises:
        Misaligned: its |correlation| is too low, or a second one too high.
    """
    height = abs(peak.score)
    if height >= acceptance.threshold and peak.second <= acceptance.ambiguous * height:
        return peak
    low = height < acceptance.threshold
    raise Misaligned(
        "the marker was not found" if low else "the marker was found in two places",
        where=where,
        got=f"correlation {height:.3f}" + ("" if low else f" and {peak.second:.3f} elsewhere"),
        allowed=f"at least {acceptance.threshold:g}" if low else f"a second one of at most {acceptance.ambiguous * height:.3f}",
        outputs="inside their limits",
        todo="see that light and cables are on, that the two marker levels give different readings, and that the range fits",
    )


def measured_delay(record: Record, symbol_s: float, longest: int, acceptance: Acceptance, where: str) -> Delay:
    """Find the head marker in a record that begins at the trigger, up to `longest` symbols late.

    Raises:
        Misaligned: there is no marker, or more than one.
    """
    undelayed = window(record.axis, symbol_s, 0.0, 0.0, where)
    expected, period = undelayed.first(LEAD), undelayed.period
    found = find(record.words, expected, period, longest * period, acceptance.threshold if acceptance.echoes else 0.0)
    peak = accepted(found, acceptance, where)
    # the first sample of a symbol comes between 0 and 1 samples after its edge: half a sample on average
    late = expected + peak.lag + peak.fraction - 0.5
    contrast = peak.contrast * record.scale.volts_per_word
    return Delay(record.axis.start_s + late * record.axis.step_s - LEAD * symbol_s, contrast)


@dataclass(frozen=True, slots=True)
class Found:
    """The two markers of a record.

    Args:
        lag: samples that it came later than the delay says.
        contrast: of the markers, in V, signed.
    """

    lag: int
    contrast: float


def steady(found: Found, before: float, most: float, where: str) -> Found:
    """`found`, if its contrast is that of the record `before` within `most` of it: the markers are a pilot in every record.

    Raises:
        Jumped: light, bias or wavelength changed from one record to the next.
    """
    if abs(found.contrast - before) <= most * abs(before):
        return found
    raise Jumped(
        "the node answers otherwise than a moment ago", where=where, got=f"a marker contrast of {found.contrast:.4g} V",
        allowed=f"within {most:.0%} of the {before:.4g} V of the record before", outputs="inside their limits",
        todo="look at light, wavelength and bias; then hil resume, which takes the node as it is then",
    )  # fmt: skip


def markers_of(
    record: Record, plan: RecordPlan, place: Window, opened: float, acceptance: Acceptance, where: str, slot: int = 0,
    early: int = 0,
) -> Found:  # fmt: skip
    """Find both markers of a drive and their height; they must agree.

    Args:
        record: as it was read.
        plan: where the markers lie in it.
        place: where its symbols lie on the samples.
        opened: their contrast when the device was opened, V, signed.
        acceptance: of a marker.
        where: the instrument, for messages.
        slot: place of its markers among those of all drives.
        early: samples by which this drive arrives before the latest one.

    Raises:
        Misaligned: a marker is missing, faded, upside down, or in another place than the other.
    """
    reach, volts = REACH * place.period, record.scale.volts_per_word
    echoes = acceptance.threshold if acceptance.echoes else 0.0
    head, tail = (
        accepted(find(record.words, place.first(start + slot * SLOT) - early, place.period, reach, echoes), acceptance, at)
        for start, at in ((plan.head, f"{where}, head marker"), (plan.tail, f"{where}, tail marker"))
    )
    for peak, at in ((head, f"{where}, head marker"), (tail, f"{where}, tail marker")):
        unfaded(peak.contrast * volts, opened, at)
    if head.lag == tail.lag:
        return Found(head.lag, 0.5 * (head.contrast + tail.contrast) * volts)
    raise Misaligned(
        "the two markers of a record are not where they belong to each other",
        where=where,
        got=f"head {head.lag:+d}, tail {tail.lag:+d} samples",
        allowed="the same",
        outputs="inside their limits",
        todo="give both instruments one 10 MHz reference, or use shorter records (memory_samples)",
    )


def unfaded(contrast: float, opened: float, where: str) -> None:
    """A marker must not fade, nor turn upside down, against what it was when the device was opened; both in V.

    Raises:
        Misaligned: it did.
    """
    if contrast / opened > FADED:  # a sign that flipped is another signal too
        return
    upside_down = contrast / opened < 0
    raise Misaligned(
        "the marker has faded and come back upside down" if upside_down else "the marker has faded",
        where=where,
        got=f"a contrast of {contrast:.4g} V",
        allowed=f"more than {FADED:g} of the {opened:.4g} V when the device was opened, with the same sign",
        outputs="inside their limits",
        todo="look at the polarity of the generator's output, at inverted inputs and at swapped cables"
        if upside_down
        else "look at light and bias: the node has drifted; open the device again after calibrating",
    )
