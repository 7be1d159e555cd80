"""Two tasks of a dopant network, for dopant_xor.toml and dopant_ring.toml: points in a square, -1 to 1, in two classes."""

import numpy as np


def xor(count: int = 600, spread: float = 0.15, seed: int = 0):
    """Points around the corners, spread so far; class 1: the signs differ. X (count, 2) float32, y (count,) int64."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 2, (count, 2))
    x = 0.6 * (2 * corners - 1) + spread * rng.standard_normal((count, 2))
    return x.clip(-1, 1).astype(np.float32), (corners[:, 0] != corners[:, 1]).astype(np.int64)


def ring(count: int = 600, seed: int = 0):
    """Points in a disc of the radius 0.4, class 0, and in a ring from 0.6 to 0.9, class 1. X (count, 2) float32, y int64."""
    rng = np.random.default_rng(seed)
    outside = rng.integers(0, 2, count)
    share, angle = rng.random(count), 2 * np.pi * rng.random(count)
    radius = np.where(outside == 1, np.sqrt(0.36 + share * (0.81 - 0.36)), 0.4 * np.sqrt(share))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32), outside.astype(np.int64)
