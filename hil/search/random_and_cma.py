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
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from deap import cma

from hil.errors import ConfigError
from hil.search.breeding import Worth, keyed
from hil.search.generator import Cube, Fitness, distinct, drawn, sized
from hil.search.space import Points, Shares


class Random:
    """A Generator that learns nothing.

    Args:
        vocs: what is searched: a Problem, or a VOCS of gest-api.
        seed: of its chance.
        population: points a generation.
    """

    returns_id = False

    def __init__(self, vocs: Any, seed: int = 0, population: int = 32) -> None:
        self._cube, self._seed, self._size, self._suggestions = Cube(vocs), seed, population, 0

    def suggest(self, num_points: int | None = None) -> Points:
        """Draw points."""
        size = sized(num_points, self._size)
        with keyed(self._seed, self._suggestions, "random"):
            made = distinct(lambda: drawn(self._cube.size), size, self._cube)
        self._suggestions += 1
        return [self._cube.suggested(shares) for shares in made]

    def ingest(self, results: Points) -> None:
        """Do nothing: there is nothing to learn."""

    def finalize(self) -> None:
        """Do nothing: nothing is open."""


class _Point(list[float]):
    """A sample, with its fitness, as DEAP's CMA-ES wants it."""

    fitness: Worth


class CMA:
    """A Generator. A generation may be asked for in pieces; the next one begins when all of it has come back.

    Args:
        vocs: what is searched: a Problem, or a VOCS of gest-api.
        seed: of its chance.
        population: points a generation.
        sigma: the first standard deviation, in shares of a range.

    Raises:
        ConfigError: a space of fewer than two dimensions.
    """

    returns_id = False

    def __init__(self, vocs: Any, seed: int = 0, population: int = 32, sigma: float = 0.3) -> None:
        self._cube, self._seed, self._sigma = Cube(vocs), seed, sigma
        if self._cube.size < 2:
            raise ConfigError(
                "CMA-ES moves vectors of numbers", where="[search] strategy", got=f"free dimensions: {self._cube.size}",
                allowed="two free dimensions or more", todo='strategy = "genetic"',
            )  # fmt: skip
        self._strategy = self._begun((0.5,) * self._cube.size, population)
        self._generation = -1
        self._asked: list[_Point] = []
        self._given = 0  # of these
        self._found: dict[Shares, Fitness] = {}

    def _begun(self, centre: Sequence[float], population: int) -> Any:
        return cma.Strategy(list(centre), self._sigma, lambda_=population)

    def suggest(self, num_points: int | None = None) -> Points:
        """Sample points, clipped to the space."""
        if not self._asked:
            self._generation += 1
            with keyed(self._seed, self._generation, "cma"):
                self._asked = self._strategy.generate(lambda sample: _Point(np.clip(sample, 0.0, 1.0).tolist()))
        left = len(self._asked) - self._given
        count = sized(num_points, left)
        if count > left or not left:
            raise ValueError(f"{left} points are left of this generation; ingest the results of the others first")
        made = self._asked[self._given : self._given + count]
        self._given += count
        return [self._cube.suggested(tuple(point)) for point in made]

    def ingest(self, results: Points) -> None:
        """Update mean and covariance once all of the generation was evaluated; other points are no use."""
        self._found |= self._cube.told(results)
        found = [self._found.get(self._as_told(point)) for point in self._asked]
        if not found or any(values is None for values in found):
            return
        for point, values in zip(self._asked, found, strict=True):
            assert values is not None  # looked at above
            point.fitness = Worth(values)
        self._strategy.update(self._asked)
        first = [self._found[shares][0] for shares in dict.fromkeys(map(self._as_told, self._asked))]
        self._asked, self._given, self._found = [], 0, {}
        self._learned(first)

    def _as_told(self, point: _Point) -> Shares:
        """The shares that a point comes back as: two points may mean the same one."""
        return self._cube.standing(tuple(point))

    def _learned(self, values: list[float]) -> None:
        """Take note of the values of a generation."""

    def finalize(self) -> None:
        """Do nothing: nothing is open."""


class IPOP(CMA):
    """A Generator: CMA-ES with restarts, each with twice the population. Arguments as of CMA, but for the population."""

    def __init__(self, vocs: Any, seed: int = 0, sigma: float = 0.3) -> None:
        super().__init__(vocs, seed, 4 + int(3 * math.log(max(1, Cube(vocs).size))), sigma)
        self.restarts = 0
        self._seen: list[tuple[float, float]] = []  # the best and the median of each generation since the last restart

    def _learned(self, values: list[float]) -> None:
        """Begin anew if there is nothing more to learn here."""
        self._seen.append((max(values), median(values)))
        if self._exhausted():
            with keyed(self._seed, self._generation, "restart"):
                centre = [random.random() for _ in range(self._cube.size)]
            self._strategy = self._begun(centre, 2 * self._strategy.lambda_)
            self.restarts += 1
            self._seen = []

    def _exhausted(self) -> bool:
        strategy = self._strategy
        if strategy.sigma * max(strategy.diagD) < 0.01 or strategy.cond > 1e7:  # both of the square root of C
            return True
        window = 10 + math.ceil(30 * self._cube.size / strategy.lambda_)
        if len(self._seen) < window:
            return False
        newest = self._seen[-window:]
        early, late = newest[: window // 2], newest[-(window // 2) :]
        return all(median(one[part] for one in late) <= median(one[part] for one in early) for part in (0, 1))
