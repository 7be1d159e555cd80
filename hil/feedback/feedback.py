"""The feedback of aDFA in place of the derivative: a function g and one fixed random matrix B per hidden layer.

    delta_l = ( B_l e ) * g( a_l )           e the error at the readout, a_l the pre-activation of layer l

Source: Nakajima et al., Nat. Commun. 13, 7847 (2022), augmented direct feedback alignment; g may be almost any function.
Everything here is a value: it prints, compares, goes to a plain table (TOML) and comes back the same.

Scale of B: the entries have the root mean square `scale`, whichever the distribution, rank or sparsity, so that one of them
can be exchanged for another at the same learning rate. It is that of many draws; one draw of low rank may be a quarter off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from hil import toml
from hil.errors import UNTOUCHED, ConfigError
from hil.feedback.functions import (
    FAMILIES,
    ArctanSlope,
    Box,
    Constant,
    Fourier,
    Function,
    Gaussian,
    Shaped,
    Sine,
    Tabulated,
    from_table,
    meant,
    to_table,
)
from hil.feedback.tables import lines, plain
from hil.files import read_text, write_atomic
from hil.settings import Count, Positive, Share, arguments, check, shortened

__all__ = [
    "FAMILIES",
    "ArctanSlope",
    "Box",
    "Constant",
    "Distribution",
    "Feedback",
    "Fourier",
    "Function",
    "Gaussian",
    "Shaped",
    "Sine",
    "Tabulated",
    "correlation",
    "from_table",
    "matrix",
    "to_table",
]

Distribution = Literal["uniform", "normal", "sign", "orthogonal"]
PROVENANCE = "provenance"  # a table that a file may hold beside the value: where it came from
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Feedback:
    """A g, and how the matrices B are drawn.

    Args:
        g: in place of the derivative of the node, a function of the pre-activation.
        distribution: of the entries of B.
        scale: root mean square of the entries.
        rank: of each B, at most; None: full.
        sparsity: share of entries that are 0; with a rank, of the entries of its left factor, so that the rank holds.

    Each of the last four is one value for all hidden layers, or one for each of them.
    """

    g: Function
    distribution: Distribution | tuple[Distribution, ...] = "uniform"
    scale: Positive | tuple[Positive, ...] = 0.1
    rank: Count | tuple[Count, ...] | None = None
    sparsity: Share | tuple[Share, ...] = 0.0

    def __post_init__(self) -> None:
        check(self, "feedback")

    def matrices(self, rows: Sequence[int], classes: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw one B (rows_l, classes) per hidden layer, in the order of the layers.

        Raises:
            ConfigError: as many scales (ranks, ...) as hidden layers are needed, or one for all.
        """
        count = len(rows)
        distributions: tuple[Distribution, ...] = _layers(self.distribution, count, "distribution")
        ranks = _layers(self.rank, count, "rank")
        scales, sparsities = _layers(self.scale, count, "scale"), _layers(self.sparsity, count, "sparsity")
        return tuple(
            matrix(n, classes, distribution, rng, scale, rank, sparsity)
            for n, distribution, scale, rank, sparsity in zip(rows, distributions, scales, ranks, sparsities, strict=True)
        )

    def to_table(self) -> dict[str, object]:
        """Plain values for TOML; an absent rank is left out."""
        table = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "g"}
        return {key: value for key, value in table.items() if value is not None} | {"g": to_table(self.g)}

    @classmethod
    def from_table(cls, table: Mapping[str, object], where: str = "feedback") -> Feedback:
        """The inverse of `to_table`; all but `g` may be left out. A table "provenance" is not read.

        Raises:
            ConfigError: unknown key (the nearest is named), or a value of the wrong kind.
        """
        g = table.get("g")
        if not isinstance(g, Mapping):
            known = f'a table with one of the families {", ".join(FAMILIES)}, as {{ family = "sine", phase = 1.2 }}'
            what = "g is missing" if g is None else "g is a table, which names its family"
            todo = f"write g = {meant(g)}" if isinstance(g, str) else 'write g = { family = "sine" }'
            got = "" if g is None else shortened(g)
            raise ConfigError(what, where=where, got=got, allowed=known, outputs=UNTOUCHED, todo=todo)
        settings = {key: value for key, value in table.items() if key not in ("g", PROVENANCE)}
        return cls(g=from_table(g, f"{where} g"), **arguments(cls, settings, where, skip=("g",), besides=("g", PROVENANCE)))

    def text(self, provenance: Mapping[str, object] | None = None) -> str:
        """Write it as TOML, with where it came from if that is known."""
        table = self.to_table()
        g = table.pop("g")
        assert isinstance(g, Mapping)
        found = [*lines(table), "", "[g]", *lines(g)]
        if provenance is not None:
            found += ["", f"[{PROVENANCE}]", *lines(provenance)]
        return "\n".join(found) + "\n"

    def save(self, path: Path) -> None:
        """Write as TOML."""
        write_atomic(path, self.text().encode())

    @classmethod
    def load(cls, path: Path) -> Feedback:
        """Read what `save` wrote, or a person.

        Raises:
            ConfigError: missing, not TOML, or not a feedback.
        """
        try:
            table = toml.loads(read_text(path, error=ConfigError))
        except ValueError as error:
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
        rows: values of the layer.
        classes: length of the error.
        distribution: "uniform", "normal", "sign" (plus or minus scale), or "orthogonal" (orthonormal columns, or rows).
        rng: draws it.
        scale: root mean square of the entries.
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


def correlation(g_values: Tensor, slope_values: Tensor) -> float:
    """Return how alike g and the true derivative are over the pre-activations really visited, -1 to 1.

    It is <g, f'> / sqrt(<g, g> <f', f'>), the means removed. The sign is irrelevant: a random B absorbs it.

    Args:
        g_values: g at the pre-activations, any shape.
        slope_values: f' at the same pre-activations, same shape.

    Returns:
        0 where one of them is constant.
    """
    g, slope = g_values.cpu().double().flatten(), slope_values.cpu().double().flatten()
    return _cosine(g - g.mean(), slope - slope.mean())


def _cosine(a: Tensor, b: Tensor) -> float:
    norm = float(a.norm() * b.norm())
    tiny = 1e-12 * a.numel()  # rounding of the mean of a constant
    return float(a @ b) / norm if not norm <= tiny else 0.0


def _layers(value: T | tuple[T, ...], count: int, name: str) -> tuple[T, ...]:
    values = value if isinstance(value, tuple) else (value,) * count
    if len(values) != count:
        raise ConfigError(
            f"the feedback {name}s do not fit the network",
            where=f"feedback {name}",
            got=f"{len(values)} {name}s for {count} hidden layers",
            allowed="one number, or one per hidden layer",
        )
    return values
