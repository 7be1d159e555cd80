"""NARMA: a nonlinear system with a memory of n = 5, 10 or 20 steps, to be identified from its input.

    y(t + 1) = 0.3 y(t) + 0.05 y(t) sum_{i=0}^{n-1} y(t - i) + 1.5 u(t - n + 1) u(t) + 0.1          n = 5, 10
    y(t + 1) = tanh( 0.3 y(t) + 0.05 y(t) sum_{i=0}^{19} y(t - i) + 1.5 u(t - 19) u(t) + 0.01 ) + 0.2        n = 20
    x = u(t - window + 1) ... u(t)         target y(t + 1)         u uniform from 0 to 0.5

The system runs away for some inputs, but for n = 20: another input is drawn then. The first 200 steps are left out. The values
with tanh are rounded to twelve digits, so that every machine makes the same.

Sources: A. F. Atiya and A. G. Parlos, New results on recurrent network training, IEEE Trans. Neural Networks 11, 697 (2000);
with tanh, A. Rodan and P. Tino, Minimum complexity echo state network, IEEE Trans. Neural Networks 22, 131 (2011).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hil.data.examples import Examples
from hil.data.made.series import Series, length, uniform, windows
from hil.errors import UNTOUCHED, ConfigError
from hil.settings import Count, Natural, check

LEFT_OUT = 200
BOUND = 1.0  # beyond it the system runs away
TRIES = 100


@dataclass(frozen=True, slots=True)
class Narma10:
    """Input and output of the system.

    Args:
        number: of examples.
        window: values of the input in an example.
        steps: of a piece, for sequences; 0: windows.
        seed: of the input.
    """

    order: ClassVar[int] = 10
    source: ClassVar[str] = "A. F. Atiya and A. G. Parlos, IEEE Trans. Neural Networks 11, 697 (2000)"
    number: Count = 2_000
    window: Count = 20
    steps: Natural = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self) -> Examples:
        """Make them. Raises: ConfigError: every input that was drawn makes the system run away."""
        count, name = length(self.number, self.window, self.steps), f"narma{self.order}"
        for step in range(TRIES):
            u = 0.5 * uniform(LEFT_OUT + count, self.seed, step, name)
            y = answer(u, self.order)
            if self.order == 20 or np.abs(y).max() <= BOUND:
                return windows(u[LEFT_OUT:], y[LEFT_OUT:], self.number, self.window, self.steps, name, self.source)
        raise ConfigError(
            "the system runs away for every input", where="[data] number", got=f"{count:,} steps, {TRIES} inputs",
            allowed="shorter series", outputs=UNTOUCHED, todo="make number, or steps, smaller",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Narma5(Narma10):
    """Input and output of the system with a memory of five steps; arguments as of narma10."""

    order: ClassVar[int] = 5


@dataclass(frozen=True, slots=True)
class Narma20(Narma10):
    """Input and output of the system with a memory of twenty steps; arguments as of narma10."""

    order: ClassVar[int] = 20
    source: ClassVar[str] = "A. Rodan and P. Tino, IEEE Trans. Neural Networks 22, 131 (2011)"


def answer(u: Series, order: int = 10) -> Series:
    """The output after each input: y(t + 1) at place t; the system rests at 0 before."""
    y = [0.0] * order
    values = u.tolist()
    for t, now in enumerate(values):
        before = values[t - order + 1] if t >= order - 1 else 0.0
        total = 0.0
        for i in range(1, order + 1):
            total += y[-i]
        grown = 0.3 * y[-1] + 0.05 * y[-1] * total + 1.5 * before * now
        y.append(round(math.tanh(grown + 0.01) + 0.2, 12) if order == 20 else min(grown + 0.1, 1e6))
    return np.array(y[order:])
