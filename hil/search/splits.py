"""The examples that a search may see: train to learn from, score for the fitness, held for the confirmation.

    pool  = training split, validation split            both are random draws, in an order that never changes
    train = the first of it, score = those before held, held = the last

The test split is no part of it: what a search is given holds no test example.
"""

from __future__ import annotations

import dataclasses

import torch

from hil.data.dataset import Dataset, Split
from hil.errors import ConfigError


def carved(dataset: Dataset, train: int | None, score: int, held: int) -> Dataset:
    """Return the same data set with the splits of the search: train, score in place of validation, held in place of test.

    Args:
        dataset: as it was read.
        train: so many examples; None: all that are left.
        score: examples that candidates are scored on.
        held: examples that only the confirmation sees.

    Raises:
        ConfigError: there are not as many.
    """
    x = torch.cat([dataset.train.x, dataset.validation.x])
    y = torch.cat([dataset.train.y, dataset.validation.y])
    left = len(y) - score - held
    wanted = left if train is None else train
    if not 1 <= wanted <= left:
        raise ConfigError(
            "not enough examples", where="[train] of the search", got=f"{wanted} to train, {score} score, {held} held",
            allowed=f"{len(y)} in all ({dataset.name}, without its test split)", todo="take fewer",
        )  # fmt: skip
    parts = (slice(0, wanted), slice(left, left + score), slice(left + score, None))
    first, second, third = (Split(x[part], y[part]) for part in parts)
    return dataclasses.replace(dataset, train=first, validation=second, test=third)
