"""The Generator contract: suggest points, have them evaluated, ingest what came of it. It is that of gest-api.

A generator is a deterministic function of its seed and of what it was told, so it is never saved: a resume tells it everything
again. Ours are made of a Problem or of a VOCS of gest-api, so that programs which know that interface can drive them; gest.py
lets generators of other packages drive our trials.

    generator = Genetic(VOCS(variables={"x": [-5, 5]}, objectives={"f": "MINIMIZE"}), seed=3, population=12)
    points = generator.suggest(None)                                            [{"x": 1.3}, …]
    generator.ingest([{**point, "f": f(**point)} for point in points])

Fitness is a tuple, one number per objective, larger is better.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from hil.search.gest import problem_of
from hil.search.space import Genome, Points, Shares

Fitness = tuple[float, ...]
Canonical = Callable[[Shares], Shares]


class Generator(Protocol):
    """Proposes points and learns from their results."""

    def suggest(self, num_points: int | None, /) -> Points:
        """Propose points.

        Args:
            num_points: so many; None: as many as the generator likes.

        Raises:
            ValueError: it cannot propose that many.
        """

    def ingest(self, results: Points, /) -> None:
        """Learn from points that were evaluated: each with its dimensions and its objectives."""


class Cube:
    """The unit cube that our generators work in, and the points that it stands for.

    Args:
        vocs: a Problem, or a VOCS of gest-api.

    Raises:
        ValueError: it has constraints, or dimensions or objectives that ours do not know.
    """

    def __init__(self, vocs: Any) -> None:
        self.problem = problem_of(vocs)
        self.size = len(self.problem.dimensions)
        self._shares: dict[Genome, Shares] = {}  # of what was suggested, so that it comes back as it went
        self._given: dict[Shares, Genome] = {}  # of what somebody else suggested, so that it goes out as it came

    def genome(self, shares: Shares) -> Genome:
        """Return what the shares stand for."""
        return Genome(tuple(one.value(share) for one, share in zip(self.problem.dimensions, shares, strict=True)))

    def suggested(self, shares: Shares) -> dict[str, Any]:
        """Return the shares as a point."""
        genome = self._given.get(shares) or self.genome(shares)
        self._shares[genome] = shares
        return self.problem.point(genome.values)

    def standing(self, shares: Shares) -> Shares:
        """Return the shares that a suggested point comes back as: of two that mean the same, the last."""
        return self._shares[self.genome(shares)]

    def told(self, results: Points) -> dict[Shares, Fitness]:
        """Return the fitness of each point. Raises: ValueError: one is not of this problem."""
        return {self._found(result): self._fitness(result) for result in results}

    def _found(self, result: Mapping[str, Any]) -> Shares:
        try:
            genome = self.problem.genome(result)
        except KeyError as error:
            raise ValueError(f"a result without {error}") from None
        known = self._shares.get(genome)
        if known is not None:
            return known
        shares = tuple(one.share(value) for one, value in zip(self.problem.dimensions, genome.values, strict=True))
        self._given[shares] = genome
        return shares

    def _fitness(self, result: Mapping[str, Any]) -> Fitness:
        try:
            return tuple(
                float(result[name]) if direction == "MAXIMIZE" else -float(result[name])
                for name, direction in self.problem.objectives.items()
            )
        except KeyError as error:
            raise ValueError(f"a result without {error}") from None


def unchanged(shares: Shares) -> Shares:
    """Every point stands for itself."""
    return shares


def drawn(size: int) -> Shares:
    """Shares at random; draws from `random`, so only inside `keyed`."""
    return tuple(random.random() for _ in range(size))


def distinct(make: Callable[[], Shares], count: int, cube: Cube, taken: Collection[Shares] = ()) -> list[Shares]:
    """`count` shares from `make`, of which no two, and none of `taken`, mean the same point as far as 20 tries each allow."""
    found: list[Shares] = []
    seen = {cube.genome(shares) for shares in taken}
    for _ in range(count):
        shares = make()
        for _ in range(20):
            if cube.genome(shares) not in seen:
                break
            shares = make()
        seen.add(cube.genome(shares))
        found.append(shares)
    return found


def sized(wanted: int | None, own: int) -> int:
    """How many points to propose. Raises: ValueError: fewer than 1."""
    if wanted is not None and wanted < 1:
        raise ValueError(f"num_points = {wanted}: 1 or more")
    return own if wanted is None else wanted
