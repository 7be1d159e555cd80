"""Dots that move, as an event camera sees them: which way?

    I(r, t) = sum_d exp( -|r - r_d(t)|^2 / 2 w^2 ) + 0.2      r_d(t) = r_d(0) + v t,  |v| = side / steps along one axis
    an "on" event of a pixel when ln I has risen by `threshold` since its last event, an "off" event when it has fallen by it
    x (steps, 2, side, side)     events in each step, on and off        target "right", "left", "down" or "up"

The picture closes on itself: what leaves it on one side comes in on the other. Every dot comes around once in an example, and
the first round is not shown, so each pixel has as many events in one direction as in the opposite one: a sum over time does not
tell them apart. Besides, a share `noise` of all pixels, steps and polarities has an event without a cause.

Source: P. Lichtsteiner, C. Posch and T. Delbruck, IEEE J. Solid-State Circuits 43, 566 (2008), the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hil.data.examples import Examples, in_memory
from hil.data.made.series import uniform
from hil.settings import Count, Positive, Share, check

WAYS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}  # rows, columns
DARK = 0.2
Pictures = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MovingDots:
    """Events of moving dots.

    Args:
        number: of examples.
        side: of the picture, pixels.
        steps: of time, in which a dot comes around once.
        dots: in a picture, all moving alike.
        width: w of a dot, pixels.
        threshold: of an event, in ln I.
        noise: share of events without a cause.
        seed: of places, directions and noise.
    """

    number: Count = 2_000
    side: Annotated[int, Field(ge=4)] = 10
    steps: Annotated[int, Field(ge=4)] = 10
    dots: Count = 2
    width: Positive = 0.8
    threshold: Positive = 0.3
    noise: Share = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self) -> Examples:
        """Make them."""
        way = np.floor(len(WAYS) * uniform(self.number, self.seed, 0, "moving dots ways")).astype(int)
        start = self.side * uniform(2 * self.number * self.dots, self.seed, 0, "moving dots places")
        x = self._events(start.reshape(self.number, self.dots, 2), np.array(list(WAYS.values()))[way])
        stray = uniform(x.size, self.seed, 0, "moving dots noise").reshape(x.shape) < self.noise
        x += stray
        source = "P. Lichtsteiner, C. Posch and T. Delbruck, IEEE J. Solid-State Circuits 43, 566 (2008); made-up scenes"
        names = np.array(list(WAYS))[way]
        return Examples("moving_dots", x.shape[1:], in_memory(x), names, lambda row: f"moving_dots: example {row}", source)

    def _events(self, start: Pictures, way: NDArray[np.int_]) -> NDArray[np.float32]:
        """Count events.

        Args:
            start: (n, dots, 2), row and column.
            way: (n, 2), of one step in rows and columns.

        Returns:
            (n, steps, 2, side, side).
        """
        found = np.zeros((len(start), self.steps, 2, self.side, self.side), np.float32)
        last = self._picture(start)
        for step in range(1, 2 * self.steps + 1):
            risen = self._picture(start + way[:, None] * (step * self.side / self.steps)) - last
            events = np.trunc(np.round(risen / self.threshold, 6))  # rounded: the same on every machine
            last += events * self.threshold
            if step > self.steps:
                found[:, step - self.steps - 1, 0] = np.maximum(events, 0)
                found[:, step - self.steps - 1, 1] = np.maximum(-events, 0)
        return found

    def _picture(self, places: Pictures) -> Pictures:
        """Return ln I of dots at (n, dots, 2): (n, side, side)."""
        away = np.abs(places[..., None] - np.arange(self.side)) % self.side
        near = np.exp(-np.square(np.minimum(away, self.side - away)) / (2 * self.width**2))  # (n, dots, 2, side)
        light: Pictures = np.einsum("ndi,ndj->nij", near[:, :, 0], near[:, :, 1])
        return np.log(light + DARK)
