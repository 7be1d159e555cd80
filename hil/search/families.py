"""The families of g that a vector of numbers describes: which genes each has, in which range, and what they make.

    fourier    sin1 .. sinN, cos1 .. cosN in (-1, 1), made a vector of length 1; half_period
    sine       frequency, phase                box   half_width, centre            gaussian   width, centre
    spline     y1 .. yK at K knots from -reach to reach; the natural cubic spline through them, tabulated

The g of every family is then shaped: offset + amplitude g, held inside -clip .. clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from hil.feedback.feedback import Box, Fourier, Function, Gaussian, Shaped, Sine, Tabulated

Numbers = Mapping[str, float]
Range = tuple[float, float]
LOGARITHMIC = ("half_period", "frequency", "half_width", "width", "amplitude", "clip", "scale", "lr")
WHOLE = ("rank",)
POINTS_A_KNOT = 6


@dataclass(frozen=True, slots=True)
class Family:
    """A family of functions g.

    Args:
        ranges: of its own genes.
        make: their values -> g.
    """

    ranges: Mapping[str, Range]
    make: Callable[[Numbers], Function]


def family(name: str, terms: int = 4, knots: int = 9, reach: float = 3.0) -> Family:
    """Return a family by its name.

    Args:
        name: one of FAMILIES.
        terms: of a Fourier series.
        knots: of a spline.
        reach: of a spline, in units of the pre-activation.

    Raises:
        KeyError: no such family; FAMILIES lists them.
    """
    return FAMILIES[name](terms, knots, reach)


def _fourier(terms: int, knots: int, reach: float) -> Family:
    names = [f"{kind}{k}" for kind in ("sin", "cos") for k in range(1, terms + 1)]

    def make(values: Numbers) -> Function:
        draws = [values[name] for name in names]
        length = math.hypot(*draws)
        unit = [value / length for value in draws] if length > 1e-9 else [1.0] + [0.0] * (2 * terms - 1)
        return Fourier(tuple(unit[:terms]), tuple(unit[terms:]), values["half_period"])

    return Family({**dict.fromkeys(names, (-1.0, 1.0)), "half_period": (0.7, 8.0)}, make)


def _sine(terms: int, knots: int, reach: float) -> Family:
    ranges = {"frequency": (0.2, 6.0), "phase": (-math.pi, math.pi)}
    return Family(ranges, lambda v: Sine(frequency=v["frequency"], phase=v["phase"]))


def _box(terms: int, knots: int, reach: float) -> Family:
    return Family({"half_width": (0.1, 4.0), "centre": (-2.0, 2.0)}, lambda v: Box(v["half_width"], v["centre"]))


def _gaussian(terms: int, knots: int, reach: float) -> Family:
    return Family({"width": (0.1, 4.0), "centre": (-2.0, 2.0)}, lambda v: Gaussian(v["width"], v["centre"]))


def _spline(terms: int, knots: int, reach: float) -> Family:
    names = [f"y{k}" for k in range(1, knots + 1)]
    at = np.linspace(-reach, reach, knots)
    fine = np.linspace(-reach, reach, POINTS_A_KNOT * (knots - 1) + 1)

    def make(values: Numbers) -> Function:
        line = CubicSpline(at, [values[name] for name in names], bc_type="natural")
        return Tabulated(tuple(fine.tolist()), tuple(line(fine).tolist()))

    return Family(dict.fromkeys(names, (-1.0, 1.0)), make)


FAMILIES: Mapping[str, Callable[[int, int, float], Family]] = {
    "fourier": _fourier,
    "sine": _sine,
    "box": _box,
    "gaussian": _gaussian,
    "spline": _spline,
}


def shaped(g: Function, values: Mapping[str, float | None]) -> Function:
    """Return g with amplitude, offset and clip, as far as these change anything."""
    amplitude, offset, clip = values.get("amplitude"), values.get("offset"), values.get("clip")
    if (amplitude is None or amplitude == 1.0) and not offset and clip is None:
        return g
    return Shaped(g, 1.0 if amplitude is None else amplitude, offset or 0.0, clip)
