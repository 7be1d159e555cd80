"""Common part of the data sets that are series: from a series to examples.

    steps = 0    x = u(t - window + 1) ... u(t)    y = what belongs to t         an example for each t, in the order of time
    steps > 0    x (steps, 1), y (steps, 1): the series cut into pieces          with [data] sequence = true

Uniform numbers are 53 bits of a raw PCG64 stream, which numpy promises never to change, over 2^53.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hil import seeding
from hil.data.examples import Examples, in_memory
from hil.errors import UNTOUCHED, ConfigError

Series = NDArray[np.float64]


def uniform(count: int, seed: int, step: int, stream: str) -> Series:
    """Numbers from 0 up to, not 1, keyed by (seed, step, stream)."""
    bits = np.random.PCG64(seeding.key(seed, step, stream)).random_raw(count) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def windows(u: Series, y: NDArray[np.generic], examples: int, window: int, steps: int, name: str, source: str) -> Examples:
    """The last `examples` of a series, as windows or as pieces.

    Args:
        u: (time,), at least examples + window - 1 of it, or examples * steps.
        y: (time,) or (time, k), what belongs to each time.
        examples: how many.
        window: values of u that an example has.
        steps: of a piece; 0: windows.
        name: of the data.
        source: the citation.
    """
    if steps:
        count = examples * steps
        x = u[-count:].reshape(examples, steps, 1)
        targets = y[-count:].reshape(examples, steps, *(y.shape[1:] or ([1] if y.dtype.kind == "f" else [])))
    else:
        x = np.lib.stride_tricks.sliding_window_view(u, window)[-examples:]
        targets = y[-examples:]
    values = np.ascontiguousarray(x, np.float32)
    return Examples(
        name, values.shape[1:], in_memory(values), targets, lambda row: f"{name}: example {row}", source, kept=True
    )  # fmt: skip


def length(examples: int, window: int, steps: int) -> int:
    """The time that a series must last. Raises: ConfigError: pieces and windows at once."""
    if steps and window > 1:
        raise ConfigError(
            "a piece of a series has no window", where="[data] steps", got=f"steps = {steps}, window = {window}",
            allowed="steps with window = 1, or window alone", outputs=UNTOUCHED, todo="write window = 1, or leave out steps",
        )  # fmt: skip
    return examples * steps if steps else examples + window - 1
