"""[sentinel] and [alarm] of an experiment: who looks at the node, and who is told when something happens to the run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hil.config.device import Quantities
from hil.config.read import Holds, Section

Rung = Literal["log", "rescale", "servo", "recalibrate", "roll_back", "stop"]
POLICY: tuple[Rung, ...] = ("servo", "rescale", "recalibrate", "stop")
Alarm = Literal["fault", "recovered", "end", "unsafe", "stalled"]
ALARMS: tuple[Alarm, ...] = ("fault", "end", "unsafe", "stalled")


class SentinelTable(Section, strict=True):
    """[sentinel]: when the node is looked at for drift, and what is done about it.

    Args:
        every: steps between looks, at least.
        policy: what is done about a drift, in order; see calibration/drift/sentinel.py.
        warn: deviation from the reference that is noted, as a share of the half swing of a reading.
        act: deviation that is acted upon.
        period: of the node, one, or a list of one for each channel; none: that of [encode], or of the twin.
        margin: kept free at both limits for the servo, for a node without a period.
    """

    every: Annotated[int, Field(gt=0)] = 20
    policy: Rung | list[Rung] = Field(default_factory=lambda: list(POLICY))
    warn: Annotated[float, Field(gt=0, lt=1)] = 0.005
    act: Annotated[float, Field(gt=0, lt=1)] = 0.01
    period: Annotated[Quantities | None, Holds(unit="unit of the drive")] = None
    margin: Annotated[float | str, Holds(unit="unit of the drive")] = 0.0


class AlarmTable(Section, strict=True):
    """[alarm]: a command that is run when something happens to the run.

    Args:
        command: run without a shell; none: no alarm.
        on: the events that it is run for.
        timeout_s: the command is ended then.
        every_s: at most one alarm of a kind in so long.
        stalled_s: "stalled": no step or shot was finished for so long.
    """

    command: str | list[str] | None = None
    on: list[Alarm] = Field(default_factory=lambda: list(ALARMS))
    timeout_s: Annotated[float, Field(gt=0)] = 10.0
    every_s: Annotated[float, Field(ge=0)] = 60.0
    stalled_s: Annotated[float, Field(gt=0)] = 600.0
