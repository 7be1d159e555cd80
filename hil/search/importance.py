"""Importance of genes: the share of the variance of the fitness that a gene alone explains.

    eta^2 = sum_bins n_b ( mean_b - mean )^2 / sum_i ( f_i - mean )^2          bins of equal numbers along the gene
    shown = max(0, (eta^2 - e) / (1 - e)),  e = (bins - 1) / (n - 1)           e is what chance alone explains

A search does not sample evenly, so this describes the search, not the node.

Source: the correlation ratio, Pearson (1905).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hil.search.genome import Genome, Space

BINS = 6


def importance(space: Space, genomes: Sequence[Genome], fitness: Sequence[float]) -> Mapping[str, float]:
    """Gene -> 0 to 1, the largest first; empty for fewer than four bins of genomes, or if all are equally fit."""
    worth = np.array(fitness)
    good = np.isfinite(worth)
    if good.sum() < 4 * BINS or np.ptp(worth[good]) == 0:
        return {}
    columns = {gene.name: [genome.numbers[place] for genome in genomes] for place, gene in enumerate(space.genes)}
    found = {name: _explained(np.array(column)[good], worth[good]) for name, column in columns.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


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
