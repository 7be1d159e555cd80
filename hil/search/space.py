"""What a search moves in: dimensions with names, and the problem that a generator of points is given.

    share in [0, 1]  ->  low + (high - low) u            linear
                         low (high / low)^u              logarithmic: scales, rates, widths
                         a whole number, or one of the choices, each with an equal share of [0, 1]

A point is a mapping from the name of each dimension to its value, in its own unit. So it goes from a generator to the trials
and back with what came of it; a generator may think in shares.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hil.search.jobs import AnyRecipe

Value = float | int | str | bool
Shares = tuple[float, ...]
"""One for each dimension, in [0, 1]."""
Direction = Literal["MAXIMIZE", "MINIMIZE"]
Points = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Dimension:
    """A dimension of a search: a range, or choices.

    Args:
        name: of a gene, or of a setting, "table.key".
        low, high: of the range.
        choices: instead of a range.
        logarithmic: equal ratios have equal shares.
        whole: its values are whole numbers.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[Value, ...] = ()
    logarithmic: bool = False
    whole: bool = False

    @property
    def ends(self) -> tuple[Value, ...]:
        """Its lowest and highest value, or all choices."""
        return self.choices or (self.value(0.0), self.value(1.0))

    def value(self, share: float) -> Value:
        """Return the value that `share` in [0, 1] stands for."""
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if self.logarithmic:
            found = float(min(max(self.low * (self.high / self.low) ** share, self.low), self.high))
            return round(found) if self.whole else found
        if self.whole:
            return min(int(self.low) + int(share * (int(self.high) - int(self.low) + 1)), int(self.high))
        return self.low + (self.high - self.low) * share

    def share(self, value: Value) -> float:
        """Return the share that stands for `value`; the middle one where several do.

        Raises:
            ValueError: it is none of the choices, or no number of the range.
        """
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        number = float(value)
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name} = {value!r} is not between {self.low!r} and {self.high!r}")
        if self.logarithmic:
            return math.log(number / self.low) / math.log(self.high / self.low)
        if self.whole:
            return (number - self.low + 0.5) / (self.high - self.low + 1)
        return (number - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Genome:
    """A point of the search: the value of each free dimension, in their order."""

    values: tuple[Value, ...]

    def digest(self) -> str:
        """Eight hexadecimal digits that stand for it."""
        return hashlib.blake2b(json.dumps(self.values).encode(), digest_size=4).hexdigest()


class Space(Protocol):
    """The meaning of a point."""

    @property
    def kind(self) -> str:
        """What is searched, in a word or two."""

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The free ones."""

    def values(self, genome: Genome) -> dict[str, Value]:
        """Return every dimension, free or fixed, in its own unit."""

    def recipe(self, genome: Genome) -> AnyRecipe:
        """Return what is trained."""

    def canonical(self, shares: Shares) -> Shares:
        """Return the shares that stand for all that mean the same training."""


def shares_of(space: Space, genome: Genome) -> Shares:
    """Return the shares of a genome's values."""
    return tuple(one.share(value) for one, value in zip(space.dimensions, genome.values, strict=True))


@dataclass(frozen=True)
class Problem:
    """What a generator is told at its beginning, by the names of gest-api's VOCS.

    Args:
        dimensions: the free ones.
        objectives: name -> "MAXIMIZE" or "MINIMIZE".
        constants: name -> value, part of every point.
    """

    dimensions: tuple[Dimension, ...]
    objectives: Mapping[str, Direction]
    constants: Mapping[str, Any] = field(default_factory=dict)

    def genome(self, point: Mapping[str, Any]) -> Genome:
        """The values of a point, in the order of the dimensions. Raises: KeyError: one is missing."""
        return Genome(tuple(point[one.name] for one in self.dimensions))

    def point(self, values: Sequence[Value]) -> dict[str, Any]:
        """Return values, one a dimension, as a point."""
        return {**dict(zip((one.name for one in self.dimensions), values, strict=True)), **self.constants}
