"""Mackey-Glass: predict a chaotic series from its past.

    dx/dt = beta x(t - tau) / (1 + x(t - tau)^10) - gamma x(t)      beta 0.2, gamma 0.1; chaotic for tau above 16.8
    x = u(t - window + 1) ... u(t), one a second                    y = u(t + ahead)

Runge-Kutta of fourth order with ten steps a second, the delayed value between two of them their mean; powers by
multiplication, so that every machine makes the same numbers. Before it begins x is 1.2 + 0.01 r, r drawn; the first 300 s are
left out.

Source: M. C. Mackey and L. Glass, Oscillation and chaos in physiological control systems, Science 197, 287 (1977).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hil.data.examples import Examples
from hil.data.made.series import Series, length, uniform, windows
from hil.settings import Count, Natural, check

BETA, GAMMA = 0.2, 0.1
PER_S = 10
LEFT_OUT = 300


@dataclass(frozen=True, slots=True)
class MackeyGlass:
    """The series, to be predicted.

    Args:
        number: of examples.
        window: values of the past in an example.
        ahead: how far the predicted value lies ahead, s.
        tau: the delay, s.
        steps: of a piece, for sequences; 0: windows.
        seed: of the beginning.
    """

    number: Count = 2_000
    window: Count = 20
    ahead: Count = 1
    tau: Count = 17
    steps: Natural = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self) -> Examples:
        """Make them."""
        u = series(length(self.number, self.window, self.steps) + self.ahead, self.tau, self.seed)
        source = "M. C. Mackey and L. Glass, Science 197, 287 (1977)"
        return windows(u[: -self.ahead], u[self.ahead :], self.number, self.window, self.steps, "mackey_glass", source)


def series(count: int, tau: int, seed: int) -> Series:
    """`count` values, one a second."""
    late = tau * PER_S
    total = late + (LEFT_OUT + count) * PER_S + 1
    x = [1.2 + 0.01 * r for r in uniform(late + 1, seed, 0, "mackey_glass").tolist()]
    h = 1.0 / PER_S

    def slope(now: float, then: float) -> float:
        square = then * then
        fourth = square * square
        return BETA * then / (1.0 + fourth * fourth * square) - GAMMA * now

    for t in range(late, total - 1):
        now, begin, end = x[t], x[t - late], x[t - late + 1]
        middle = 0.5 * (begin + end)
        k1 = slope(now, begin)
        k2 = slope(now + 0.5 * h * k1, middle)
        k3 = slope(now + 0.5 * h * k2, middle)
        k4 = slope(now + h * k3, end)
        x.append(now + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4))
    return np.array(x[late + LEFT_OUT * PER_S :: PER_S][:count])
