"""How long a simulated box takes: as long as the real one, so that a virtual bench is as slow as the bench on the table.

    message    command + bytes / up                      its reply    bytes / down
    arm, trigger     before the scope is ready, before the record plays
    acquire          after the last sample, until the record can be read; of a meter, for each reading
    settle           after a message that moved an output

Records are played and taken in real time. What the simulation of a message takes is part of its time, as far as that is long
enough. A wait does not hold the lock of the bench: other boxes go on meanwhile. Nobody waits where no timing is given.

The figures of a model stand in its class as `typical`, from its manual or assumed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from hil.errors import ConfigError
from hil.settings import NotNegative, check
from hil.units import Unbounded
from sim_devices.instruments.box import Box, Message


@dataclass(frozen=True, slots=True)
class Timing:
    """Times and rates of a box.

    Args:
        command_s: for each message, whatever it holds.
        up_bytes_per_s: at which messages are taken.
        down_bytes_per_s: at which replies come.
        arm_s: until a scope that was told to wait for a trigger is ready for one.
        trigger_s: from the command to the first sample that a generator plays.
        acquire_s: from the last sample of a record until it can be read; of a meter, for each reading.
        settle_s: until an output stands still after a message that moved it.
    """

    command_s: NotNegative = 0.0
    up_bytes_per_s: Unbounded = math.inf
    down_bytes_per_s: Unbounded = math.inf
    arm_s: NotNegative = 0.0
    trigger_s: NotNegative = 0.0
    acquire_s: NotNegative = 0.0
    settle_s: NotNegative = 0.0

    def __post_init__(self) -> None:
        check(self, "timing")
        slow = {key: rate for key in ("up", "down") if not (rate := getattr(self, f"{key}_bytes_per_s")) > 0}
        for key, rate in slow.items():
            raise ConfigError(
                "a box that moves no bytes never answers", where=f"timing {key}", got=f"{rate:g} B/s", allowed="above 0",
                todo="write a rate such as 5 MB/s, or leave it out: no bound",
            )  # fmt: skip

    def exchange_s(self, sent: int, replied: int) -> float:
        """Seconds that a message of so many bytes and its reply take."""
        return self.command_s + sent / self.up_bytes_per_s + replied / self.down_bytes_per_s


ASSUMED = Timing(1e-3, 10e6, 5e6, arm_s=10e-3, trigger_s=10e-3, acquire_s=1e-3, settle_s=1e-3)
"""Of a box whose manual has no figures: what boxes on a laboratory's network take, within a factor of about three."""


class TimedBox:
    """A box as a transport serves it, which takes its time for every message; all else is the box itself.

    Args:
        box: what is served.
        timing: of it.
        sleep: waits, s.
        worked: CPU time of this thread, s.
    """

    def __init__(
        self,
        box: Box,
        timing: Timing,
        sleep: Callable[[float], None] = time.sleep,
        worked: Callable[[], float] = time.thread_time,
    ) -> None:
        self._box, self._timing, self._sleep, self._worked = box, timing, sleep, worked

    def execute(self, message: Message) -> bytes | None:
        """Run a message; return its response when it would have come."""
        began, settles_s = self._worked(), self._timing.settle_s
        before = self._box.outputs() if settles_s else {}
        reply = self._box.execute(message)
        moved = bool(settles_s) and self._box.outputs() != before
        takes_s = self._timing.exchange_s(len(message), len(reply or b"")) + (settles_s if moved else 0.0)
        left_s = takes_s - (self._worked() - began)
        if left_s > 0:
            self._sleep(left_s)
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._box, name)


def timed(box: Box, timing: Timing | None) -> Box:
    """`box`, taking its time; the box itself without a timing."""
    if timing is None:
        return box
    return cast(Box, TimedBox(box, timing))
