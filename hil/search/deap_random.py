"""DEAP draws from Python's and numpy's global generators; here both are keyed while it works, and given back as they were.

    with keyed(seed, generation, "breeding"):
        tools.selTournament(...)

The lock keeps two searches in threads of one process apart. Who else draws from the global generators in another thread
meanwhile gets keyed numbers, but nobody's later numbers change.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from hil.seeding import key

_ALONE = threading.RLock()


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
