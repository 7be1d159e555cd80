"""What DEAP is given: individuals, how their children are made, and the chance that its operators draw from.

It draws from Python's and numpy's global generators; here both are keyed while it works, and given back as they were.

    with keyed(seed, generation, "breeding"):
        child(mother, father, operators)

The lock keeps two searches in threads of one process apart. Who else draws from the global generators in another thread
meanwhile gets keyed numbers, but nobody's later numbers change.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from deap import base, tools

from hil.seeding import key

_ALONE = threading.RLock()


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


class Worth(base.Fitness):  # type: ignore[misc]
    """DEAP's fitness, all objectives maximised; a class of ours, so nothing is made at run time."""

    def __init__(self, values: Sequence[float]) -> None:
        self.weights = (1.0,) * len(values)
        super().__init__(values)


class Individual:
    """Shares with their fitness, as DEAP's selections want it."""

    def __init__(self, shares: Sequence[float], values: Sequence[float]) -> None:
        self.shares, self.fitness = tuple(shares), Worth(values)


def selected(candidates: Sequence[Any], count: int, tournament: int) -> list[Any]:
    """`count` of the candidates, each the fittest of `tournament` drawn at random; only inside `keyed`.

    Args:
        candidates: with an attribute `fitness` of DEAP.
        count: how many, perhaps one twice.
        tournament: contestants of each.
    """
    found: list[Any] = tools.selTournament(candidates, count, tournament)
    return found


def child(mother: Sequence[float], father: Sequence[float], ops: Operators) -> tuple[float, ...]:
    """Cross and mutate two parents, shares from 0 to 1; draws from `random`, so only inside `keyed`."""
    numbers, other = list(mother), list(father)
    if random.random() < ops.crossover_rate:
        if ops.crossover == "blend":
            tools.cxBlend(numbers, other, ops.blend)
        else:
            tools.cxSimulatedBinaryBounded(numbers, other, ops.crossover_eta, 0.0, 1.0)
    if random.random() < ops.mutation_rate:
        share = 1 / len(numbers) if ops.gene_rate is None else ops.gene_rate
        if ops.mutation == "gaussian":
            tools.mutGaussian(numbers, 0.0, ops.sigma, share)
        else:
            tools.mutPolynomialBounded(numbers, ops.mutation_eta, 0.0, 1.0, share)
    return tuple(min(max(float(number), 0.0), 1.0) for number in numbers)


@contextmanager
def keyed(seed: int, step: int, stream: str) -> Iterator[None]:
    """Inside, `random` and `numpy.random` give numbers that (seed, step, stream) alone decide."""
    with _ALONE:
        plain, state = random.getstate(), np.random.get_state()  # noqa: NPY002
        number = key(seed, step, stream)
        random.seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(state)  # noqa: NPY002
