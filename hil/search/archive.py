"""Archive of all genomes that were evaluated, with their outcomes, and their fitness without the luck of the seeds.

    value of genome i under seed j  =  f_i + s_j + noise
    minimise  sum ( value - f_i - s_j )^2 + sum_j s_j^2          over the genomes that were evaluated under several seeds
    fitness of i  =  mean_j ( value - s_j )

All genomes of a generation share its seeds, so within it the luck is the same for all; elites, evaluated in every generation,
tell how much luckier one generation's seeds were than another's. The second sum keeps s small where little is known of it. Who
diverged, or was stopped early in a race, says nothing about seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median

import numpy as np

from hil.search.generator import Fitness
from hil.search.genetic import fronts
from hil.search.jobs import Objective, Outcome
from hil.search.space import Genome

Seen = tuple[int, Outcome]  # the seed, and what came of it
DIGITS = 9  # so that rounding makes nobody dominate an equal


class Archive:
    """The outcomes of every genome so far, and which are the best.

    Args:
        objectives: the first decides where one must.
        most_steps: of a training; for one that never reached its target.
    """

    def __init__(self, objectives: Sequence[Objective], most_steps: int) -> None:
        self._objectives, self._most_steps = tuple(objectives), most_steps
        self._found: dict[Genome, list[Seen]] = {}
        self._luck: tuple[dict[int, float], ...] | None = None

    def add(self, genome: Genome, seed: int, outcome: Outcome) -> None:
        """Add the outcome of a genome, trained with `seed`."""
        self._found.setdefault(genome, []).append((seed, outcome))
        self._luck = None

    def __len__(self) -> int:
        return len(self._found)

    @property
    def genomes(self) -> list[Genome]:
        """The genomes, in the order in which they came."""
        return list(self._found)

    def outcomes(self, genome: Genome) -> list[Outcome]:
        """Return the outcomes of a genome, in order."""
        return [outcome for _, outcome in self._found[genome]]

    def completed(self, genome: Genome) -> bool:
        """Return True of a genome that was trained to the end at least once."""
        return any(outcome.stopped_at is None for _, outcome in self._found.get(genome, ()))

    def fitness(self, genome: Genome) -> Fitness:
        """Estimate every objective without the luck of the seeds."""
        if self._luck is None:
            self._luck = tuple(self._seeds(one) for one in self._objectives)
        return tuple(
            round(mean(self._value(one, seen) - _luck(luck, seen) for seen in self._found[genome]), DIGITS)
            for one, luck in zip(self._objectives, self._luck, strict=True)
        )

    def results(self, genome: Genome) -> dict[str, float]:
        """The fitness by the names of the objectives, each in its own direction: what a generator is told."""
        named = zip(self._objectives, self.fitness(genome), strict=True)
        return {one.name: one.sign * value for one, value in named}

    def best(self, count: int) -> list[Genome]:
        """Return the best by the first objective, as far as it can be trusted: n evaluations count against one of the median.

        The best of many single evaluations is mostly lucky; without this it would win over one that was good five times.
        """
        middle = median(self.fitness(genome)[0] for genome in self._found)

        def trusted(genome: Genome) -> float:
            times = len(self._found[genome])
            return (times * self.fitness(genome)[0] + middle) / (times + 1)

        return sorted(self._found, key=lambda genome: -trusted(genome))[:count]

    def front(self) -> list[Genome]:
        """Those that nobody dominates, best first by the first objective."""
        genomes = self.genomes
        places = fronts([self.fitness(genome) for genome in genomes])
        return sorted((genomes[place] for place in places), key=lambda genome: -self.fitness(genome)[0])

    def _value(self, objective: Objective, seen: Seen) -> float:
        return objective.value(seen[1], self._most_steps)

    def _seeds(self, objective: Objective) -> dict[int, float]:
        """Return seed -> how much larger values are under it.

        The best f_i is mean(value - s_j) for any s, so the f are eliminated, and what is solved has a row a seed only.
        """
        rows = [
            (genome, seed, self._value(objective, (seed, outcome)))
            for genome, found in self._found.items()
            if len({seed for seed, _ in found}) > 1
            for seed, outcome in found
            if _whole(outcome)
        ]
        if not rows:
            return {}
        places = {genome: number for number, genome in enumerate(dict.fromkeys(row[0] for row in rows))}
        columns = {seed: number for number, seed in enumerate(sorted({row[1] for row in rows}))}
        at = [places[row[0]] for row in rows], [columns[row[1]] for row in rows]
        values = np.array([row[2] for row in rows])
        times = np.zeros((len(places), len(columns)))  # how often each genome was evaluated under each seed
        np.add.at(times, at, 1.0)
        evaluations = times.sum(axis=1)
        means = np.bincount(at[0], weights=values) / evaluations
        left = np.diag(1.0 + times.sum(axis=0)) - times.T @ (times / evaluations[:, None])
        right = np.bincount(at[1], weights=values - means[at[0]])
        solved = np.linalg.solve(left, right)
        return {seed: float(solved[column]) for seed, column in columns.items()}


def _luck(luck: Mapping[int, float], seen: Seen) -> float:
    return luck.get(seen[0], 0.0) if _whole(seen[1]) else 0.0


def _whole(outcome: Outcome) -> bool:
    return outcome.died_at is None and outcome.stopped_at is None
