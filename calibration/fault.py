"""A fault of a measurement, as what it is for a calibration: a finding."""

from __future__ import annotations

from calibration.step import Problem
from hil.errors import Flat, Late, MeasurementError, Saturated

KINDS: dict[type[MeasurementError], str] = {Saturated: "clipped", Flat: "stuck", Late: "delay"}


def problem_of(error: MeasurementError) -> Problem:
    """The kind that a step would give it, "clipped", "stuck" or "delay"; of others the name of the class, "jumped"."""
    facts = [error.got, f"allowed: {error.allowed}" if error.allowed else ""]
    evidence = "; ".join(fact for fact in facts if fact) or "nothing more is known"
    what = f"{error.where}: {error.what}" if error.where else error.what
    kind = next((kind for found, kind in KINDS.items() if isinstance(error, found)), type(error).__name__.lower())
    return Problem(kind, what, evidence, error.todo or "see docs/reference/faults.md")
