"""Metrics: numbers that say how good outputs are, and which way is better.

    nrmse            sqrt( mean_c  mean_n (o_nc - y_nc)^2 / var_n y_nc )          r2 = 1 - nrmse^2

What only reads results imports this and not torch, which takes two seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from hil.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["classes", "numbers"]
Judge: TypeAlias = "Callable[[Tensor, Tensor], Any]"  # (outputs (n, k), targets) -> one number
MOST_SYMBOLS = 256
TITLES = {"nrmse": "NRMSE", "r2": "R²"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that says how good outputs are.

    Args:
        name: as results have it: "test_" + name.
        of: (outputs (n, k), targets) -> the number.
        lower: smaller is better.
        kinds: of targets that it can judge.
        share: 0 to 1, shown in per cent.
    """

    name: str
    of: Judge
    lower: bool = False
    kinds: tuple[Kind, ...] = get_args(Kind)
    share: bool = False

    @property
    def title(self) -> str:
        """The name as people read it."""
        return TITLES.get(self.name, self.name.replace("_", " "))

    @property
    def way(self) -> str:
        """Say which way is better."""
        return "lower is better" if self.lower else "higher is better"

    def better(self, value: float, than: float | None) -> bool:
        """True if `value` is better than `than`; anything is better than None, and NaN than nothing."""
        return not math.isnan(value) and (than is None or (value < than if self.lower else value > than))

    def best(self, values: Sequence[float]) -> float:
        """The best of several."""
        return min(values) if self.lower else max(values)

    def worst(self, values: Sequence[float]) -> float:
        """The worst of several."""
        return max(values) if self.lower else min(values)

    def shown(self, value: float, digits: int = 1) -> str:
        """The value for people, with so many digits of the per cent."""
        return f"{value:.{digits}%}" if self.share else f"{value:.{digits + 3}g}"

    def said(self, value: float) -> str:
        """The value for people, after the name of the metric unless it is accuracy."""
        return f"{'' if self.name == 'accuracy' else f'{self.title} '}{self.shown(value)}"

    @property
    def merit_title(self) -> str:
        """The title of `merit`, for people."""
        return f"1 - {self.title}" if self.lower else self.title

    def merit(self, value: float) -> float:
        """The value as a search compares it, 0 (no better than a guess) to 1: 1 - value if lower is better, never below 0."""
        return max(0.0, 1 - value if self.lower else value)


# ---- metrics --------------------------------------------------------------------------------------------------------------


def accuracy(scores: Tensor, label: Tensor) -> float:
    """Share of the examples whose class has the largest score."""
    return float((scores.argmax(1) == label).float().mean())


def balanced_accuracy(scores: Tensor, label: Tensor) -> float:
    """Mean over the classes of the share of their examples that are right."""
    right = (scores.argmax(1) == label).double()
    count = label.bincount(minlength=scores.shape[1]).double()
    found = label.bincount(right, minlength=scores.shape[1])
    return float((found / count)[count > 0].mean())


def nrmse(outputs: Tensor, target: Tensor) -> float:
    """Root mean square error over the standard deviation of the targets; 1 is what their mean gets."""
    return math.sqrt(_unexplained(outputs, target))


def r2(outputs: Tensor, target: Tensor) -> float:
    """Share of the variance of the targets that is explained, mean over the outputs."""
    return 1 - _unexplained(outputs, target)


def _unexplained(outputs: Tensor, target: Tensor) -> float:
    wanted = target.double()
    error = (outputs.double() - wanted).square().mean(0)
    return float((error / (wanted - wanted.mean(0)).square().mean(0)).mean())


def memory_capacity(outputs: Tensor, target: Tensor) -> float:
    """Sum over the outputs of the squared correlation with their targets: of delays of one input, the memory of a reservoir."""
    given, wanted = (part.double() - part.double().mean(0) for part in (outputs, target))
    spread = given.square().sum(0) * wanted.square().sum(0)
    return float(((given * wanted).sum(0).square() / spread.clamp(min=1e-300)).sum())


def symbol_error_rate(outputs: Tensor, target: Tensor) -> float:
    """Share of the symbols read wrong: classes, or the level of the targets that an output is nearest to."""
    if not target.is_floating_point():
        return 1 - accuracy(outputs, target)
    return _levels_missed(outputs, target, MOST_SYMBOLS)


def bit_error_rate(outputs: Tensor, target: Tensor) -> float:
    """Share of the bits read wrong: those of the number of a class, or targets of two levels."""
    if target.is_floating_point():
        return _levels_missed(outputs, target, 2)
    bits = max(1, (outputs.shape[1] - 1).bit_length())
    wrong = outputs.argmax(1) ^ target
    return sum(float((wrong >> bit & 1).double().sum()) for bit in range(bits)) / (bits * len(target))


def _levels_missed(outputs: Tensor, target: Tensor, most: int) -> float:
    """Share of the outputs whose nearest level is not that of the target; NaN for more than `most` levels."""
    import torch

    wrong = 0.0
    for column, wanted in zip(outputs.t().contiguous(), target.t().contiguous(), strict=True):
        levels = wanted.unique()
        if len(levels) > most:
            return math.nan
        bounds = (levels[1:] + levels[:-1]) / 2
        wrong += float((torch.bucketize(column, bounds) != torch.searchsorted(levels, wanted)).double().mean())
    return wrong / target.shape[1]


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", accuracy, kinds=("classes",), share=True),
        Metric("balanced_accuracy", balanced_accuracy, kinds=("classes",), share=True),
        Metric("nrmse", nrmse, lower=True, kinds=("numbers",)),
        Metric("r2", r2, kinds=("numbers",)),
        Metric("memory_capacity", memory_capacity, kinds=("numbers",)),
        Metric("symbol_error_rate", symbol_error_rate, lower=True, share=True),
        Metric("bit_error_rate", bit_error_rate, lower=True, share=True),
    )
}


def named(name: str, lower: bool = False) -> Metric:
    """Return the metric that results name; of a function of a user's the name and the direction alone."""
    return METRICS.get(name) or Metric(name, _forgotten, lower)


def told(summary: Mapping[str, Any]) -> Metric:
    """Return the metric of a summary; one that names none is of a run by accuracy."""
    return named(str(summary.get("metric", "accuracy")), summary.get("better") == "lower")


def _forgotten(outputs: Tensor, target: Tensor) -> float:
    raise ContractError("only the name of this metric is known", where="metric", todo="name its function in [task]")
