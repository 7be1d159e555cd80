"""The figure of a comparison: a score over device passes, a line for each learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hil.metric import Metric
from hil.report.figure import Figure, Sheet, heading
from hil.report.figures import counted, read
from hil.report.significance import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def race(curves: Mapping[str, Band], name: str, title: str, metric: Metric) -> Figure:
    """The metric on the validation split over device passes: mean and standard deviation over the seeds of each learner.

    Args:
        curves: by learner.
        name: of the figure.
        title: of the figure.
        metric: that the scores are of.
    """
    factor, unit = (100, "%") if metric.share else (1, "")
    means = {learner: [factor * m for m in band.mean] for learner, band in curves.items()}
    spreads = {learner: [factor * s for s in band.std] for learner, band in curves.items()}

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        for number, (learner, band) in enumerate(curves.items()):
            low, high = ([m + sign * s for m, s in zip(means[learner], spreads[learner], strict=True)] for sign in (-1, 1))
            axes.fill_between(band.passes, low, high, color=sheet.series(number), alpha=0.14, lw=0)
            width = 1.5 + 1.8 * (len(curves) - 1 - number) / len(curves)  # one that lies on another shows it on both sides
            sheet.line(axes, band.passes, means[learner], number, learner, width)
        first = min((band.passes[0] for band in curves.values()), default=0.0)
        last = max((band.passes[-1] for band in curves.values()), default=0.0)
        if first > 0 and last > 50 * first:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: counted(value))
        axes.set_xlabel("device passes")
        axes.set_ylabel(heading(f"validation {metric.title}", unit))
        _ends(sheet, axes, {learner: (band.passes[-1], means[learner][-1]) for learner, band in curves.items()})

    columns: dict[str, Sequence[float]] = {}
    for learner, band in curves.items():
        columns[f"{learner}: device passes"] = band.passes
        columns[heading(f"{learner}: mean validation {metric.title}", unit)] = means[learner]
        columns[heading(f"{learner}: standard deviation over seeds", unit)] = spreads[learner]
    ends = ", ".join(f"{learner} ends at {read(metric, band.mean[-1])}" for learner, band in curves.items())
    return Figure(name, title, f"Validation {metric.title} over device passes: {ends}.", draw, columns, 3.4)


def _ends(sheet: Sheet, axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write each learner's name beside the end of its line; names that would lie on each other are moved apart."""
    place = axes.transData + axes.transAxes.inverted()
    heights = {learner: float(place.transform(end)[1]) for learner, end in ends.items()}
    apart = 1.25 * sheet.look.font_pt / (0.78 * 72 * sheet.figure.get_figheight())
    at = _apart(sorted(heights.values()), apart)
    for height, learner in zip(at, sorted(heights, key=heights.__getitem__), strict=True):
        number = list(ends).index(learner)
        axes.annotate(
            learner, ends[learner], (1.04, height), textcoords="axes fraction", va="center", color=sheet.series(number),
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": sheet.series(number), "lw": sheet.pt(0.6), "shrinkA": 1, "shrinkB": 3},
        )  # fmt: skip


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """Return ascending heights, moved as little as it takes to be `least` apart.

    >>> [round(h, 2) for h in _apart([0.5, 0.5, 0.9], 0.1)]
    [0.45, 0.55, 0.9]
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _middle(groups[-2]) + 0.5 * least * (len(groups[-2]) + len(groups[-1])) > _middle(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    return [_middle(group) + least * (k - 0.5 * (len(group) - 1)) for group in groups for k in range(len(group))]


def _middle(group: Sequence[float]) -> float:
    return sum(group) / len(group)
