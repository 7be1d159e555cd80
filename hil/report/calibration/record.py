"""A saved calibration as plain data: what is missing or makes no sense is left out, so that a damaged one still has a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.uncertainty import with_uncertainty

Floats = NDArray[np.float64]
Sweeps = Mapping[str, Floats]
Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """value ± sigma in `unit`."""

    value: float
    sigma: float = 0.0
    unit: str = "1"

    def __str__(self) -> str:
        """Rounded by its uncertainty: "3.518 ± 0.041 V"."""
        return with_uncertainty(self.value, self.sigma, self.unit)


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """What is wrong, by which evidence, what to do about it; `kind` is one word."""

    kind: str
    what: str
    evidence: str
    todo: str


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of a saved calibration.

    Args:
        sweeps: its raw sweeps, in their order; empty if they cannot be read.
        figures: numbers that are no parameters, by name.
    """

    name: str
    said: str = ""
    success: tuple[bool, ...] = (True,)
    estimates: Mapping[str, Measured] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[ProblemRecord, ...] = ()
    residual_rms: float | None = None
    residual_unit: str = "1"
    took_s: float = 0.0
    sweeps: Sweeps = field(default_factory=dict)

    @classmethod
    def of(cls, table: Facts, sweeps: Sweeps) -> StepRecord:
        """Read the table of a step."""
        rms = number(table.get("residual_rms"))
        listed = [str(name) for name in listing(table, "raw")]
        problems = [part for part in listing(table, "problem") if isinstance(part, Mapping)]
        keys = ("kind", "what", "evidence", "todo")
        return cls(
            str(table.get("name")), str(table.get("said", "")), tuple(bool(one) for one in listing(table, "success")),
            dict(_estimates(mapping(table, "estimates"))),
            {key: value for key, one in mapping(table, "figures").items() if (value := number(one)) is not None},
            tuple(ProblemRecord(*(str(part.get(key, "")) for key in keys)) for part in problems),
            rms, str(table.get("residual_unit", "1")), number(table.get("took_s")) or 0.0,
            {name: sweeps[name] for name in listed if name in sweeps},
        )  # fmt: skip

    @property
    def good(self) -> bool:
        """True if every channel is."""
        return all(self.success)

    @property
    def skipped(self) -> bool:
        """True if it was not done, as a step before it failed."""
        return any(problem.kind == "skipped" for problem in self.problems)

    def curves(self, *names: str) -> tuple[Floats, ...] | None:
        """Return sweeps of one dimension, of one length, 2 points or more, all numbers finite; None if they are not so."""
        found = [self.sweeps.get(name) for name in names]
        there = tuple(one for one in found if one is not None and one.ndim == 1 and len(one) > 1 and np.isfinite(one).all())
        return there if len(there) == len(names) and len({len(one) for one in there}) == 1 else None

    def block(self, name: str, dimensions: int) -> Floats | None:
        """Return a sweep of so many dimensions with finite numbers, or None."""
        found = self.sweeps.get(name)
        fits = found is not None and found.ndim == dimensions and found.size > 0 and bool(np.isfinite(found).all())
        return found if fits else None

    def unit_of(self, stem: str, units: Mapping[str, str], otherwise: str) -> str:
        """Return the unit in the name of the sweep that begins with `stem`: "V" of "drive_v"."""
        ends = (name.removeprefix(f"{stem}_") for name in self.sweeps if name.startswith(f"{stem}_"))
        return next((units[end] for end in ends if end in units), otherwise)


@dataclass(frozen=True, slots=True)
class Record:
    """A saved calibration: its steps by name, in their order."""

    steps: Mapping[str, StepRecord]

    @classmethod
    def of(cls, table: Facts, sweeps: Mapping[str, Sweeps]) -> Record:
        """Read the table of a calibration."""
        parts = [part for part in listing(table, "step") if isinstance(part, Mapping)]
        steps = [StepRecord.of(part, sweeps.get(str(part.get("name")), {})) for part in parts]
        return cls({step.name: step for step in steps})

    def step(self, name: str) -> StepRecord:
        """Return the step called `name`, an empty one if it was not done."""
        return self.steps.get(name, StepRecord(name, success=()))


def number(value: object) -> float | None:
    """Return a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(facts: Facts, key: str) -> Facts:
    """Return the table at `key`; an empty one if there is none."""
    value = facts.get(key)
    return value if isinstance(value, Mapping) else {}


def listing(facts: Facts, key: str) -> list[Any]:
    """Return the list at `key`; an empty one if there is none."""
    value = facts.get(key)
    return value if isinstance(value, list) else []


def _estimates(table: Facts) -> Any:
    for name, found in table.items():
        value = number(found.get("value")) if isinstance(found, Mapping) else None
        if value is not None:
            yield name, Measured(value, number(found.get("sigma")) or 0.0, str(found.get("unit", "1")))
