"""Information processing capacity: which functions of its past inputs a linear readout of a node with memory can give.

    z(t)  = prod_i sqrt( 2 d_i + 1 ) P_{d_i}( u(t - k_i) )       P Legendre, u uniform from -1 to 1: these are orthonormal
    C[z]  = |Q^T z|^2 / |z|^2                Q an orthonormal basis of the states less their mean: the share of z that is given
    C_d   = sum of C[z] over all z of degree d = sum_i d_i       C_1 is the memory capacity; delays k_i up to a bound for each d
    sum_d C_d <= N                           the rank of the states; equal if the past fades and nothing is noise

Of T steps, states that have nothing to do with z give C[z] about N / T, and there are many z. By chance C[z] would be
distributed as Beta( N/2, (T - 1 - N)/2 ) if z were normal; what is not above its quantile 1 - chance counts as 0. What is
above is freed of what chance adds to it, as an adjusted R^2: C - (1 - C) N / (T - 1 - N).

Sources: Dambre, Verstraeten, Schrauwen and Massar, Sci. Rep. 2, 514 (2012), the capacity and a threshold; the adjusted R^2: M.
Ezekiel, Methods of Correlation Analysis (1930).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import torch
from scipy.stats import beta
from torch import Tensor

from hil.errors import UNTOUCHED, ConfigError, ContractError

WHERE = "capacity"
CHANCE = 1e-4
PIECE = 256  # functions at once
SMALLEST = 1e-6  # of the largest singular value: beneath, a state is none of its own
Term = tuple[tuple[int, int], ...]
"""A function: (delay, degree) of each factor."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Capacities of a node.

    Args:
        rank: N, of the states.
        steps: T.
        threshold: below it a function counts as 0.
        by_degree: C_d.
        memory: C of u(t - k) alone, by k from 0, those below the threshold as 0.
        tried: how many functions.
        largest: the functions with the largest capacities.
    """

    rank: int
    steps: int
    threshold: float
    by_degree: Mapping[int, float]
    memory: tuple[float, ...]
    tried: int
    largest: tuple[tuple[Term, float], ...]

    @property
    def total(self) -> float:
        """Sum over all degrees."""
        return sum(self.by_degree.values())

    def table(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "rank": self.rank, "steps": self.steps, "threshold": self.threshold, "tried": self.tried, "total": self.total,
            "by_degree": {str(degree): value for degree, value in self.by_degree.items()}, "memory": list(self.memory),
            "largest": [{"function": [list(factor) for factor in term], "capacity": c} for term, c in self.largest],
        }  # fmt: skip


def terms(degree: int, most: int) -> Iterator[Term]:
    """Yield all functions of a degree whose delays are 0 to `most`."""
    for delays in combinations_with_replacement(range(most + 1), degree):
        yield tuple((delay, delays.count(delay)) for delay in dict.fromkeys(delays))


@torch.no_grad()
def capacity(states: Tensor, u: Tensor, delays: Sequence[int] = (60, 20, 10), chance: float = CHANCE) -> Capacity:
    """Measure the capacities of states.

    Args:
        states: what a readout sees, (T, n), of the steps behind the washout.
        u: the input, uniform from -1 to 1 and independent, (before + T,): its last T values belong to the states.
        delays: the largest delay of functions of degree 1, 2, ...; each at most `before`.
        chance: probability that a function that has nothing to do with the states counts.

    Raises:
        ConfigError: delays that make no sense, or reach before the input. ContractError: too few steps, or states not finite.
    """
    n_steps, before = len(states), len(u) - len(states)
    if not delays or min(delays) < 0 or max(delays) > before:
        raise ConfigError(
            "these delays cannot be asked for", where=f"{WHERE} delays", got=str(list(delays)), outputs=UNTOUCHED,
            allowed=f"one for each degree, 0 to {before}, the washout", todo="make them smaller, or the washout longer",
        )  # fmt: skip
    basis = _basis(states)
    rank = basis.shape[1]
    if n_steps < 2 * rank + 2:
        raise ContractError(
            "too few steps to tell capacities from chance", where=WHERE, got=f"{n_steps} steps, states of rank {rank}",
            allowed=f"{2 * rank + 2} or more, better 100 for each state", todo="measure more steps",
        )  # fmt: skip
    threshold = float(beta.ppf(1 - chance, rank / 2, (n_steps - 1 - rank) / 2)) if rank else 1.0
    added = rank / (n_steps - 1 - rank)
    powers = _legendre(u.double().to(basis.device), len(delays))
    found: list[tuple[Term, float]] = []
    sums: dict[int, float] = {}
    for degree, most in enumerate(delays, 1):
        every = list(terms(degree, most))
        values = [c for at in range(0, len(every), PIECE) for c in _shares(basis, powers, every[at : at + PIECE])]
        kept = [
            (term, value - (1 - value) * added if value > threshold else 0.0) for term, value in zip(every, values, strict=True)
        ]
        sums[degree] = sum(value for _, value in kept)
        found += kept
    memory = tuple(value for _, value in found[: delays[0] + 1])
    largest = tuple(sorted((one for one in found if one[1]), key=lambda one: -one[1])[:10])
    return Capacity(rank, n_steps, threshold, sums, memory, len(found), largest)


def _basis(states: Tensor) -> Tensor:
    """Q (T, N). Raises: ContractError: states that are not finite."""
    h = states.double()
    if h.ndim != 2 or not bool(torch.isfinite(h).all()):
        raise ContractError(
            "capacities are of finite states", where=WHERE, got=f"shape {tuple(states.shape)}, or values not finite",
            allowed="(steps, n), finite", todo="look at the readings",
        )  # fmt: skip
    u, s, _ = torch.linalg.svd(h - h.mean(0), full_matrices=False)
    found: Tensor = u[:, s > max(SMALLEST * float(s[0]), math.sqrt(len(h)) * 1e-12)]
    return found


def _legendre(u: Tensor, degree: int) -> Tensor:
    """sqrt( 2 d + 1 ) P_d( u ) for d = 0 ... degree, (degree + 1, time); (d + 1) P_{d+1} = (2 d + 1) u P_d - d P_{d-1}."""
    plain = [torch.ones_like(u), u]
    for d in range(1, degree):
        plain.append(((2 * d + 1) * u * plain[-1] - d * plain[-2]) / (d + 1))
    return torch.stack([math.sqrt(2 * d + 1) * one for d, one in enumerate(plain[: degree + 1])])


def _shares(basis: Tensor, powers: Tensor, every: Sequence[Term]) -> list[float]:
    """C of some functions; of each, less its mean."""
    count = len(basis)
    first = powers.shape[1] - count
    z = torch.ones(len(every), count, dtype=basis.dtype, device=basis.device)
    for row, term in enumerate(every):
        for delay, degree in term:
            z[row] *= powers[degree, first - delay : first - delay + count]
    z -= z.mean(1, keepdim=True)
    found: list[float] = ((z @ basis).square().sum(1) / z.square().sum(1)).tolist()
    return found
