"""Parts that the main figures share: scaled quantities, log axes in plain text, points with error bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hil.report.calibration.record import Floats
from hil.report.figure import Sheet, heading
from hil.uncertainty import RAISED, prefixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Dashes = str | tuple[float, tuple[float, ...]]
FEW = 100  # points that are drawn above a line; more would hide it
LOWER = 0.45  # height of a panel of residuals, of the one above it


@dataclass(frozen=True, slots=True)
class Scale:
    """A quantity in the unit in which it is read easily: values x factor."""

    name: str
    factor: float
    unit: str

    @classmethod
    def of(cls, name: str, unit: str, *values: Floats) -> Scale:
        """Make the scale that suits the largest of the values."""
        largest = max((float(np.abs(one).max()) for one in values if one.size), default=0.0)
        return cls(name, *prefixed(largest, unit))

    @property
    def label(self) -> str:
        """Name and unit, for an axis."""
        return heading(self.name, self.unit)

    def __call__(self, values: Floats | float) -> Floats:
        """Return the values in this unit."""
        return np.asarray(values, dtype=np.float64) * self.factor


def upper_and_lower(sheet: Sheet) -> tuple[Axes, Axes]:
    """Return two panels over one axis, the lower one for residuals."""
    upper, lower = sheet.figure.subplots(2, 1, sharex=True, height_ratios=(1, LOWER))
    return upper, lower


def dots(
    sheet: Sheet, axes: Axes, x: Floats, y: Floats, number: int, label: str, error: Floats | None = None, size: float = 3.4,
    shape: str = "o",
) -> None:  # fmt: skip
    """Draw measured points; `error`: half the length of their bars."""
    colour = sheet.series(number)
    axes.errorbar(
        x, y, yerr=error, fmt=shape, color=colour, ecolor=colour, elinewidth=sheet.pt(0.9), capsize=0,
        label=label, zorder=3.5 if len(x) <= FEW else 2.5, **sheet.dot(size, 0.3),
    )  # fmt: skip


def cloud(sheet: Sheet, axes: Axes, x: Floats, y: Floats, label: str) -> None:
    """Draw many points, faint, with a plain one in the legend."""
    axes.plot(x, y, ".", color=sheet.series(0), alpha=0.3, ms=sheet.pt(3.5), mew=0)
    axes.plot([], [], ".", color=sheet.series(0), alpha=0.6, ms=sheet.pt(7), mew=0, label=label)


def line(
    sheet: Sheet, axes: Axes, x: Floats, y: Floats, number: int, label: str, style: Dashes = "-", width: float = 1.8
) -> None:
    """Draw a fitted line over the points."""
    axes.plot(x, y, ls=style, color=sheet.series(number), lw=sheet.pt(width), label=label, zorder=3)


def level(sheet: Sheet, axes: Axes, y: float, label: str = "", style: str = "-") -> None:
    """Draw a horizontal line: zero, or a limit."""
    axes.axhline(y, color=sheet.look.muted, lw=sheet.pt(0.8), ls=style, label=label or None)


def mark(sheet: Sheet, axes: Axes, x: float, label: str = "", style: str = "--") -> None:
    """Draw a vertical line."""
    axes.axvline(x, color=sheet.look.muted, lw=sheet.pt(0.9), ls=style, label=label or None)


def band(sheet: Sheet, axes: Axes, x: Floats, half: Floats, number: int, label: str) -> None:
    """Shade ± half around zero."""
    axes.fill_between(x, -half, half, color=sheet.series(number), alpha=0.18, lw=0, label=label)


def logarithmic(axes: Axes, x: bool = False, y: bool = False) -> None:
    """Make axes logarithmic, with plain numbers at their ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for wanted, axis, scale, limits in (
        (x, axes.xaxis, axes.set_xscale, axes.get_xlim), (y, axes.yaxis, axes.set_yscale, axes.get_ylim),
    ):  # fmt: skip
        if not wanted:
            continue
        scale("log")
        low, high = limits()
        narrow = high / max(low, 1e-300) < 40
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
        axis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    """10⁻⁶ as text: mathematics is not set in these figures."""
    power = round(math.log10(value)) if value > 0 else 0
    small = abs(power) > 3 and math.isclose(value, 10.0**power)
    return f"10{str(power).translate(RAISED)}" if small else f"{value:g}"


def histogram(sheet: Sheet, axes: Axes, values: Floats, number: int, label: str, bins: int = 24) -> tuple[Floats, Floats]:
    """Draw how many values lie where; returns counts and edges."""
    counts, edges = np.histogram(values, bins=min(bins, max(5, values.size // 4)))
    axes.stairs(counts, edges, fill=True, color=sheet.series(number), alpha=0.25, lw=0)
    axes.stairs(counts, edges, color=sheet.series(number), lw=sheet.pt(1.2), baseline=None, label=label)
    axes.set_ylim(bottom=0)
    return counts.astype(np.float64), edges


def column(values: Floats) -> Sequence[float]:
    """Return a column of a table."""
    listed: list[float] = values.tolist()
    return listed


def rms(values: Floats) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))
