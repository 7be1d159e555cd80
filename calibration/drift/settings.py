"""Settings of a drift sentinel, and what it remembers over a resume. sentinel.py says what the rungs do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from calibration.drift.control_charts import Chart
from calibration.drift.steering import limit, plain
from hil.device import Limit
from hil.errors import ContractError
from hil.sentinel import State

Rung = Literal["log", "rescale", "servo", "recalibrate", "roll_back", "stop"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
LADDER: tuple[Rung, ...] = ("servo", "rescale", "recalibrate", "stop")
AFTER_BACK: tuple[Rung, ...] = ("servo", "rescale", "recalibrate")


@dataclass(frozen=True, slots=True)
class SentinelSettings:
    """Settings of the sentinel: how often it looks for drift, and what it does about it.

    Args:
        every: steps between looks, at least.
        policy: the ladder.
        warn: share of the half swing by which a reading's change is worth a warning.
        act: share at which the ladder begins.
    """

    every: int = 20
    policy: tuple[Rung, ...] = LADDER
    warn: float = 0.005
    act: float = 0.01

    def __post_init__(self) -> None:
        if self.every < 1 or not self.policy or not set(self.policy) <= set(RUNGS) or not 0 < self.warn <= self.act < 1:
            raise ContractError(
                "no way to keep watch", where="sentinel", got=repr(self),
                allowed=f"every at least 1; a policy of {', '.join(RUNGS)}; 0 < warn <= act < 1",
            )  # fmt: skip

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """The policy to its end: after a return the node has to be put right, too; what nothing helps against stops the run."""
        rungs = self.policy
        if rungs[-1] == "roll_back":
            rungs = (*rungs, *(rung for rung in AFTER_BACK if rung not in rungs))
        return rungs if rungs[-1] in ("log", "stop") else (*rungs, "stop")


@dataclass(frozen=True)
class SentinelMemory:
    """The state of a sentinel besides its references, for a resume.

    Args:
        every: steps between looks; 0 before the first step.
        looks, shots, values: so far.
        walked: what the servo followed in all, without wrapping; of each channel, where there are several.
        waiting, step: rungs left when it asked to go back, and when.
        last: effects then seen.
        did: how often each rung helped.
    """

    every: int = 0
    looks: int = 0
    shots: int = 0
    values: int = 0
    quiet_step: int = 0
    backs: int = 0
    state: State = "quiet"
    walked: Limit = 0.0
    step: int = 0
    waiting: tuple[Rung, ...] = ()
    charts: Mapping[str, Chart] = field(default_factory=dict)
    states: Mapping[str, State] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    did: Mapping[str, int] = field(default_factory=dict)

    def table(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        charts = {name: chart.numbers() for name, chart in self.charts.items()}
        maps = {name: dict(own[name]) for name in ("states", "last", "did")}
        return {**own, **maps, "charts": charts, "waiting": list(self.waiting), "walked": plain(self.walked)}

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> SentinelMemory:
        """The inverse of `table`. Raises: KeyError, TypeError, ValueError: it is not one."""
        charts = {str(name): Chart(*(float(n) for n in numbers)) for name, numbers in table["charts"].items()}
        return cls(**{**table, "charts": charts, "waiting": tuple(table["waiting"]), "walked": limit(table["walked"])})
