"""Importance of genes: the share of the variance of the fitness that a gene alone explains.

    eta^2 = sum_bins n_b ( mean_b - mean )^2 / sum_i ( f_i - mean )^2          bins of equal numbers along the gene
    shown = max(0, (eta^2 - e) / (1 - e)),  e = (bins - 1) / (n - 1)           e is what chance alone explains
    s = sqrt( 2 (bins - 1) (n - bins) / (n + 1) ) / (n - 1) / (1 - e)          standard deviation of `shown` by chance alone:
                                                                               6 % for the 60 genomes that are asked for

A search does not sample evenly, so this describes the search, not the node.

Source: the correlation ratio, Pearson (1905).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hil.search.space import Genome, Space, shares_of

BINS = 6
LEAST = 10 * BINS  # genomes


def importance(space: Space, genomes: Sequence[Genome], fitness: Sequence[float]) -> Mapping[str, float]:
    """Gene -> 0 to 1, the largest first; empty for fewer than LEAST genomes, or if all are equally fit."""
    worth = np.array(fitness)
    good = np.isfinite(worth)
    if good.sum() < LEAST or np.ptp(worth[good]) == 0:
        return {}
    shares = [shares_of(space, genome) for genome in genomes]
    columns = {gene.name: [one[place] for one in shares] for place, gene in enumerate(space.dimensions)}
    found = {name: _explained(np.array(column)[good], worth[good]) for name, column in columns.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def by_chance(count: int) -> float:
    """Return the standard deviation of the importance of a gene that does not matter, among `count` genomes.

    >>> round(by_chance(60), 2), round(by_chance(200), 2)
    (0.06, 0.02)
    """
    expected = (BINS - 1) / (count - 1)
    return math.sqrt(2 * (BINS - 1) * (count - BINS) / (count + 1)) / (count - 1) / (1 - expected)


def _explained(gene: np.ndarray, worth: np.ndarray) -> float:
    values = np.unique(gene)
    bins = np.searchsorted(values, gene) if len(values) <= BINS else np.argsort(np.argsort(gene)) * BINS // len(gene)
    count = len(np.unique(bins))
    if count < 2:
        return 0.0
    groups = [worth[bins == one] for one in np.unique(bins)]
    between = sum(len(group) * (group.mean() - worth.mean()) ** 2 for group in groups)
    ratio = between / ((worth - worth.mean()) ** 2).sum()
    chance = (count - 1) / (len(worth) - 1)
    return float(max(0.0, (ratio - chance) / (1 - chance)))
