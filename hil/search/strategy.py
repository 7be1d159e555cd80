"""The Strategy contract: ask for a generation of genomes, evaluate it, tell what came of it.

A strategy is a deterministic function of (seed, what it was told), so it is never saved: a resume tells it everything again.
Fitness is a tuple, one number per objective, larger is better.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hil.search.genome import Genome, Space

Fitness = tuple[float, ...]


class Strategy(Protocol):
    """Proposes genomes and learns from their fitness."""

    def ask(self, generation: int) -> list[Genome]:
        """The genomes of a generation; asked once for each, in order."""

    def tell(self, generation: int, found: Mapping[Genome, Fitness]) -> None:
        """The fitness of these genomes: means over all their evaluations so far."""


@dataclass(frozen=True)
class Operators:
    """Settings of how children are made.

    Args:
        tournament: contestants of a selection.
        crossover_rate, mutation_rate: how often each happens to a child.
        crossover: "sbx" or "blend".
        mutation: "polynomial" or "gaussian".
        gene_rate: share of genes moved by a mutation; None: one gene on average.
        crossover_eta, mutation_eta: of SBX and polynomial mutation, larger stays closer.
        blend, sigma: of the other two.
    """

    tournament: int = 3
    crossover: str = "sbx"
    crossover_rate: float = 0.9
    crossover_eta: float = 10.0
    blend: float = 0.4
    mutation: str = "polynomial"
    mutation_rate: float = 0.7
    mutation_eta: float = 15.0
    sigma: float = 0.1
    gene_rate: float | None = None


def drawn(space: Space) -> Genome:
    """A genome at random; draws from `random`, so only inside `keyed`."""
    return Genome(tuple(random.random() for _ in space.genes))


def distinct(make: Callable[[], Genome], count: int, taken: Sequence[Genome] = ()) -> list[Genome]:
    """`count` genomes from `make`, none of them twice or in `taken` as far as 20 tries a genome allow."""
    found: list[Genome] = []
    seen = set(taken)
    for _ in range(count):
        genome = make()
        for _ in range(20):
            if genome not in seen:
                break
            genome = make()
        seen.add(genome)
        found.append(genome)
    return found
