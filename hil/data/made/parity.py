"""Parity: is the number of ones among some bits even or odd? No linear function of the bits can tell.

    b(t) 0 or 1, drawn          x = b(t - window + 1) ... b(t)
    target  "odd" if b(t - delay) + ... + b(t - delay - bits + 1) is odd, else "even"

Source: M. Minsky and S. Papert, Perceptrons (1969); with delay, N. Bertschinger and T. Natschlaeger, Real-time computation at
the edge of chaos, Neural Computation 16, 1413 (2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hil.data.examples import Examples
from hil.data.made.series import length, uniform, windows
from hil.errors import UNTOUCHED, ConfigError
from hil.settings import Count, Natural, check


@dataclass(frozen=True, slots=True)
class Parity:
    """Bits and their parity.

    Args:
        number: of examples.
        bits: whose parity is asked for.
        window: bits in an example, 0: as many as are needed.
        delay: the newest bit that counts, before the newest one of the example.
        steps: of a piece, for sequences; 0: windows.
        seed: of the bits.
    """

    number: Count = 2_000
    bits: Count = 4
    window: Natural = 0
    delay: Natural = 0
    steps: Natural = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")
        needed = self.bits + self.delay
        if not self.steps and 0 != self.window < needed:
            raise ConfigError(
                "an example does not show the bits that count", where="[data] window", outputs=UNTOUCHED,
                got=f"window = {self.window}, delay = {self.delay}", allowed=f"window {needed} or more",
                todo="make window larger",
            )  # fmt: skip

    def examples(self) -> Examples:
        """Make them."""
        needed = self.bits + self.delay
        window = self.window or (1 if self.steps else needed)
        count = length(self.number, window, self.steps)
        drawn = np.floor(2 * uniform(count + needed - 1, self.seed, 0, "parity")).astype(int)
        ones = np.lib.stride_tricks.sliding_window_view(drawn, self.bits)[:count].sum(1)
        odd = np.where(ones % 2 == 1, "odd", "even")
        source = "M. Minsky and S. Papert, Perceptrons (1969)"
        bits = drawn[needed - 1 :].astype(np.float64)
        return windows(bits, odd, self.number, window, self.steps, "parity", source)
