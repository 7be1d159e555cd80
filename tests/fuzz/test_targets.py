"""A few damaged inputs for every target of benchmarks/fuzz.py, so that none of them rots between two long runs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fuzzing import TARGETS, Target
from fuzzing.mutate import mutated

INPUTS = 15


@pytest.mark.parametrize("make", TARGETS, ids=lambda make: f"{make.__module__}.{make.__name__}")
def test_every_input_ends_in_a_result_or_in_an_error_that_is_allowed(
    make: Callable[[Path, ExitStack], Target], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        target = make(tmp_path, stack)
        for sample in target.samples:  # as they are
            with contextlib.suppress(*target.allowed):
                target.run(sample)
        for number in range(INPUTS):
            draw = random.Random(f"1/{target.name}/{number}")
            with contextlib.suppress(*target.allowed):
                target.run(target.mend(mutated(target.samples, draw), draw))
