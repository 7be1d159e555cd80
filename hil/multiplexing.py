"""Time multiplexing: how one physical node acts as many virtual nodes, as a value.

    |  symbol 1                    |  symbol 2                    |
    | node 1 | node 2 | ... node N | node 1 | ...                      each held for node_s; a symbol lasts N node_s
             ^ read at the share `sample_phase` of its time

A loop answers `delay_s` later. If the delay is one symbol, a node hears itself alone, one symbol before. If it is k node times
longer, each node hears the one k before it, and the nodes couple; so they do where the loop is slower than node_s.

Source: Appeltant et al., Nat. Commun. 2, 468 (2011); the longer delay: Paquot et al., Sci. Rep. 2, 287 (2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hil.errors import UNTOUCHED, ConfigError
from hil.settings import Count, Positive, check

WHERE = "multiplexing"
OFF_GRID = 1e-6


@dataclass(frozen=True, slots=True)
class Multiplexing:
    """Virtual nodes of a node that is shared in time.

    Args:
        nodes: virtual nodes in a symbol, N.
        node_s: time that each is driven for, s.
        delay_s: delay of the loop, s.
        samples: points of time in node_s that are told apart; the delay is a whole number of them.
        sample_phase: when a node is read, as a share of node_s: 1 at its end.
    """

    nodes: Count
    node_s: Positive
    delay_s: Positive
    samples: Count = 1
    sample_phase: Positive = 1.0

    def __post_init__(self) -> None:
        check(self, WHERE)
        exact = self.delay_s / self.step_s
        if not math.isclose(exact, self.delay, rel_tol=OFF_GRID) or not self.delay:
            raise ConfigError(
                "the delay of the loop is no whole number of samples", where=f"{WHERE} delay_s", outputs=UNTOUCHED,
                got=f"delay_s = {self.delay_s:g}, {exact:g} samples", allowed=f"1, 2, ... times {self.step_s:g} s",
                todo=f"write delay_s = {max(1, self.delay) * self.step_s:g}, or make samples larger",
            )  # fmt: skip
        if self.sample_phase > 1:
            raise ConfigError(
                "a node is read while it is driven", where=f"{WHERE} sample_phase", got=f"{self.sample_phase:g}",
                allowed="above 0, up to 1", outputs=UNTOUCHED, todo="correct the value",
            )  # fmt: skip

    @property
    def step_s(self) -> float:
        """Time between two samples, s."""
        return self.node_s / self.samples

    @property
    def delay(self) -> int:
        """Delay of the loop, in samples."""
        return round(self.delay_s / self.step_s)

    @property
    def symbol(self) -> int:
        """Length of a symbol, in samples."""
        return self.nodes * self.samples

    @property
    def read(self) -> int:
        """The sample of a node that is read, from 0."""
        return max(1, math.ceil(self.sample_phase * self.samples - OFF_GRID)) - 1

    @property
    def coupled(self) -> float:
        """How many nodes before itself a node hears, one symbol back: 0 if the delay is a symbol."""
        return (self.delay - self.symbol) / self.samples
