"""Listeners to the outputs of boxes that hold levels: the log of the bench, and parameters of the plant.

    parameter = max( least, offset + scale * level )        level: what stands at the terminals, 0 while the output is off

So a laser that is off lights no modulator, and a bias that is missing moves its operating point.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sim_devices.bench.control import Adjustable
from sim_devices.instruments.source_box import SourceBox
from sim_devices.switch_log import Switched, SwitchLog


@dataclass(frozen=True, slots=True)
class Feed:
    """A parameter of the plant that follows output 1 of a box.

    Args:
        box: its name on the bench.
        path: of the parameter, "node.laser_w".
        scale, offset: of the level.
        least: the parameter goes no lower.
    """

    box: str
    path: str
    scale: float = 1.0
    offset: float = 0.0
    least: float = -sys.float_info.max

    def value(self, level: float) -> float:
        """The parameter at a level."""
        return max(self.least, self.offset + self.scale * level)


class Outputs:
    """The listener of all boxes that hold levels.

    Args:
        boxes: all boxes of the bench by name.
        plant: whose parameters are fed.
        feeds: which.
        log: of the outputs that are switched.
        clock: for the log, seconds.
    """

    def __init__(
        self,
        boxes: Mapping[str, object],
        plant: Adjustable,
        feeds: Sequence[Feed],
        log: SwitchLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._plant, self._log, self._clock = plant, log, clock
        self._feeds = {id(boxes[feed.box]): feed for feed in feeds}
        for box in boxes.values():
            if isinstance(box, SourceBox):
                box.connect(self)
        for feed in feeds:
            plant.set(feed.path, feed.value(0.0))

    def switched(self, source: SourceBox, channel: int, on: bool) -> None:
        """Log that an output relay moved."""
        self._log.add(Switched(self._clock(), source.name, channel, on))

    def level(self, source: SourceBox, channel: int, value: float) -> None:
        """Let the plant have what it is fed with."""
        feed = self._feeds.get(id(source))
        if feed is not None and channel == 1:
            self._plant.set(feed.path, feed.value(value))
