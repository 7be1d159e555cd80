"""The drive of a generator channel at its connector, in volts at the real load: all that the wiring sees of a generator.

    v(t) = level[ floor(t f) ]               inside the record, `cycles` times over
    v(t) = level[0]                          before and after: a burst rests at its first point (start phase 0)
    v(t) = 0                                 output off

    level = offset + gain * code rounded to the converter's bits        then the filter, if there is one

Source: Keysight 33500B/33600A Series Operating and Service Guide, "Burst Mode", "FUNCtion:ARBitrary:FILTer": NORMal is flat to
0.27 f, STEP is 3 dB down at 0.13 f without overshoot, OFF is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float32]
PERIOD_POINTS = 1000  # of a built-in waveform
FULL_SCALE = 32767


@dataclass(frozen=True, slots=True)
class Drive:
    """The output of a channel of a generator after a trigger.

    Args:
        levels: (n + 1,) float32, V; the last entry is the resting level.
        cycles: how often the record is played, inf: without end.
        on: the output relay.
        delay_s: from the trigger to the SYNC pulse, from which t is counted.
    """

    levels: Levels
    sample_rate_hz: float
    cycles: float
    on: bool
    delay_s: float = 0.0

    @property
    def record(self) -> Levels:
        """(n,) V."""
        return self.levels[:-1]

    @property
    def rest_v(self) -> float:
        """Level between records, V; 0 while the output is off."""
        return float(self.levels[-1]) if self.on else 0.0

    @property
    def duration_s(self) -> float:
        """Duration of one cycle, s."""
        return (len(self.levels) - 1) / self.sample_rate_hz


def played(codes: NDArray[np.int16], bits: int, volts_per_code: float, offset_v: float, smoothing: str) -> Levels:
    """Codes (n,) -> levels (n + 1,) in V, the last one being where the channel rests."""
    levels = np.empty(len(codes) + 1, dtype=np.float32)
    record = levels[:-1]
    np.multiply(_rounded(codes, bits), np.float32(volts_per_code), out=record)
    if offset_v:
        record += np.float32(offset_v)
    if smoothing != "OFF":
        record[:] = _smoothed(record, smoothing)
    levels[-1] = levels[0]
    return levels


def built_in(shape: str) -> NDArray[np.int16]:
    """Compute one period of a built-in waveform; DC is the offset alone."""
    t = np.arange(PERIOD_POINTS) / PERIOD_POINTS
    shapes: dict[str, NDArray[np.float64]] = {
        "SIN": np.sin(2 * math.pi * t),
        "SQU": np.where(t < 0.5, 1.0, -1.0),
        "TRI": 1 - 4 * np.abs(((t + 0.25) % 1) - 0.5),
        "RAMP": 2 * t - 1,
        "DC": 0 * t,
    }
    codes: NDArray[np.int16] = np.rint(shapes[shape] * FULL_SCALE).astype(np.int16)
    return codes


def _rounded(codes: NDArray[np.int16], bits: int) -> NDArray[np.int16]:
    """Round to the grid of a converter of `bits`: multiples of 2^(16 - bits) inside full scale; half a step goes up."""
    shift = 16 - bits
    if shift == 0:
        return codes
    top = (FULL_SCALE >> shift) << shift
    half = 1 << (shift - 1)
    raised = np.minimum(codes, FULL_SCALE - half) + np.int16(half)
    raised &= np.int16(-(1 << shift))
    return np.clip(raised, -top, top, out=raised)


def _smoothed(record: Levels, kind: str) -> Levels:
    """The reconstruction filter as a symmetric kernel; the ends see the record repeated, as a periodic output does."""
    if kind == "STEP":
        k = np.arange(-4, 5)
        kernel = np.exp(-0.5 * (k / 1.02) ** 2)  # Gaussian, 3 dB down at 0.13 f
    else:
        k = np.arange(-15, 16)
        kernel = np.sinc(0.6 * k) * np.hamming(len(k))  # windowed sinc, flat to 0.27 f
    kernel = (kernel / kernel.sum()).astype(np.float32)
    reach = len(kernel) // 2
    padded = np.pad(record, reach, mode="wrap")
    return np.convolve(padded, kernel, mode="valid").astype(np.float32)
