"""Random search and CMA-ES: what a genetic algorithm has to beat at the same number of evaluations.

CMA-ES is DEAP's (Hansen & Ostermeier, Evol. Comput. 9, 159, 2001), from the middle of the unit cube. A sample outside of it is
moved to the nearest point inside, which is also what the strategy learns from.

IPOP-CMA-ES (Auger & Hansen, CEC 2005) begins with 4 + 3 ln n genomes a generation, and anew from a point at random with twice
as many as soon as the strategy has nothing more to learn where it is:

    sigma sqrt( max eigenvalue of C ) < 0.01                      all of the distribution lies within 1 % of a range
    condition of C > 10^14
    median over the last half of a window <= median over the first half, for the best and for the median of the generations;
    the window is 10 + 30 n / lambda generations long
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from statistics import median
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
        population: genomes a generation.
        first: genomes; the strategy begins at the first one of them.
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
        self._space, self._seed, self._sigma = space, seed, sigma
        self._strategy = self._begun(first[0].numbers if first else (0.5,) * len(space.genes), population)
        self._asked: list[_Point] = []

    def _begun(self, centre: Sequence[float], population: int) -> Any:
        return cma.Strategy(list(centre), self._sigma, lambda_=population)

    def ask(self, generation: int) -> list[Genome]:
        """Sample the genomes of a generation, clipped to [0, 1]."""
        with keyed(self._seed, generation, "cma"):
            self._asked = self._strategy.generate(lambda sample: _Point(np.clip(sample, 0.0, 1.0).tolist()))
        return [Genome(tuple(point)) for point in self._asked]

    def tell(self, generation: int, found: Mapping[Genome, Fitness]) -> None:
        """Update mean and covariance from the fitness of the generation that was asked last, if all of it was evaluated."""
        if any(Genome(tuple(point)) not in found for point in self._asked):
            return  # the budget ended within it
        for point in self._asked:
            point.fitness = Worth(found[Genome(tuple(point))])
        self._strategy.update(self._asked)


class IPOP(CMA):
    """A Strategy: CMA-ES with restarts, each with twice the population. Arguments as of CMA, but for the population."""

    def __init__(self, space: Space, seed: int, first: Sequence[Genome] = (), sigma: float = 0.3) -> None:
        super().__init__(space, seed, 4 + int(3 * math.log(max(1, len(space.genes)))), first, sigma)
        self.restarts = 0
        self._seen: list[tuple[float, float]] = []  # the best and the median of each generation since the last restart

    def tell(self, generation: int, found: Mapping[Genome, Fitness]) -> None:
        """Update, and begin anew if there is nothing more to learn here."""
        super().tell(generation, found)
        values = [values[0] for values in found.values()]
        self._seen.append((max(values), median(values)))
        if self._exhausted():
            with keyed(self._seed, generation, "restart"):
                centre = [random.random() for _ in self._space.genes]
            self._strategy = self._begun(centre, 2 * self._strategy.lambda_)
            self.restarts += 1
            self._seen = []

    def _exhausted(self) -> bool:
        strategy = self._strategy
        if strategy.sigma * max(strategy.diagD) < 0.01 or strategy.cond > 1e7:  # both of the square root of C
            return True
        window = 10 + math.ceil(30 * len(self._space.genes) / strategy.lambda_)
        if len(self._seen) < window:
            return False
        newest = self._seen[-window:]
        early, late = newest[: window // 2], newest[-(window // 2) :]
        return all(median(one[part] for one in late) <= median(one[part] for one in early) for part in (0, 1))
