"""Arrival of each drive at each reading, and the samples by which records are shifted so that drives arrive together.

    d[l, k]             delay of drive k to reading l; pairs that were seen
    d[l, k] = in[k] + out[l]                          cables and latencies before and behind the node
    late[k] = round( (max in - in[k]) * rate )        samples by which the record of drive k is shifted
    D[l, k] = d[l, k] + late[k] / rate                reading l begins at max_k D[l, k]; its drives are a spread apart

Where readings see different drives, as with two nodes side by side, nothing is known of how these come together, and nothing
depends on it: in[k] is worked out among drives that share a reading, directly or by others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drivers.waveform.alignment import Delay
from hil.errors import Misaligned

WEAK = 0.1  # of the contrast of the strongest drive of a reading: less is crosstalk, and no marker to rely on
Pairs = Mapping[tuple[int, int], Delay]
"""(reading, drive), counted from 0, to what was measured."""
Lost = tuple[Misaligned, int, int]
"""Why there is no delay, of which reading, to which drive."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """The delays that records are played and read with.

    Args:
        late: samples by which the record of each drive is shifted.
        delays: (reading, drive) to the delay from the trigger with that shift, s, and the contrast, V.
    """

    late: tuple[int, ...]
    delays: Pairs

    def of(self, reading: int) -> dict[int, float]:
        """Delay of each drive that a reading sees, s."""
        return {k: delay.delay_s for (which, k), delay in self.delays.items() if which == reading}

    def delay_s(self, reading: int) -> float:
        """Delay from the trigger until all drives have arrived at a reading, s."""
        return max(self.of(reading).values())

    def spread_s(self, reading: int) -> float:
        """Time between the first drive and the last, s."""
        found = self.of(reading).values()
        return max(found) - min(found)

    def best(self, drive: int) -> int:
        """The reading that sees a drive best."""
        return max((abs(delay.contrast), which) for (which, k), delay in self.delays.items() if k == drive)[1]

    def stretch(self, symbol_s: float, settle: float, phase: float | None) -> tuple[float, int]:
        """Return the delay by which sampling begins, s, and the symbols that a record is longer for the latest reading.

        One sample a symbol lies at `phase` of the symbols of a single drive and reading; with more of them it is moved to the
        middle of what is settled in all: from `settle` of the latest drive on, until the first goes on to its next symbol.

        Args:
            symbol_s: duration of a symbol, s.
            settle: fraction of each symbol that is discarded.
            phase: of the sample in its symbol; None: there are several in each.
        """
        readings = sorted({which for which, _ in self.delays})
        delays = [self.delay_s(which) for which in readings]
        first, latest = min(delays, default=0.0), max(delays, default=0.0)
        more = math.ceil((latest - first) / symbol_s)
        if len(self.delays) < 2 or phase is None:
            return first, more
        within = [(delay - first + 0.5 * symbol_s) % symbol_s - 0.5 * symbol_s for delay in delays]
        begins = max(within) + settle * symbol_s
        ends = min(at + symbol_s - self.spread_s(which) for which, at in zip(readings, within, strict=True))
        return first + 0.5 * (begins + ends) - phase * symbol_s, more


def arrival(found: Sequence[Sequence[Delay | Misaligned]], rate_hz: float) -> tuple[Arrival, Pairs, list[Lost]]:
    """Work out the shifts from what was measured.

    Args:
        found: of each drive, what each reading saw of its marker.
        rate_hz: samples/s of the generators.

    Returns:
        the delays with the shifts; the pairs that count, as measured; readings that see no drive and drives that none sees.
    """
    seen = {(which, k): one for k, row in enumerate(found) for which, one in enumerate(row) if isinstance(one, Delay)}
    best = {which: max(abs(d.contrast) for (w, _), d in seen.items() if w == which) for which, _ in seen}
    pairs = {(w, k): d for (w, k), d in seen.items() if abs(d.contrast) >= WEAK * best[w]}
    heard = {k for _, k in pairs}
    pairs |= {(w, k): d for (w, k), d in seen.items() if k not in heard}  # weak everywhere: all there is of this drive
    lost = [
        (one, which, k) for k, row in enumerate(found) for which, one in enumerate(row)
        if isinstance(one, Misaligned) and (all(which != w for w, _ in pairs) or all(k != drive for _, drive in pairs))
    ]  # fmt: skip
    if lost:
        return Arrival((0,) * len(found), {}), pairs, lost
    late = _shifts(pairs, len(found), rate_hz)
    shifted = {(w, k): Delay(d.delay_s + late[k] / rate_hz, d.contrast) for (w, k), d in pairs.items()}
    return Arrival(late, shifted), pairs, lost


def together(lags: Mapping[int, int], where: str) -> int:
    """The samples by which all drives came late at a reading.

    Args:
        lags: of each drive.
        where: the reading, for messages.

    Raises:
        Misaligned: not the same of all: one generator began at another time than when the device was opened.
    """
    if len(set(lags.values())) == 1:
        return next(iter(lags.values()))
    raise Misaligned(
        "the drives do not arrive together as they did", where=where,
        got=", ".join(f"drive {k + 1} {lag:+d} samples" for k, lag in lags.items()), allowed="the same of all",
        outputs="inside their limits", todo="look at the trigger of each generator, and give all of them one 10 MHz reference",
    )  # fmt: skip


def _shifts(pairs: Pairs, drives: int, rate_hz: float) -> tuple[int, ...]:
    """Samples by which the record of each drive is shifted, so that drives that share a reading arrive with the latest."""
    late = [0] * drives
    left = set(range(drives))
    while left:
        start = min(left)
        arrives = {start: 0.0}
        waiting = [start]
        while waiting:
            k = waiting.pop()
            for (which, one), delay in pairs.items():
                if one != k:
                    continue
                for (same, other), there in pairs.items():
                    if same == which and other not in arrives:
                        arrives[other] = arrives[k] + there.delay_s - delay.delay_s
                        waiting.append(other)
        latest = max(arrives.values())
        for k, at in arrives.items():
            late[k] = round((latest - at) * rate_hz)
        left -= set(arrives)
    return tuple(late)
