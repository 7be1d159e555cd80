"""A task of a small crossbar, for crossbar_bench.toml: points in a square, -1 to 1, on two sides of a line."""

import numpy as np


def sides(count: int = 300, gap: float = 0.1, seed: int = 0):
    """Points with a gap between the two classes. X (count, 2) float32, y (count,) int64."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (4 * count, 2))
    far = x @ np.array([0.8, -0.6]) + 0.1
    x, far = x[np.abs(far) > gap][:count], far[np.abs(far) > gap][:count]
    return x.astype(np.float32), (far > 0).astype(np.int64)
