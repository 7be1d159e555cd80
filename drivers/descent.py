"""The way down of DC levels before their outputs are switched off: all channels of an instrument together, in small steps.

    v_k = v + k/n (rest - v)        k = 1 ... n        n = the largest of ceil( |rest - v| / step ) over the channels

Every step_s a message sets all of them and asks for all of them, so no channel moves by more than its `step` in step_s. It
begins where the instrument is, so it may be begun again, and it is left out while the outputs are off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hil.errors import ConfigError, HilError, LinkError
from hil.units import finite

PATIENCE, SLACK_S = 3.0, 2.0  # it may take so many times as long as it should, and so much more
MOST_STEPS = 100_000
TAKEN = 2e-3  # of the span: what the instrument may round


@dataclass(frozen=True, slots=True)
class Descent:
    """The way of one channel down to its safe level.

    Args:
        output: question that says whether any output is on; only "0" (also "0,0,0", "OFF") means that none is.
        command: sets the level; "{}" stands for the number.
        question: asks for it.
        rest: where it goes.
        step: largest change in `step_s`.
        step_s: time between two steps.
        low, high: limits of the channel; a level outside of them is not ramped.
    """

    output: str
    command: str
    question: str
    rest: float
    step: float
    step_s: float
    low: float
    high: float

    def __post_init__(self) -> None:
        good = 0 < self.step < math.inf and 0 < self.step_s < math.inf and self.low <= self.rest <= self.high
        if not (good and math.isfinite(self.low) and math.isfinite(self.high)):
            raise ConfigError(
                "the way down of a level makes no sense",
                where="safe state",
                got=repr(self),
                outputs="unchanged; nothing was sent",
            )
        if max(self.high - self.rest, self.rest - self.low) > MOST_STEPS * self.step:
            raise ConfigError(
                "the way down would take too many steps", where="safe state", got=f"steps of {self.step:g}",
                allowed=f"{MOST_STEPS} at most", outputs="unchanged; nothing was sent",
            )  # fmt: skip


class Asking(Protocol):
    """An exchange with an identified instrument; drivers/safe.py has it as Talk."""

    def do(self, command: str, question: str) -> str:
        """Send `command` unless it is "", then ask `question`; return the answer."""


def descend(descents: Sequence[Descent], talk: Asking, clock: Callable[[], float], sleep: Callable[[float], None]) -> str:
    """Bring all levels to rest. Returns a remark: why it was given up, or "".

    A way down that does not go as it should is given up: switched off at once is safer than on for longer.

    Raises:
        LinkError: the wire; nothing is known then.
    """
    question = ";".join(d.question for d in descents)
    try:
        if not _on(talk.do("", descents[0].output)):
            return ""
        levels = _numbers(talk.do("", question), len(descents))
        for d, level in zip(descents, levels, strict=True):
            if not d.low - _slack(d) <= level <= d.high + _slack(d):
                return f"not ramped: the instrument says {level:g}, which is outside its limits"
        count = max(math.ceil(abs(d.rest - level) / d.step - 1e-9) for d, level in zip(descents, levels, strict=True))
        give_up = clock() + PATIENCE * count * descents[0].step_s + SLACK_S
        for k in range(1, count + 1):
            begin = clock()
            if begin > give_up:
                return "not ramped to the end: it took too long"
            wanted = [level + k / count * (d.rest - level) for d, level in zip(descents, levels, strict=True)]
            command = ";".join(d.command.format(f"{value:.9g}") for d, value in zip(descents, wanted, strict=True))
            taken = _numbers(talk.do(command, question), len(descents))
            if any(abs(a - b) > _slack(d) for d, a, b in zip(descents, taken, wanted, strict=True)):
                return f"not ramped to the end: the instrument is at {', '.join(f'{value:g}' for value in taken)}"
            sleep(max(0.0, descents[0].step_s - (clock() - begin)))
    except LinkError:
        raise
    except (HilError, ValueError) as error:
        return f"not ramped to the end: {str(error).splitlines()[0]}"
    return ""


def _on(answer: str) -> bool:
    return any(part.strip().upper() not in ("0", "+0", "OFF") for part in answer.replace(";", ",").split(","))


def _numbers(answer: str, count: int) -> list[float]:
    """Raises: ValueError: not as many numbers."""
    parts = answer.split(";")
    if len(parts) != count:
        raise ValueError(f"{len(parts)} answers where {count} are due")
    return [finite(part) for part in parts]


def _slack(descent: Descent) -> float:
    return TAKEN * (descent.high - descent.low)
