"""Measure when the answer to a record comes back: the delay, a lost marker, and one edge as finely as the digitizer can.

    | lead | 1 1 1 1 1 | 0 0 | 1 1 ...       the head marker; its first edge from high to low comes LEAD + 5 symbols after t = 0

Samples come every T; shots whose first sample is shifted by fractions of T show the edge between the samples
(equivalent-time sampling; IEEE Std 1057, "Equivalent-time sampling"). What is made of them is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.waveform.alignment import Acceptance, Delay, correlation, measured_delay
from drivers.waveform.channels import Drives, Reads
from drivers.waveform.pulse import Pulse
from drivers.waveform.record import BARKER, GUARD, LEAD, Record
from hil.errors import Flat, Late, Misaligned

FINE = 10  # samples a symbol, at most, when the delay is measured
FINEST = 1000  # when an edge is looked at
BEFORE, AFTER = 2.0, 1.5  # symbols around an edge; the level after it lasts for two
FARTHER = 64  # times the longest delay: so far a marker is looked for to tell what is wrong
CLEAR = 8.0  # standard deviations that noise alone does not reach
FALL = LEAD + int(np.argmax(BARKER < 0))  # symbols from the start of a record to the first edge from high to low


@dataclass(frozen=True, slots=True)
class Timing:
    """Measures when the answer comes back.

    Args:
        drives: play the records.
        reads: take them.
        symbol_s: duration of a symbol, s.
        acceptance: of a marker.
        patience: for a trigger and the longest delay, s.
        probe_s: that the record with the marker takes, s.
    """

    drives: Drives
    reads: Reads
    symbol_s: float
    acceptance: Acceptance
    patience: float
    probe_s: float

    def patience_s(self, symbols: int) -> float:
        """Return the longest wait for the trigger and a record of so many symbols, delay included, s."""
        return self.patience + symbols * self.symbol_s

    def delays(self, longest: int, drive: str = "") -> list[Delay | Misaligned]:
        """Measure when the head marker that one drive plays comes back to each reading, up to `longest` symbols late.

        Args:
            longest: symbols.
            drive: the drive, for messages.

        Returns:
            the delay, or why there is none, of each reading.
        """
        seen = LEAD + len(BARKER) + GUARD + longest  # symbols; the tail marker begins after them
        fine = self.reads.finer(1 / self.symbol_s, min(FINE, self.reads.memory.most // seen))
        found: list[Delay | Misaligned] = []
        for record, name in zip(self._seen(0.0, seen * fine, fine, seen), self.reads.names, strict=True):
            try:
                where = f"{name}, measuring the delay{drive}"
                found.append(measured_delay(record, self.symbol_s, longest, self.acceptance, where))
            except Misaligned as missing:
                found.append(missing)
        return found

    def pulse(self) -> Pulse:
        """Measure when the SYNC pulse rises, in the record that is in the generators.

        Raises:
            Misaligned: it does not, within some symbols of the trigger.
        """
        fine = self.reads.finer(1 / self.symbol_s, FINEST)
        before = LEAD * self.symbol_s
        self._taken(-before, 2 * LEAD * fine, fine, 2 * LEAD)
        record = self.reads.pulse()
        return Pulse.seen(record, record.axis.start_s + 0.5 * len(record.words) * record.axis.step_s)

    def edge(self, delay_s: float, shift_s: float, read: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """(time since the edge left the generator in s, volts), both (n,); the record with the marker is in the generator.

        Args:
            delay_s: about where it is expected.
            read: which reading.
            shift_s: how much later the first sample is taken than at 0.
        """
        fine = self.reads.finer(1 / self.symbol_s, FINEST)
        left_s = FALL * self.symbol_s
        start_s = left_s + delay_s - BEFORE * self.symbol_s + shift_s
        record = self._seen(start_s, round((BEFORE + AFTER) * fine), fine, FALL + 2)[read]
        time_s = record.axis.start_s - left_s + record.axis.step_s * np.arange(len(record.words), dtype=np.float64)
        return time_s, record.volts()

    def _seen(self, start_s: float, samples: int, a_symbol: int, symbols: int) -> tuple[Record, ...]:
        """Take one shot of what is in the generators, so many samples from `start_s` on, of each reading."""
        self._taken(start_s, samples, a_symbol, symbols)
        return self.reads.take()

    def _taken(self, start_s: float, samples: int, a_symbol: int, symbols: int) -> None:
        self.reads.configure(samples, a_symbol / self.symbol_s, start_s)
        self.reads.play(self.drives, self.probe_s - start_s - samples * self.symbol_s / a_symbol, self.patience_s(symbols))

    def explain(self, missing: Misaligned, longest: int, read: int = 0, drive: str = "") -> None:
        """Look farther, and raise what it is, if that can be said.

        Args:
            missing: why there is no delay.
            longest: symbols in which it was looked for.
            read: which reading.
            drive: the drive, for messages.

        Raises:
            Flat: the reading does not move. Late: the marker comes later.
        """
        where = f"{self.reads.names[read]}, measuring the delay{drive}"
        most = min(FARTHER * longest, self.reads.memory.most - len(BARKER))
        words = self._seen(0.0, most + len(BARKER), 1, most)[read].words.astype(np.float64)
        rest, noise = _quiet(words)
        if float(np.abs(words - rest).max()) <= CLEAR * noise:
            raise Flat(
                "the reading does not follow the drive", where=where, got=f"{len(words)} samples of noise, or all equal",
                allowed="a marker", outputs="inside their limits",
                todo="look at the laser, the photodiode, the cable into the scope, and the scope's channel",
            ) from missing  # fmt: skip
        high, low = (np.convolve(words - rest, chips[::-1], "valid") for chips in (BARKER > 0, BARKER < 0))
        contrast = np.abs(high / (BARKER > 0).sum() - low / (BARKER < 0).sum())
        found = (np.abs(correlation(words, BARKER)) >= self.acceptance.threshold) & (contrast > CLEAR * noise)
        first = int(np.argmax(found))
        if not found[first] or first <= longest + LEAD:
            return
        raise Late(
            "the marker comes later than it is looked for", where=where,
            got=f"a delay of {(first - LEAD) * self.symbol_s:.4g} s",
            allowed=f"up to {longest * self.symbol_s:.4g} s", outputs="inside their limits",
            todo="look at the trigger (SYNC of the generator's channel to EXT TRIG) and the cables, or raise longest_delay",
        ) from missing  # fmt: skip


def _quiet(words: NDArray[np.float64]) -> tuple[float, float]:
    """Return level and standard deviation of what is at rest for most of the record; at least a step of the converter."""
    low, rest, high = np.quantile(words, [0.16, 0.5, 0.84])
    steps = np.diff(np.unique(words))
    return float(rest), max(0.5 * float(high - low), float(steps.min()) if len(steps) else 0.0)
