"""What aDFA uses in place of the derivative: a function g and one fixed random matrix B per hidden layer.

    delta_l = ( B_l e ) * g( a_l )           e the error at the readout, a_l the pre-activation of layer l

Source: Nakajima et al., Nat. Commun. 13, 7847 (2022), augmented direct feedback alignment; g may be almost any function.
Everything here is a value: it prints, compares, goes to a plain table (TOML) and comes back the same.

Scale of B: the entries have the root mean square `scale`, whichever the distribution, rank or sparsity, so that one of them
can be exchanged for another at the same learning rate. It is that of many draws; one draw of low rank may be a quarter off.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from hil.errors import ConfigError

Distribution = Literal["uniform", "normal", "sign", "orthogonal"]


@dataclass(frozen=True, slots=True)
class Fourier:
    """sum_k [ sin_k sin(k pi a / L) + cos_k cos(k pi a / L) ], k = 1 .. N.

    Args:
        sin, cos: the N coefficients each. half_period: L, in units of the pre-activation.
    """

    sin: tuple[float, ...]
    cos: tuple[float, ...]
    half_period: float = 1.0

    def __post_init__(self) -> None:
        _finite("fourier", *self.sin, *self.cos)
        _positive("fourier", half_period=self.half_period)
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
        _finite("sine", self.amplitude, self.frequency, self.phase, self.offset)

    def __call__(self, pre: Tensor) -> Tensor:
        value = (pre * self.frequency).add_(self.phase).sin_()
        return value.mul_(self.amplitude).add_(self.offset)


@dataclass(frozen=True, slots=True)
class Box:
    """1 where |a - centre| < half_width, else 0."""

    half_width: float = 0.5
    centre: float = 0.0

    def __post_init__(self) -> None:
        _finite("box", self.centre)
        _positive("box", half_width=self.half_width)

    def __call__(self, pre: Tensor) -> Tensor:
        return (pre - self.centre).abs_().lt_(self.half_width)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """exp( -(a - centre)^2 / (2 width^2) )."""

    width: float = 1.0
    centre: float = 0.0

    def __post_init__(self) -> None:
        _finite("gaussian", self.centre)
        _positive("gaussian", width=self.width)

    def __call__(self, pre: Tensor) -> Tensor:
        return (pre - self.centre).square_().mul_(-0.5 / self.width**2).exp_()


@dataclass(frozen=True, slots=True)
class ArctanSlope:
    """Derivative of arctan(pi/2 alpha u) / pi with u = a - centre: (alpha / 2) / ( 1 + (pi/2 alpha u)^2 )."""

    alpha: float = 2.0
    centre: float = 0.0

    def __post_init__(self) -> None:
        _finite("arctan_slope", self.centre)
        _positive("arctan_slope", alpha=self.alpha)

    def __call__(self, pre: Tensor) -> Tensor:
        steep = 0.5 * math.pi * self.alpha
        return (pre - self.centre).mul_(steep).square_().add_(1).reciprocal_().mul_(0.5 * self.alpha)


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value everywhere: no derivative at all."""

    value: float = 1.0

    def __post_init__(self) -> None:
        _finite("constant", self.value)

    def __call__(self, pre: Tensor) -> Tensor:
        return torch.full_like(pre, self.value)


@dataclass(frozen=True, slots=True)
class Tabulated:
    """Straight lines between the points (x, y), x rising; outside, the first or the last y holds. NaN stays NaN."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        _finite("tabulated", *self.x, *self.y)
        rising = all(a < b for a, b in zip(self.x, self.x[1:], strict=False))
        if len(self.x) < 2 or len(self.x) != len(self.y) or not rising:
            raise ConfigError(
                "not a table",
                where="feedback g tabulated",
                got=f"{len(self.x)} x, {len(self.y)} y" + ("" if rising else ", x not rising"),
                allowed="two points or more, as many y as x, every x above the one before",
            )

    def __call__(self, pre: Tensor) -> Tensor:
        x = torch.tensor(self.x, dtype=pre.dtype, device=pre.device)
        y = torch.tensor(self.y, dtype=pre.dtype, device=pre.device)
        inside = pre.clamp(self.x[0], self.x[-1])
        right = torch.searchsorted(x, inside.contiguous()).clamp_(1, len(self.x) - 1)
        left = right - 1
        share = (inside - x[left]) / (x[right] - x[left])
        return torch.lerp(y[left], y[right], share)


Function = Fourier | Sine | Box | Gaussian | ArctanSlope | Constant | Tabulated
FAMILIES: Mapping[str, type[Function]] = {
    "fourier": Fourier,
    "sine": Sine,
    "box": Box,
    "gaussian": Gaussian,
    "arctan_slope": ArctanSlope,
    "constant": Constant,
    "tabulated": Tabulated,
}


def to_table(g: Function) -> dict[str, object]:
    """A plain table: {"family": "sine", "amplitude": 1.0, ...}."""
    family = next(name for name, kind in FAMILIES.items() if type(g) is kind)
    return {"family": family} | {f.name: _plain(getattr(g, f.name)) for f in fields(g)}


def from_table(table: Mapping[str, object], where: str = "feedback g") -> Function:
    """The inverse of `to_table`; parameters left out take their defaults.

    Raises:
        ConfigError: unknown family or parameter (the nearest is named), or a value of the wrong kind.
    """
    family = table.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise _unknown("family of g", str(family), FAMILIES, where)
    settings = {key: value for key, value in table.items() if key != "family"}
    return _made(FAMILIES[family], settings, f"{where} {family}")


@dataclass(frozen=True, slots=True)
class Feedback:
    """A g, and how the matrices B are drawn.

    Args:
        g: in place of the derivative of the node, a function of the pre-activation.
        distribution: of the entries of B.
        scale: root mean square of the entries, for all layers, or one per hidden layer.
        rank: of each B, at most; None: full.
        sparsity: share of entries that are 0; with a rank, of the entries of its left factor, so that the rank holds.
    """

    g: Function
    distribution: Distribution = "uniform"
    scale: float | tuple[float, ...] = 0.1
    rank: int | None = None
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        if self.distribution not in get_args(Distribution):
            raise _unknown("distribution of B", self.distribution, get_args(Distribution), "feedback")
        for scale in self.scale if isinstance(self.scale, tuple) else (self.scale,):
            _positive("feedback", scale=scale)
        if self.rank is not None and self.rank < 1:
            raise ConfigError("the rank of B is at least 1", where="feedback", got=f"rank {self.rank}")
        if not 0 <= self.sparsity < 1:
            raise ConfigError("not a share", where="feedback", got=f"sparsity {self.sparsity}", allowed="0 up to, not 1")

    def matrices(self, rows: Sequence[int], classes: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """One B (rows_l, classes) per hidden layer, drawn in the order of the layers.

        Raises:
            ConfigError: as many scales as hidden layers are needed, or one for all.
        """
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,) * len(rows)
        if len(scales) != len(rows):
            raise ConfigError(
                "the feedback scales do not fit the network",
                where="feedback scale",
                got=f"{len(scales)} scales for {len(rows)} hidden layers",
                allowed="one number, or one per hidden layer",
            )
        return tuple(
            matrix(n, classes, self.distribution, rng, scale, self.rank, self.sparsity)
            for n, scale in zip(rows, scales, strict=True)
        )

    def to_table(self) -> dict[str, object]:
        """Plain values for TOML; an absent rank is left out."""
        table = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name != "g"}
        return {key: value for key, value in table.items() if value is not None} | {"g": to_table(self.g)}

    @classmethod
    def from_table(cls, table: Mapping[str, object], where: str = "feedback") -> Feedback:
        """The inverse of `to_table`; all but `g` may be left out.

        Raises:
            ConfigError: unknown key (the nearest is named), or a value of the wrong kind.
        """
        g = table.get("g")
        if not isinstance(g, Mapping):
            raise ConfigError("g is missing", where=where, got=repr(g), allowed='a table such as { family = "sine" }')
        settings = {key: value for key, value in table.items() if key != "g"}
        _check_keys(cls, settings, where, besides=("g",))
        values = {key: _value(_kind(cls, key), value, f"{where} {key}") for key, value in settings.items()}
        return cls(g=from_table(g, f"{where} g"), **values)

    def save(self, path: Path) -> None:
        """Write as TOML."""
        table = self.to_table()
        g = table.pop("g")
        assert isinstance(g, Mapping)
        lines = [f"{key} = {_toml(value)}" for key, value in table.items()]
        lines += ["", "[g]"] + [f"{key} = {_toml(value)}" for key, value in g.items()]
        path.write_text("\n".join(lines) + "\n")

    @classmethod
    def load(cls, path: Path) -> Feedback:
        """Read what `save` wrote, or a person.

        Raises:
            ConfigError: missing, not TOML, or not a feedback.
        """
        try:
            table = tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                "not a feedback file", where=str(path), got=str(error), allowed="TOML with a table [g]",
                outputs="untouched; nothing was opened",
            ) from error  # fmt: skip
        return cls.from_table(table, where=str(path))


def matrix(
    rows: int,
    classes: int,
    distribution: Distribution,
    rng: torch.Generator,
    scale: float = 1.0,
    rank: int | None = None,
    sparsity: float = 0.0,
) -> Tensor:
    """B (rows, classes), float32, on the device of `rng`; its entries have the root mean square `scale`.

    Args:
        distribution: "uniform", "normal", "sign" (plus or minus scale), or "orthogonal" (orthonormal columns, or rows).
        rank: B = U V / sqrt(rank) with factors of that distribution; None, or no less than min(rows, classes): full.
        sparsity: share of zeros, each entry for itself; in U alone if there is a rank.
    """
    if rank is None or rank >= min(rows, classes):
        return _sparse(_dense(rows, classes, distribution, rng), sparsity, rng) * scale
    left = _sparse(_dense(rows, rank, distribution, rng), sparsity, rng)
    return left @ _dense(rank, classes, distribution, rng) * (scale / math.sqrt(rank))


def _dense(rows: int, columns: int, distribution: Distribution, rng: torch.Generator) -> Tensor:
    """Entries of mean square 1."""
    shape, place = (rows, columns), rng.device
    if distribution == "uniform":
        return (torch.rand(shape, generator=rng, device=place) * 2 - 1) * math.sqrt(3)
    if distribution == "sign":
        return torch.randint(0, 2, shape, generator=rng, device=place).float() * 2 - 1
    normal = torch.randn(shape, generator=rng, device=place)
    if distribution == "normal":
        return normal
    tall = normal if rows >= columns else normal.t()
    q, r = torch.linalg.qr(tall)
    signed: Tensor = q * r.diagonal().sign()  # makes the distribution uniform over rotations (Mezzadri 2007)
    return (signed if rows >= columns else signed.t()).contiguous() * math.sqrt(max(rows, columns))


def _sparse(full: Tensor, sparsity: float, rng: torch.Generator) -> Tensor:
    if not sparsity:
        return full
    kept = torch.rand(full.shape, generator=rng, device=full.device) >= sparsity
    return full * kept / math.sqrt(1 - sparsity)


class Correlation(NamedTuple):
    """How alike g and the true derivative are, -1 to 1. The sign is irrelevant: a random B absorbs it."""

    cosine: float
    centred: float


def correlation(g_values: Tensor, slope_values: Tensor) -> Correlation:
    """<g, f'> / sqrt(<g, g> <f', f'>), plain and with the means removed, over the pre-activations really visited.

    Args:
        g_values, slope_values: g and f' at the same pre-activations, any shape, the same for both.
    Returns:
        0 where one of them vanishes (or, centred, is constant).
    """
    g, slope = g_values.cpu().double().flatten(), slope_values.cpu().double().flatten()
    return Correlation(_cosine(g, slope), _cosine(g - g.mean(), slope - slope.mean()))


def _cosine(a: Tensor, b: Tensor) -> float:
    norm = float(a.norm() * b.norm())
    tiny = 1e-12 * a.numel()  # rounding of the mean of a constant
    return float(a @ b) / norm if not norm <= tiny else 0.0


# Tables: one reader for all the values above.


def _made(kind: type[Function], settings: Mapping[str, object], where: str) -> Function:
    _check_keys(kind, settings, where)
    values: dict[str, Any] = {key: _value(_kind(kind, key), value, f"{where} {key}") for key, value in settings.items()}
    try:
        return kind(**values)
    except TypeError as error:  # a parameter without a default was left out
        raise ConfigError("a parameter is missing", where=where, got=", ".join(settings) or "none", todo=str(error)) from error


def _check_keys(kind: type, settings: Mapping[str, object], where: str, besides: tuple[str, ...] = ()) -> None:
    known = [f.name for f in fields(kind)]
    for key in settings:
        if key not in known:
            raise _unknown("key", key, (*known, *besides), where)


def _kind(kind: type, key: str) -> str:
    return next(str(f.type) for f in fields(kind) if f.name == key)


def _value(kind: str, value: object, where: str) -> Any:
    """`value` as the annotation `kind` wants it: numbers to float, lists to tuples."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if "float" in kind and number:
        return float(value)  # type: ignore[arg-type]
    if "int" in kind and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "Distribution" and isinstance(value, str):
        return value
    if "tuple" in kind and isinstance(value, list | tuple):
        return tuple(_value("float", item, where) for item in value)
    raise ConfigError("a value of the wrong kind", where=where, got=repr(value), allowed=kind.replace("tuple", "list"))


def _unknown(what: str, got: str, known: Sequence[str] | Mapping[str, object], where: str) -> ConfigError:
    near = difflib.get_close_matches(got, list(known), n=1, cutoff=0.0)
    return ConfigError(f"unknown {what}", where=where, got=got, allowed=", ".join(known), todo=f"did you mean {near[0]}?")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _toml(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _finite(family: str, *values: float) -> None:
    if not all(math.isfinite(value) for value in values):
        raise ConfigError("parameters must be finite", where=f"feedback g {family}", got=str(values))


def _positive(family: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} must be positive", where=family, got=str(value), allowed="above 0, finite")
