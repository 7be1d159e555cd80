"""The instants that a scope records.

    range = 10 divisions,  start = position - reference * range         seconds after the trigger; reference 0.1, 0.5 or 0.9
    rate  = clock / k,     k the smallest whole number for which range * rate fits the memory

When :WAVeform:POINts N (mode RAW or MAXimum) is set before the acquisition and clock * range / N is a whole number m, k is the
smallest divisor of m that fits, so decimation by m / k gives exactly N points `range / N` apart: a driver that wants one sample
per generator sample sets the range to N periods and asks for N points, at any rate of the form clock / m. Otherwise every
d-th point is transferred, d the smallest number that gives at most N.

Only the points that will be transferred are simulated; asking for more afterwards gives no more than those.

Source: Keysight InfiniiVision 3000 X-Series Programmer's Guide, ":TIMebase", ":ACQuire:SRATe", ":WAVeform:POINts".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REFERENCES = {"LEFT": 0.1, "CENT": 0.5, "RIGH": 0.9}
SCREEN_POINTS = 62_500  # of POINts:MODE NORMal
SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Window:
    """Sample i at start_s + i / rate_hz after the trigger, i below `points`."""

    start_s: float
    rate_hz: float
    points: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """The points that the memory holds, of which every `keep`-th is transferred."""

    rate_hz: float
    points: int
    keep: int

    def window(self, start_s: float) -> Window:
        """Return the time axis of a record that begins `start_s` after the trigger."""
        return Window(start_s, self.rate_hz / self.keep, -(-self.points // self.keep))


def sampling(range_s: float, clock_hz: float, memory: int, wanted: float, *, any_rate: bool = False) -> Sampling:
    """Choose rate and points of a record over `range_s` as the box does.

    Args:
        range_s: time across the screen, s.
        clock_hz: highest sample rate.
        memory: samples that fit.
        wanted: points to be transferred, or more than the memory for all.
        any_rate: a clock that can be set freely, which the real box has not: N points are N points at any range.
    """
    least = max(1, math.ceil(clock_hz * range_s / memory - SLACK))
    ratio = clock_hz * range_s / wanted
    if any_rate and wanted <= memory and ratio >= 1:
        return Sampling(wanted / range_s, int(wanted), 1)
    whole = round(ratio)
    if whole >= least and abs(ratio - whole) <= SLACK * whole:
        divider = _divisor(whole, least)
        keep = whole // divider
        return Sampling(clock_hz / divider, int(wanted) * keep, keep)
    points = max(1, math.floor(clock_hz / least * range_s + SLACK))
    return Sampling(clock_hz / least, points, max(1, math.ceil(points / wanted)))


def _divisor(whole: int, least: int) -> int:
    """The smallest divisor of `whole` that is at least `least`, in as many steps as the root of `whole`."""
    root = math.isqrt(whole)
    for small in range(least, root + 1):
        if whole % small == 0:
            return small
    return next(whole // part for part in range(min(root, whole // least), 0, -1) if whole % part == 0)
