"""Random search and CMA-ES: what a genetic algorithm has to beat at the same number of evaluations.

CMA-ES is DEAP's (Hansen & Ostermeier, Evol. Comput. 9, 159, 2001), from the middle of the unit cube. A sample outside of it is
moved to the nearest point inside, which is also what the strategy learns from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from deap import cma

from hil.errors import ConfigError
from hil.search.deap_random import keyed
from hil.search.genetic import Worth
from hil.search.genome import Genome, Space
from hil.search.strategy import Fitness, distinct, drawn


class Random:
    """A Strategy that learns nothing."""

    def __init__(self, space: Space, seed: int, population: int, first: Sequence[Genome] = ()) -> None:
        self._space, self._seed, self._size, self._first = space, seed, population, tuple(first)[:population]

    def ask(self, generation: int) -> list[Genome]:
        """Draw the genomes of a generation; the given ones come first."""
        first = self._first if generation == 0 else ()
        with keyed(self._seed, generation, "random"):
            return [*first, *distinct(lambda: drawn(self._space), self._size - len(first), first)]

    def tell(self, generation: int, found: Mapping[Genome, Fitness]) -> None:
        """Do nothing: there is nothing to learn."""


class _Point(list[float]):
    """A sample, with its fitness, as DEAP's CMA-ES wants it."""

    fitness: Worth


class CMA:
    """A Strategy.

    Args:
        sigma: the first standard deviation, in shares of a range.

    Raises:
        ConfigError: a genome that is not a vector of two numbers or more.
    """

    def __init__(self, space: Space, seed: int, population: int, first: Sequence[Genome] = (), sigma: float = 0.3) -> None:
        if len(space.genes) < 2:
            raise ConfigError(
                "CMA-ES moves vectors of numbers", where="[search] strategy",
                got=f"family {space.kind}, {len(space.genes)} numbers",
                allowed="a family with two free genes or more", todo='strategy = "genetic"',
            )  # fmt: skip
        centre = first[0].numbers if first else (0.5,) * len(space.genes)
        self._seed = seed
        self._strategy: Any = cma.Strategy(list(centre), sigma, lambda_=population)
        self._asked: list[_Point] = []

    def ask(self, generation: int) -> list[Genome]:
        """Sample the genomes of a generation, clipped to [0, 1]."""
        with keyed(self._seed, generation, "cma"):
            self._asked = self._strategy.generate(lambda sample: _Point(np.clip(sample, 0.0, 1.0).tolist()))
        return [Genome(tuple(point)) for point in self._asked]

    def tell(self, generation: int, found: Mapping[Genome, Fitness]) -> None:
        """Update mean and covariance from the fitness of the generation that was asked last."""
        for point in self._asked:
            point.fitness = Worth(found[Genome(tuple(point))])
        self._strategy.update(self._asked)
