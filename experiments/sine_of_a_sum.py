"""y = sin( pi (x1 + ... + xn) ), x uniform in -0.5 to 0.5: numbers to learn, for regression.toml."""

import math

import numpy as np


def examples(count: int = 2000, inputs: int = 4, seed: int = 0):
    """X (count, inputs) and y (count, 1), float32."""
    x = np.random.default_rng(seed).random((count, inputs), dtype=np.float32) - np.float32(0.5)
    return x, np.sin(math.pi * x.sum(1, keepdims=True))
