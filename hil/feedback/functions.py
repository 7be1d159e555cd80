"""The functions g that can stand in place of a derivative: values that print, compare and go to a plain table and back.

Each is called with pre-activations of any shape, and gives a new tensor of the same shape and dtype; NaN in, NaN out, but for
Constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hil.errors import UNTOUCHED, ConfigError, nearest
from hil.feedback.tables import plain
from hil.settings import Positive, arguments, check, no_such


@dataclass(frozen=True, slots=True)
class Fourier:
    """sum_k [ sin_k sin(k pi a / L) + cos_k cos(k pi a / L) ], k = 1 .. N.

    Args:
        sin, cos: the N coefficients each.
        half_period: L, in units of the pre-activation.
    """

    sin: tuple[float, ...]
    cos: tuple[float, ...]
    half_period: Positive = 1.0

    def __post_init__(self) -> None:
        check(self, "feedback g fourier")
        if not self.sin or len(self.sin) != len(self.cos):
            raise ConfigError(
                "sin and cos need as many coefficients, at least one",
                where="feedback g fourier",
                got=f"{len(self.sin)} and {len(self.cos)}",
            )

    @classmethod
    def random(cls, rng: torch.Generator, terms: int = 4, half_period: float = 1.0) -> Fourier:
        """Coefficients uniform in (-1, 1), then scaled so that their squares sum to 1, as those of a unit sine do."""
        draws = torch.rand(2 * terms, generator=rng, dtype=torch.float64, device=rng.device) * 2 - 1
        unit = (draws / draws.norm()).tolist()
        return cls(tuple(unit[:terms]), tuple(unit[terms:]), half_period)

    def __call__(self, pre: Tensor) -> Tensor:
        """Clenshaw's recurrence: two trigonometric functions, however many terms."""
        angle = pre * (math.pi / self.half_period)
        sine, cosine = angle.sin(), angle.cos_()
        twice = 2 * cosine
        s1 = s2 = c1 = c2 = torch.zeros_like(pre)
        for p, q in zip(reversed(self.sin), reversed(self.cos), strict=True):
            s1, s2 = (twice * s1).sub_(s2).add_(p), s1
            c1, c2 = (twice * c1).sub_(c2).add_(q), c1
        return sine.mul_(s1).addcmul_(cosine, c1).sub_(c2)


@dataclass(frozen=True, slots=True)
class Sine:
    """offset + amplitude sin( frequency a + phase ): frequency in rad per unit of pre-activation, phase in rad."""

    amplitude: float = 1.0
    frequency: float = 1.0
    phase: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        check(self, "feedback g sine")

    def __call__(self, pre: Tensor) -> Tensor:
        """Return g at `pre`, same shape."""
        value = (pre * self.frequency).add_(self.phase).sin_()
        return value.mul_(self.amplitude).add_(self.offset)


@dataclass(frozen=True, slots=True)
class Box:
    """1 where |a - centre| < half_width, else 0."""

    half_width: Positive = 0.5
    centre: float = 0.0

    def __post_init__(self) -> None:
        check(self, "feedback g box")

    def __call__(self, pre: Tensor) -> Tensor:
        """Return g at `pre`, same shape: 1 inside the box, 0 outside."""
        return (pre - self.centre).abs_().lt_(self.half_width)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """exp( -(a - centre)^2 / (2 width^2) )."""

    width: Positive = 1.0
    centre: float = 0.0

    def __post_init__(self) -> None:
        check(self, "feedback g gaussian")

    def __call__(self, pre: Tensor) -> Tensor:
        """Return g at `pre`, same shape."""
        return (pre - self.centre).square_().mul_(-0.5 / self.width**2).exp_()


@dataclass(frozen=True, slots=True)
class ArctanSlope:
    """Derivative of arctan(pi/2 alpha u) / pi with u = a - centre: (alpha / 2) / ( 1 + (pi/2 alpha u)^2 )."""

    alpha: Positive = 2.0
    centre: float = 0.0

    def __post_init__(self) -> None:
        check(self, "feedback g arctan_slope")

    def __call__(self, pre: Tensor) -> Tensor:
        """Return g at `pre`, same shape."""
        steep = 0.5 * math.pi * self.alpha
        return (pre - self.centre).mul_(steep).square_().add_(1).reciprocal_().mul_(0.5 * self.alpha)


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value everywhere: no derivative at all."""

    value: float = 1.0

    def __post_init__(self) -> None:
        check(self, "feedback g constant")

    def __call__(self, pre: Tensor) -> Tensor:
        """Return g at `pre`, same shape: the same everywhere."""
        return torch.full_like(pre, self.value)


@dataclass(frozen=True, slots=True)
class Tabulated:
    """Straight lines between the points (x, y), x rising; outside, the first or the last y holds. NaN stays NaN."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        check(self, "feedback g tabulated")
        rising = all(a < b for a, b in zip(self.x, self.x[1:], strict=False))
        if len(self.x) < 2 or len(self.x) != len(self.y) or not rising:
            raise ConfigError(
                "not a table",
                where="feedback g tabulated",
                got=f"{len(self.x)} x, {len(self.y)} y" + ("" if rising else ", x not rising"),
                allowed="two points or more, as many y as x, every x above the one before",
            )

    def __call__(self, pre: Tensor) -> Tensor:
        """Return g at `pre`, same shape: linear between the points, constant beyond them."""
        x = torch.tensor(self.x, dtype=pre.dtype, device=pre.device)
        y = torch.tensor(self.y, dtype=pre.dtype, device=pre.device)
        inside = pre.clamp(self.x[0], self.x[-1])
        right = torch.searchsorted(x, inside.contiguous()).clamp_(1, len(self.x) - 1)
        left = right - 1
        share = (inside - x[left]) / (x[right] - x[left])
        return torch.lerp(y[left], y[right], share)


@dataclass(frozen=True, slots=True)
class Shaped:
    """offset + amplitude of(a), then held inside -clip .. clip; clip = None holds nothing."""

    of: Function
    amplitude: float = 1.0
    offset: float = 0.0
    clip: Positive | None = None

    def __post_init__(self) -> None:
        check(self, "feedback g shaped")
        if isinstance(self.of, Shaped):
            raise ConfigError("a shaped function is not shaped again", where="feedback g shaped", got="shaped of shaped")

    def __call__(self, pre: Tensor) -> Tensor:
        """Return g at `pre`, same shape: the inner function times amplitude, plus offset, clipped."""
        value = self.of(pre) * self.amplitude
        value.add_(self.offset)
        return value if self.clip is None else value.clamp_(-self.clip, self.clip)


Function = Fourier | Sine | Box | Gaussian | ArctanSlope | Constant | Tabulated | Shaped
FAMILIES: Mapping[str, type[Function]] = {
    "fourier": Fourier,
    "sine": Sine,
    "box": Box,
    "gaussian": Gaussian,
    "arctan_slope": ArctanSlope,
    "constant": Constant,
    "tabulated": Tabulated,
    "shaped": Shaped,
}


ALIKE = dict.fromkeys(("cos", "cosine"), f'{{ family = "sine", phase = {math.pi / 2:.4f} }}')
"""Functions that people name, and that a family of ours is."""


def to_table(g: Function) -> dict[str, object]:
    """A plain table: {"family": "sine", "amplitude": 1.0, ...}; what is None is left out."""
    family = next(name for name, kind in FAMILIES.items() if type(g) is kind)
    values = {f.name: getattr(g, f.name) for f in fields(g)}
    shown = {key: to_table(value) if key == "of" else plain(value) for key, value in values.items() if value is not None}
    return {"family": family, **shown}


def meant(name: str) -> str:
    """The table of the family that somebody means by `name`: a family of ours, or a function that one of them is.

    >>> meant("cos")
    '{ family = "sine", phase = 1.5708 }'
    """
    name = name.strip().casefold()
    return ALIKE.get(name) or f'{{ family = "{nearest(name, FAMILIES) or "sine"}" }}, or another of these families'


def from_table(table: Mapping[str, object], where: str = "feedback g") -> Function:
    """The inverse of `to_table`; parameters left out take their defaults.

    Raises:
        ConfigError: unknown family or parameter (the nearest is named), or a value of the wrong kind.
    """
    family = table.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        error = no_such("family of g", str(family), FAMILIES, where)
        error.outputs = UNTOUCHED
        if str(family).casefold() in ALIKE:
            error.todo = f"write g = {meant(str(family))}"
        raise error
    kind, place = FAMILIES[family], f"{where} {family}"
    inner = table.get("of") if kind is Shaped else None
    apart = ("family", "of") if isinstance(inner, Mapping) else ("family",)
    given = {key: value for key, value in table.items() if key not in apart}
    of = {"of": from_table(inner, f"{place} of")} if isinstance(inner, Mapping) else {}
    return kind(**arguments(kind, {**given, **of}, place))
