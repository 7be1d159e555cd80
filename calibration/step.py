"""The result of a step of a calibration: a value, typed and whole, good or not.

    Estimate    value ± sigma, with its unit
    Problem     what is wrong, by which evidence, and what to do about it
    Step        the estimates of one procedure, a verdict per channel, its residuals, the line a colleague would say, raw sweeps

A step never raises because a bench is bad: it reports what the bench is. It raises only for what no step can report, a fault of
wire or instrument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hil.errors import ContractError
from hil.uncertainty import with_uncertainty


@dataclass(frozen=True, slots=True)
class Estimate:
    """value ± sigma in `unit`; sigma is one standard deviation, what is known only from a data sheet included."""

    value: float
    sigma: float
    unit: str = "1"

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or not 0 <= self.sigma < math.inf:
            raise ContractError("an estimate is a finite number", where="calibration", got=f"{self.value} ± {self.sigma}")

    def __str__(self) -> str:
        """Rounded to the second digit of its sigma, in a handy unit: "3.518 ± 0.041 V", "12.40 ± 0.03 ns"."""
        return with_uncertainty(self.value, self.sigma, self.unit)

    def away(self, value: float) -> float:
        """Return how many of its sigmas `value` is off; infinite if it is off at all and sigma is 0."""
        off = abs(self.value - value)
        return off / self.sigma if self.sigma else math.inf if off else 0.0


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault that a step found.

    Args:
        kind: one word for tests and tables, as "hysteresis".
        what: one sentence.
        evidence: the number against what is allowed.
        todo: what a person does about it.
    """

    kind: str
    what: str
    evidence: str
    todo: str


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one procedure.

    Args:
        name: "delay", "transfer"; unique within a calibration.
        said: one line as a colleague would say it, with units.
        estimates: what it found, by name of the parameter.
        success: a verdict per channel of the device; one for a node that is shared in time.
        problems: why not, where not; also remarks on channels that are good.
        residual_rms, residual_unit: of its fit, if it fitted anything.
        figures: numbers for the report that are no parameters, as "chi2".
        raw: every sweep that was measured, by name: tensors of float.
        took_s: of the device's and host's time.
    """

    name: str
    said: str
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    success: tuple[bool, ...] = (True,)
    problems: tuple[Problem, ...] = ()
    residual_rms: float | None = None
    residual_unit: str = "1"
    figures: Mapping[str, float] = field(default_factory=dict)
    raw: Mapping[str, Tensor] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def good(self) -> bool:
        """True if every channel is good."""
        return all(self.success)
