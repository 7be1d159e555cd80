"""Locking of a bank of microrings: where each ring meets its own laser, with all others where they meet theirs.

    one at a time    laser k alone, ring k of each bank stepped over its range, the others held: the reading is
                     y = top - depth ( 1 - 1 / (1 + ((p - p0) / width)^2) ),   p = V^2, p0 the resonance
    all together     the same again near p0 with the others at theirs, as heat of one shifts the others: ROUNDS times

Rings with the same number in their banks are stepped at once, since each bank has its own photodiode.

The Device: N inputs, M readings, M N heaters, bank by bank. A ring whose reading has no maximum in its range is "dark", one
that the last round still moved is "moving".

Sources: Tait et al., Opt. Express 26, 26422 (2018); Jayatilleka et al., Opt. Express 23, 25084 (2015) (resonances found by what
a ring drops).
"""

from __future__ import annotations

import math
import warnings
from itertools import product
from typing import Any

import torch
from scipy.optimize import OptimizeWarning, curve_fit
from torch import Tensor

from calibration.sequence import Found, Procedure, Subject
from calibration.step import Estimate, Problem, Step
from hil.device import Device, program

LOCK = "lock"
POINTS, REPEATS, ROUNDS = 41, 8, 3
NEAR = 0.15  # of the squared range, to each side, once a resonance is known
LEAST_SHARE = 0.3  # of the median depth; a shallower one is none
MOST_MOVED = 0.5  # widths in the last round


def rings() -> tuple[Procedure, ...]:
    """The sequence for a bank of microrings."""
    return (Procedure(LOCK, lock),)


def lock(subject: Subject, found: Found) -> Step:
    """Estimates "ring 0 0", ..., bank first: the voltage at its resonance; figure "moved": by the last round, in widths.

    Raw: volts (M N,), width (M N,) in V^2, and the sweeps: squares and readings, (N, points, M), of the last round.
    """
    del found
    device, spec = subject.device, subject.device.spec
    n, m = spec.inputs.size, spec.outputs.size
    if n is None or m is None or spec.params is None or spec.params.size != m * n:
        problem = Problem("kind", "this node is no bank of rings", "other channels than N, M and M N", "calibrate it as it is")
        return Step(LOCK, "not a bank of rings", success=(False,), problems=(problem,))
    full = spec.params.shared_high**2
    at, width, depth = torch.zeros(m, n).double(), torch.full((m, n), math.inf).double(), torch.zeros(m, n).double()
    sigma, moved, squares, readings = torch.zeros(m, n).double(), torch.zeros(m, n).double(), Tensor(), Tensor()
    for number in range(1 + ROUNDS):
        middle, reach = (full / 2, full / 2) if number == 0 else (at, NEAR * full)
        steps = torch.linspace(-1, 1, POINTS, dtype=torch.float64)[:, None, None] * reach + middle
        squares = steps.clamp(0, full).expand(POINTS, m, n).permute(2, 0, 1)  # (N, points, M)
        readings = torch.stack([_swept(device, k, squares[k], at if number else at * 0, n) for k in range(n)])
        before = at.clone()
        for k, bank in product(range(n), range(m)):
            at[bank, k], width[bank, k], depth[bank, k], sigma[bank, k] = _resonance(squares[k, :, bank], readings[k, :, bank])
        moved = (at - before).abs() / width
    met = (depth > LEAST_SHARE * depth.median()) & (at > 0) & (at < full)
    good = met & (moved <= MOST_MOVED)
    volts = at.clamp(0, full).sqrt().where(good, torch.zeros(()).double())
    program(device, torch.zeros(m * n))  # cold
    problems = tuple(
        Problem(
            "moving", f"ring {k} of bank {bank} moved in the last round", f"by {float(moved[bank, k]):.2g} widths",
            "heaters warm other rings too much for so few rounds: raise ROUNDS in calibration/rings/lock.py",
        )
        if met[bank, k]
        else Problem(
            "dark", f"ring {k} of bank {bank} does not meet its laser",
            f"depth {float(depth[bank, k]):.2g} {spec.outputs.unit}, typical {float(depth.median()):.2g}",
            "look at its heater; allow it a higher voltage; or move the laser to the blue",
        )
        for bank, k in product(range(m), range(n)) if not good[bank, k]
    )  # fmt: skip
    estimates = {
        f"ring {bank} {k}": Estimate(float(volts[bank, k]), float(sigma[bank, k] / (2 * volts[bank, k])), spec.params.unit)
        for bank, k in product(range(m), range(n)) if good[bank, k]
    }  # fmt: skip
    most = float(moved.where(good, torch.zeros(()).double()).max())
    said = f"{int(good.sum())} of {m * n} rings locked, the last round moved them by {most:.2g} widths at most"
    return Step(
        LOCK, said, estimates, tuple(good.flatten().tolist()), problems, figures={"moved": most},
        raw={"volts": volts.flatten(), "width": width.flatten(), "squares": squares, "readings": readings},
    )  # fmt: skip


def _swept(device: Device, k: int, squares: Tensor, held: Tensor, n: int) -> Tensor:
    """Readings (points, M) of laser k, ring k of every bank at these squares (points, M), the others held (M, N)."""
    assert device.spec.params is not None
    high = device.spec.params.shared_high
    light = torch.zeros(REPEATS, n)
    light[:, k] = 1.0
    found = []
    for row in squares:
        now = held.clone()
        now[:, k] = row
        program(device, now.clamp(min=0).sqrt().flatten().float().clamp(0, high))
        found.append(device.forward(light).double().mean(0))
    return torch.stack(found)


def _resonance(squares: Tensor, readings: Tensor) -> tuple[float, float, float, float]:
    """Return p0, the width, the depth, and sigma of p0; the depth is 0 and p0 the brightest point where there is no maximum."""
    p, y = squares.numpy(), readings.numpy()
    top, span = int(y.argmax()), float(p[-1] - p[0])

    def line(at: Any, /, peak: float, depth: float, p0: float, width: float) -> Any:
        return peak - depth * (1 - 1 / (1 + ((at - p0) / width) ** 2))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # a covariance that is infinite: no resonance, see below
            found, covariance = curve_fit(line, p, y, (y[top], y[top] - y.min(), p[top], span / 12), maxfev=2000)
    except RuntimeError:
        return float(p[top]), math.inf, 0.0, 0.0
    _, depth, p0, width = (float(value) for value in found)
    if not (p[0] <= p0 <= p[-1] and depth > 0 and math.isfinite(covariance[2, 2])):
        return float(p[top]), math.inf, 0.0, 0.0
    return p0, abs(width), depth, math.sqrt(covariance[2, 2])
