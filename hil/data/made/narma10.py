"""NARMA10: a nonlinear system with a memory of ten steps, to be identified from its input.

    y(t + 1) = 0.3 y(t) + 0.05 y(t) sum_{i=0}^{9} y(t - i) + 1.5 u(t - 9) u(t) + 0.1        u uniform from 0 to 0.5
    x = u(t - window + 1) ... u(t)                                                           target y(t + 1)

The system runs away for some inputs: another input is drawn then. The first 200 steps are left out.

Source: A. F. Atiya and A. G. Parlos, New results on recurrent network training, IEEE Trans. Neural Networks 11, 697 (2000).
"""

from __future__ import annotations

from dataclasses import dataclass

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

    number: Count = 2_000
    window: Count = 20
    steps: Natural = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self) -> Examples:
        """Make them. Raises: ConfigError: every input that was drawn makes the system run away."""
        count = length(self.number, self.window, self.steps)
        for step in range(TRIES):
            u = 0.5 * uniform(LEFT_OUT + count, self.seed, step, "narma10")
            y = answer(u)
            if np.abs(y).max() <= BOUND:
                source = "A. F. Atiya and A. G. Parlos, IEEE Trans. Neural Networks 11, 697 (2000)"
                return windows(u[LEFT_OUT:], y[LEFT_OUT:], self.number, self.window, self.steps, "narma10", source)
        raise ConfigError(
            "the system runs away for every input", where="[data] number", got=f"{count:,} steps, {TRIES} inputs",
            allowed="shorter series", outputs=UNTOUCHED, todo="make number, or steps, smaller",
        )  # fmt: skip


def answer(u: Series) -> Series:
    """The output after each input: y(t + 1) at place t."""
    y = [0.0] * 10
    values = u.tolist()
    for t, now in enumerate(values):
        before = values[t - 9] if t >= 9 else 0.0
        total = 0.0
        for i in range(1, 11):
            total += y[-i]
        y.append(min(0.3 * y[-1] + 0.05 * y[-1] * total + 1.5 * before * now + 0.1, 1e6))
    return np.array(y[10:])
