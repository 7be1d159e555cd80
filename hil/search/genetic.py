"""The genetic algorithm: DEAP's selection, crossover and mutation, elites evaluated again in every generation.

    one objective     parents by tournament among the last generation and the elites; elites are the best
    several           NSGA-II (Deb et al., IEEE Trans. Evol. Comput. 6, 182, 2002): of parents and children, fronts first, then
                      the least crowded; elites are of the first front

g and -g are one function to a search, so all genomes are canonical (genome.py): a crossover of two good parents whose functions
differ in the sign alone would otherwise give anything in between, down to g = 0.

A generation is the elites and their children. Elites keep the mean over all their evaluations, so a lucky one is found out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from deap import base, tools

from hil.search.deap_random import keyed
from hil.search.genome import Genome, Space
from hil.search.strategy import Fitness, Operators, distinct, drawn


class Worth(base.Fitness):  # type: ignore[misc]
    """DEAP's fitness, all objectives maximised; a class of ours, so nothing is made at run time."""

    def __init__(self, values: Fitness) -> None:
        self.weights = (1.0,) * len(values)
        super().__init__(values)


class Individual:
    """A genome with its fitness, as DEAP's selections want it."""

    def __init__(self, genome: Genome, values: Fitness) -> None:
        self.genome, self.fitness = genome, Worth(values)


class Genetic:
    """A Strategy.

    Args:
        space: of the genomes.
        seed: of its chance.
        population: genomes a generation.
        elites: of these, evaluated again.
        first: genomes that the first generation begins with.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        population: int,
        elites: int,
        operators: Operators,
        first: Sequence[Genome] = (),
    ) -> None:
        self._space, self._seed, self._size, self._elites = space, seed, population, elites
        self._operators, self._first = operators, tuple(first)[:population]
        self._parents: list[Individual] = []

    def ask(self, generation: int) -> list[Genome]:
        """Breed the genomes of a generation from the parents; those of the first are drawn."""
        with keyed(self._seed, generation, "breeding"):
            if not self._parents:
                first = [self._space.canonical(genome) for genome in self._first]
                return [*first, *distinct(self._drawn, self._size - len(first), first)]
            elites = [parent.genome for parent in self._parents[: self._elites]]
            taken = [parent.genome for parent in self._parents]
            return [*elites, *distinct(self._child, self._size - len(elites), taken)]

    def tell(self, generation: int, found: Mapping[Genome, Fitness]) -> None:
        """Select the parents of the next generation: NSGA-II if there are several objectives."""
        kept = [parent for parent in self._parents if parent.genome not in found]
        candidates = [Individual(genome, values) for genome, values in found.items()]
        several = any(len(values) > 1 for values in found.values())
        if several:
            self._parents = tools.selNSGA2([*kept, *candidates], min(self._size, len(kept) + len(candidates)))
            return
        self._parents = sorted(candidates, key=lambda one: one.fitness.wvalues, reverse=True)

    def _drawn(self) -> Genome:
        return self._space.canonical(drawn(self._space))

    def _child(self) -> Genome:
        mother, father = self._selected(), self._selected()
        ops = self._operators
        numbers, other = list(mother.numbers), list(father.numbers)
        if random.random() < ops.crossover_rate:
            self._cross(numbers, other)
        if random.random() < ops.mutation_rate:
            self._mutate(numbers)
        return self._space.canonical(Genome(tuple(min(max(float(number), 0.0), 1.0) for number in numbers)))

    def _selected(self) -> Genome:
        if len(self._parents[0].fitness.wvalues) > 1:
            pair = [random.choice(self._parents), random.choice(self._parents)]
            better = pair[1] if pair[1].fitness.dominates(pair[0].fitness) else pair[0]
            return better.genome
        (winner,) = tools.selTournament(self._parents, 1, self._operators.tournament)
        found: Genome = winner.genome
        return found

    def _cross(self, one: list[float], other: list[float]) -> None:
        if self._operators.crossover == "blend":
            tools.cxBlend(one, other, self._operators.blend)
        else:
            tools.cxSimulatedBinaryBounded(one, other, self._operators.crossover_eta, 0.0, 1.0)

    def _mutate(self, numbers: list[Any]) -> None:
        ops = self._operators
        share = 1 / len(numbers) if ops.gene_rate is None else ops.gene_rate
        if ops.mutation == "gaussian":
            tools.mutGaussian(numbers, 0.0, ops.sigma, share)
        else:
            tools.mutPolynomialBounded(numbers, ops.mutation_eta, 0.0, 1.0, share)


def fronts(values: Sequence[Fitness]) -> list[int]:
    """The places of those that nobody dominates."""
    found = [Worth(one) for one in values]
    return [
        place
        for place, one in enumerate(found)
        if not any(other.dominates(one) for other in found)
    ]  # fmt: skip
