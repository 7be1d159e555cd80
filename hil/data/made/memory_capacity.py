"""Memory capacity: give back an input that was seen 1, 2, ..., K steps ago.

    u uniform from -1 to 1          x = u(t - window + 1) ... u(t)          target u(t - 1), ..., u(t - K)
    MC = sum_k r_k^2                r_k the correlation of output k with its target: the metric memory_capacity

A reservoir of N linear nodes has MC <= N. K must be well above the memory that is looked for.

Source: H. Jaeger, Short term memory in echo state networks, GMD Report 152 (2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hil.data.examples import Examples
from hil.data.made.series import length, uniform, windows
from hil.settings import Count, Natural, check


@dataclass(frozen=True, slots=True)
class MemoryCapacity:
    """An input, and its past.

    Args:
        number: of examples.
        delays: K, how far back is asked.
        window: values of the input in an example.
        steps: of a piece, for sequences; 0: windows.
        seed: of the input.
    """

    number: Count = 2_000
    delays: Count = 20
    window: Count = 20
    steps: Natural = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self) -> Examples:
        """Make them."""
        count = length(self.number, self.window, self.steps)
        drawn = 2 * uniform(count + self.delays, self.seed, 0, "memory_capacity") - 1
        past = np.stack([drawn[self.delays - k : len(drawn) - k] for k in range(1, self.delays + 1)], 1)
        source = "H. Jaeger, GMD Report 152 (2001)"
        return windows(drawn[self.delays :], past, self.number, self.window, self.steps, "memory_capacity", source)
