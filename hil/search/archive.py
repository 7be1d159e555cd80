"""Every genome that was evaluated, with all its outcomes: fitness is their mean, so noise averages out where it matters."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from hil.search.genetic import fronts
from hil.search.genome import Genome
from hil.search.recipe import Objective, Outcome
from hil.search.strategy import Fitness


class Archive:
    """Args: objectives: the first decides where one must. most_steps: of a training; for one that never reached its target."""

    def __init__(self, objectives: Sequence[Objective], most_steps: int) -> None:
        self._objectives, self._most_steps = tuple(objectives), most_steps
        self._found: dict[Genome, list[Outcome]] = {}

    def add(self, genome: Genome, outcome: Outcome) -> None:
        self._found.setdefault(genome, []).append(outcome)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def genomes(self) -> list[Genome]:
        """In the order in which they came."""
        return list(self._found)

    def outcomes(self, genome: Genome) -> list[Outcome]:
        return self._found[genome]

    def fitness(self, genome: Genome) -> Fitness:
        """The mean of every objective."""
        rows = [[one.value(outcome, self._most_steps) for outcome in self._found[genome]] for one in self._objectives]
        return tuple(mean(row) for row in rows)

    def error(self, genome: Genome) -> float | None:
        """Standard error of the first objective; None for a single evaluation."""
        row = [self._objectives[0].value(outcome, self._most_steps) for outcome in self._found[genome]]
        return stdev(row) / len(row) ** 0.5 if len(row) > 1 else None

    def best(self, count: int) -> list[Genome]:
        """By the first objective; of equals the one evaluated more often, then the earlier."""
        ranked = sorted(self._found, key=lambda genome: (-self.fitness(genome)[0], -len(self._found[genome])))
        return ranked[:count]

    def front(self) -> list[Genome]:
        """Those that nobody dominates, best first by the first objective."""
        genomes = self.genomes
        places = fronts([self.fitness(genome) for genome in genomes])
        return sorted((genomes[place] for place in places), key=lambda genome: -self.fitness(genome)[0])
