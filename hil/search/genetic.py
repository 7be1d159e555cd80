"""The genetic algorithm: DEAP's selection, crossover and mutation, elites evaluated again in every generation.

    one objective     parents by tournament among the last generation and the elites; elites are the best
    several           NSGA-II (Deb et al., IEEE Trans. Evol. Comput. 6, 182, 2002): of parents and children, fronts first, then
                      the least crowded; elites are of the first front

g and -g are one function to a search, so all genomes are canonical (genome.py): a crossover of two good parents whose functions
differ in the sign alone would otherwise give anything in between, down to g = 0.

A generation is the elites and their children. Elites keep the mean over all their evaluations, so a lucky one is found out. Who
asks for a number of points gets children alone; what comes back in other pieces than it was suggested in is merged with the
parents, of which the best stay.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from deap import tools

from hil.search.breeding import Individual, Operators, Worth, child, keyed, selected
from hil.search.generator import Canonical, Cube, Fitness, distinct, drawn, sized, unchanged
from hil.search.space import Points, Shares


class Genetic:
    """A Generator.

    Args:
        vocs: what is searched: a Problem, or a VOCS of gest-api.
        seed: of its chance.
        population: points a generation.
        elites: of these, evaluated again.
        operators: how children are made.
        canonical: of the shares that mean the same, those that stand for all.
    """

    returns_id = False

    def __init__(
        self,
        vocs: Any,
        seed: int = 0,
        population: int = 32,
        elites: int = 4,
        operators: Operators = Operators(),  # noqa: B008 (a value that does not change)
        canonical: Canonical = unchanged,
    ) -> None:
        self._cube, self._seed, self._size, self._elites = Cube(vocs), seed, population, elites
        self._operators, self._canonical = operators, canonical
        self._parents: list[Individual] = []
        self._suggestions = 0
        self._asked: set[Shares] = set()  # a whole generation that is on its way

    def suggest(self, num_points: int | None = None) -> Points:
        """Breed points from the parents; those of the first generation are drawn."""
        size = sized(num_points, self._size)
        with keyed(self._seed, self._suggestions, "breeding"):
            if not self._parents:
                made = distinct(self._drawn, size, self._cube)
            else:
                elites = [] if num_points is not None else [parent.shares for parent in self._parents[: self._elites]]
                taken = [parent.shares for parent in self._parents]
                made = [*elites, *distinct(self._child, size - len(elites), self._cube, taken)]
        self._suggestions += 1
        self._asked = set(made) if num_points is None else set()
        return [self._cube.suggested(shares) for shares in made]

    def ingest(self, results: Points) -> None:
        """Select the parents of the next generation: NSGA-II if there are several objectives."""
        found = self._cube.told(results)
        kept = [parent for parent in self._parents if parent.shares not in found]
        candidates = [Individual(shares, values) for shares, values in found.items()]
        if len(self._cube.problem.objectives) > 1:
            self._parents = tools.selNSGA2([*kept, *candidates], min(self._size, len(kept) + len(candidates)))
            return
        whole = self._asked and self._asked <= set(found)
        self._parents = _ranked(candidates) if whole else _ranked([*kept, *candidates])[: self._size]

    def finalize(self) -> None:
        """Do nothing: nothing is open."""

    def _drawn(self) -> Shares:
        return self._canonical(drawn(self._cube.size))

    def _child(self) -> Shares:
        return self._canonical(child(self._selected(), self._selected(), self._operators))

    def _selected(self) -> Shares:
        if len(self._parents[0].fitness.wvalues) > 1:
            pair = [random.choice(self._parents), random.choice(self._parents)]
            better = pair[1] if pair[1].fitness.dominates(pair[0].fitness) else pair[0]
            return better.shares
        (winner,) = selected(self._parents, 1, self._operators.tournament)
        found: Shares = winner.shares
        return found


def _ranked(individuals: list[Individual]) -> list[Individual]:
    return sorted(individuals, key=lambda one: one.fitness.wvalues, reverse=True)


def fronts(values: Sequence[Fitness]) -> list[int]:
    """The places of those that nobody dominates."""
    found = [Worth(one) for one in values]
    return [
        place
        for place, one in enumerate(found)
        if not any(other.dominates(one) for other in found)
    ]  # fmt: skip
