"""At which samples/s an oscilloscope records.

    TimeBases    it fills its memory: samples/s = points of memory / (divisions x s a division)
    Rates        it has a ladder of rates, whatever the length of a record: a clock and what divides it

Another rate is not sampled, so a symbol rate must divide one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hil.errors import ConfigError

SHORTEST_S = 5e-9  # a division; at a shorter one no memory is filled at the highest rate


@dataclass(frozen=True, slots=True)
class TimeBase:
    """A time base: points of memory, s a division, samples/s, s across the screen."""

    depth: int
    scale_s: float
    rate_hz: float
    span_s: float


@dataclass(frozen=True, slots=True)
class TimeBases:
    """The time bases of a scope that fills a memory of a chosen depth: rate = depth / (divisions x scale).

    Args:
        depths: points, rising.
        divisions: across the screen.
        highest_hz: samples/s at most.
        digits: of the s a division, in each power of ten.
    """

    depths: Sequence[int]
    divisions: int
    highest_hz: float
    digits: tuple[int, int, int] = (1, 2, 5)

    def all(self) -> list[TimeBase]:
        """Every time base."""
        scales = (float(f"{digit}e{power}") for power in range(-9, 2) for digit in self.digits)
        spans = [(scale, self.divisions * scale) for scale in scales if scale >= SHORTEST_S]
        found = (TimeBase(depth, scale, depth / span, span) for depth in self.depths for scale, span in spans)
        return [base for base in found if base.rate_hz <= self.highest_hz * (1 + 1e-9)]

    def finer(self, rate_hz: float, most: int) -> int:
        """The largest multiple of `rate_hz`, up to `most`, that one of them samples at; 1 if none does."""
        multiples = (round(base.rate_hz / rate_hz) for base in self.all() if _whole(base.rate_hz / rate_hz))
        return max((multiple for multiple in multiples if multiple <= most), default=1)

    def of(self, samples: int, rate_hz: float, where: str) -> TimeBase:
        """The time base with the lowest multiple of a rate, and of these the shortest that is long enough.

        Raises:
            ConfigError: there is none.
        """
        fit = [base for base in self.all() if _whole(base.rate_hz / rate_hz) and base.span_s * (1 + 1e-9) >= samples / rate_hz]
        if not fit:
            raise ConfigError(
                "no time base of the scope takes this record", where=where, got=f"{samples} samples at {rate_hz:g} Sa/s",
                allowed=f"rates that divide depth / ({self.divisions} x scale); depth up to {self.depths[-1]}",
                todo="choose a symbol rate that divides one of these, or a smaller batch",
            )  # fmt: skip
        return min(fit, key=lambda base: (round(base.rate_hz / rate_hz), base.depth))


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of a scope that divides its clock.

    Args:
        clock_hz: samples/s undivided.
        dividers: rising.
    """

    clock_hz: float
    dividers: Sequence[int]

    def finer(self, rate_hz: float, most: int) -> int:
        """The largest multiple of `rate_hz`, up to `most`, that it samples at; 1 if there is none."""
        ratio = self.clock_hz / rate_hz
        multiples = (round(ratio / divider) for divider in self.dividers if _whole(ratio / divider))
        return max((multiple for multiple in multiples if multiple <= most), default=1)

    def divider(self, rate_hz: float, where: str) -> int:
        """The divider with the lowest multiple of a rate. Raises: ConfigError: there is none."""
        found = max((d for d in self.dividers if _whole(self.clock_hz / d / rate_hz)), default=None)
        if found is not None:
            return found
        raise ConfigError(
            "the scope does not sample at a multiple of this rate", where=where, got=f"{rate_hz:g} Sa/s",
            allowed=f"rates that divide {self.clock_hz:g} Sa/s / n, n of {', '.join(map(str, self.dividers[:8]))}, ...",
            todo="choose another symbol rate",
        )  # fmt: skip


def _whole(ratio: float) -> bool:
    return ratio > 0.5 and math.isclose(ratio, round(ratio), rel_tol=1e-9)
