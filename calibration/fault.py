"""A fault of a measurement, as what it is for a calibration: a finding."""

from __future__ import annotations

from calibration.step import Problem
from hil.errors import MeasurementError


def problem_of(error: MeasurementError) -> Problem:
    """The kind is the class's name in lower case: "saturated", "misaligned"."""
    facts = [error.got, f"allowed: {error.allowed}" if error.allowed else ""]
    evidence = "; ".join(fact for fact in facts if fact) or "nothing more is known"
    what = f"{error.where}: {error.what}" if error.where else error.what
    return Problem(type(error).__name__.lower(), what, evidence, error.todo or "see docs/faults.md")
