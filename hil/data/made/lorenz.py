"""Lorenz: predict one coordinate of a chaotic flow from its past.

    dx/dt = 10 (y - x)     dy/dt = x (28 - z) - y     dz/dt = x y - 8/3 z
    u = x / 20, one value every 0.02 s          input u(t - window + 1) ... u(t)          target u(t + ahead)

Runge-Kutta of fourth order, four steps a value. It begins near (1, 1, 1), drawn; the first 20 s are left out.

Source: E. N. Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20, 130 (1963).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hil.data.examples import Examples
from hil.data.made.series import Series, length, uniform, windows
from hil.settings import Count, Natural, check

STEP_S, PER_VALUE = 0.005, 4
LEFT_OUT = 1_000
SCALE = 20.0
Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Lorenz:
    """The first coordinate, to be predicted.

    Args:
        number: of examples.
        window: values of the past in an example.
        ahead: how far the predicted value lies ahead, in values.
        steps: of a piece, for sequences; 0: windows.
        seed: of the beginning.
    """

    number: Count = 2_000
    window: Count = 20
    ahead: Count = 1
    steps: Natural = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self) -> Examples:
        """Make them."""
        u = series(length(self.number, self.window, self.steps) + self.ahead, self.seed)
        source = "E. N. Lorenz, J. Atmos. Sci. 20, 130 (1963)"
        return windows(u[: -self.ahead], u[self.ahead :], self.number, self.window, self.steps, "lorenz", source)


def series(count: int, seed: int) -> Series:
    """`count` values of x / 20, 0.02 s apart."""
    first, second, third = (1.0 + 0.01 * r for r in uniform(3, seed, 0, "lorenz").tolist())
    point: Point = (first, second, third)
    found = []
    for value in range(LEFT_OUT + count):
        for _ in range(PER_VALUE):
            point = _stepped(point, STEP_S)
        if value >= LEFT_OUT:
            found.append(point[0] / SCALE)
    return np.array(found)


def slope(point: Point) -> Point:
    """The flow at a point."""
    x, y, z = point
    return 10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z


def _stepped(point: Point, h: float) -> Point:
    def moved(by: Point, share: float) -> Point:
        return point[0] + share * by[0], point[1] + share * by[1], point[2] + share * by[2]

    k1 = slope(point)
    k2 = slope(moved(k1, 0.5 * h))
    k3 = slope(moved(k2, 0.5 * h))
    k4 = slope(moved(k3, h))
    x, y, z = (p + h / 6.0 * (a + 2.0 * b + 2.0 * c + d) for p, a, b, c, d in zip(point, k1, k2, k3, k4, strict=True))
    return x, y, z
