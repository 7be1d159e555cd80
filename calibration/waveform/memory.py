"""Memory: the dependence of a reading on the value before it.

A random sequence has every pair of levels in both orders, A after B and B after A:

    y_k = f(x_k) + c z_k + noise,   z_k = f(x_k-1) - f(x_k)       z: how far the node had to go, of which a pole leaves c
    c   = sum r_k z_k / sum z_k^2,  sigma_c = s / sqrt( sum z^2 )

r is the reading and z the way, both less their means at the level x_k: what is carried over on average is part of the curve.

    memory     c is there, and more than LEAST of the way
"""

from __future__ import annotations

import math

import torch

from calibration.residuals import by_group
from calibration.sequence import Found, Procedure, Subject
from calibration.shots import Shots
from calibration.step import Estimate, Problem, Step

NAME = "memory"
LEVELS, COUNT, RECORDS = 16, 4096, 2
SURE, LEAST = 6.0, 1e-3


def memory(subject: Subject, found: Found) -> Step:
    """Estimate carry_over: the share of a step that is still left when a value is read."""
    shots = Shots(subject, NAME)
    level = shots.levels(LEVELS)
    left, gone = [], []
    for _ in range(RECORDS):
        group = torch.randint(LEVELS, (COUNT,), generator=shots.rng)
        reading = shots(level[group])
        mean, _, _ = by_group(reading, group, LEVELS)
        way = mean[group[:-1]] - mean[group[1:]]
        own, _, _ = by_group(way, group[1:], LEVELS)
        left.append(reading[1:] - mean[group[1:]])
        gone.append(way - own[group[1:]])  # as the mean at each level holds its share of what was carried over
    r, z = torch.cat(left), torch.cat(gone)
    power = float(z.square().sum())
    share = float((r * z).sum()) / power if power else 0.0
    rest = float((r - share * z).square().mean().sqrt())
    carry = Estimate(share, rest / math.sqrt(power) if power else 0.0)
    bad = abs(share) > max(SURE * carry.sigma, LEAST)
    problem = Problem(
        "memory", "a reading holds some of the value before it", f"{share:.2%} of the step, {LEAST:.1%} allowed",
        "lower the symbol rate or raise settle in [waveform]; a node that remembers wants a learner that knows time",
    )  # fmt: skip
    said = f"{100 * share:.3f} ± {100 * carry.sigma:.3f} % of a step is carried over"
    return Step(NAME, said, {"carry_over": carry}, (not bad,), (problem,) if bad else (), raw={"way_v": z, "residual_v": r})


MEMORY = Procedure(NAME, memory, needs=("delay",))
