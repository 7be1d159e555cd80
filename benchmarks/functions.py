"""Functions g of the studies, and how a setting of an experiment is written on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hil.feedback.feedback import Fourier
from hil.feedback.functions import Function, to_table
from hil.seeding import generator

TERMS = (1, 2, 4)  # few terms: the correlations with a slope spread over 0 .. 1; many: most are small


def inline(value: Any) -> str:
    """Write a value as TOML in one line.

    >>> inline({"g": {"family": "sine", "phase": 0.8}})
    '{g = {family = "sine", phase = 0.8}}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


def feedback(g: Function) -> str:
    """The setting that gives aDFA this g."""
    return f"learner.feedback={inline({'g': to_table(g)})}"


def learner(use: str, **settings: object) -> str:
    """The setting that replaces the table [learner]."""
    return f"learner={inline({'use': use, **settings})}"


def random_functions(count: int, half_period: float) -> Iterator[Fourier]:
    """Yield random Fourier series of 1, 2, 4, 1, 2, ... terms; number n is always the same."""
    for number in range(count):
        yield Fourier.random(generator(0, number, "random fourier"), TERMS[number % len(TERMS)], half_period)
