"""The raw sweeps of a calibration's step as figures, by a rule that any step can keep without knowing this file.

the first one-dimensional sweep of a length is the axis of the others of that length
one whose name holds "residual" is drawn beneath; "fit" or "model" in a name: a line; any other: dots
where there is one fit, one other curve and no residual, their difference is the residual
(repeats, points) over an axis of so many points: dots; any other matrix: a map
the end of a name is the unit: drive_v, time_s, level_db; _1 has none
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hil.report.figures import MUTED, SERIES, SURFACE, _blank, _figure, _legend, _svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Sweeps = Mapping[str, Floats]
UNITS = {
    "v": "V", "mv": "mV", "s": "s", "ns": "ns", "hz": "Hz", "w": "W", "a": "A", "rad": "rad", "db": "dB", "ohm": "ohm",
    "lsb": "LSB", "samples": "samples", "symbols": "symbols", "1": "",
}  # fmt: skip
MOST_DOTS = 1500
MOST_CELLS = 48


@dataclass(frozen=True)
class Panel:
    """Curves over one axis. residuals: drawn beneath."""

    axis: str
    x: Floats
    curves: Sweeps
    residuals: Sweeps


def drawn(step: str, sweeps: Sweeps) -> Iterator[tuple[str, str]]:
    """(title, figure) of every panel and map in the sweeps of a step, in their order."""
    for number, panel in enumerate(panels(sweeps), 1):
        title = ", ".join(label(name)[0] for name in panel.curves) or ", ".join(label(name)[0] for name in panel.residuals)
        yield f"{title} over {label(panel.axis)[0]}", _panel(panel, f"{_id(step)}-{number}")
    axes = {len(panel.x) for panel in panels(sweeps)}
    for number, (name, values) in enumerate(sweeps.items(), 1):
        if values.ndim == 2 and values.shape[1] not in axes and min(values.shape) > 1:
            yield label(name)[0], _map(name, values, f"{_id(step)}-map-{number}")


def panels(sweeps: Sweeps) -> Iterator[Panel]:
    """Curves that share an axis; a lone sweep is drawn over its index."""
    flat = {name: values for name, values in sweeps.items() if values.ndim == 1 and len(values) > 1}
    for points in dict.fromkeys(len(values) for values in flat.values()):
        same = {name: values for name, values in flat.items() if len(values) == points}
        rows = {name: v for name, v in sweeps.items() if v.ndim == 2 and v.shape[1] == points and len(v)}
        axis, x = next(iter(same.items()))
        others: dict[str, Floats] = {**{name: v for name, v in same.items() if name != axis}, **rows}
        if not others:
            axis, x, others = "index_1", np.arange(points, dtype=np.float64), same
        residuals = {name: values for name, values in others.items() if "residual" in name}
        curves = {name: values for name, values in others.items() if name not in residuals}
        yield Panel(axis, x, curves, residuals or _difference(curves))


def label(name: str) -> tuple[str, str]:
    """("drive", "V") of "drive_v"."""
    stem, _, end = name.rpartition("_")
    shown, unit = (stem, UNITS[end]) if stem and end in UNITS else (name, "")
    return shown.replace("_", " "), unit


def is_fit(name: str) -> bool:
    return any(word in name for word in ("fit", "model"))


def _difference(curves: Sweeps) -> Sweeps:
    fits, others = ([name for name in curves if is_fit(name) is wanted] for wanted in (True, False))
    if len(fits) != 1 or len(others) != 1:
        return {}
    unit = others[0].rpartition("_")[2]
    return {f"residual_{unit if unit in UNITS else '1'}": curves[others[0]] - curves[fits[0]]}


def _panel(panel: Panel, name: str) -> str:
    fig = _blank(4.3 if panel.residuals and panel.curves else 3.1)
    parts: Sequence[Axes]
    if panel.residuals and panel.curves:
        upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
        parts = (upper, lower)
        lower.axhline(0, color=MUTED, lw=0.7)
        _curves(lower, panel.x, panel.residuals, SERIES[2:])
        _named(lower, panel.residuals, legend=len(panel.residuals) > 1)
        fig.align_ylabels(parts)
    else:
        parts = (fig.add_subplot(),)
    shown = panel.curves or panel.residuals
    _curves(parts[0], panel.x, shown, SERIES)
    _named(parts[0], shown, legend=True)
    axis, unit = label(panel.axis)
    parts[-1].set_xlabel(f"{axis} ({unit})" if unit else axis)
    return _svg(fig, name, f"{', '.join(label(each)[0] for each in shown)} over {axis} at {len(panel.x)} points.")


def _curves(axes: Axes, x: Floats, curves: Sweeps, colours: Sequence[str]) -> None:
    for number, (name, values) in enumerate(curves.items()):
        colour, shown = colours[number % len(colours)], label(name)[0]
        if is_fit(name):
            keep = np.argsort(x, kind="stable")[:: max(1, len(x) // MOST_DOTS)]
            axes.plot(x[keep], np.atleast_2d(values)[0][keep], color=colour, lw=2.0, label=shown, zorder=3)
            continue
        rows = np.atleast_2d(values)
        many = np.tile(x, len(rows))
        step = max(1, rows.size // MOST_DOTS)
        size = 3.6 if rows.size < 300 else 2.2
        axes.plot(many[::step], rows.ravel()[::step], "o", ms=size, color=colour, mec=SURFACE, mew=0.3, label=shown)


def _named(axes: Axes, curves: Sweeps, legend: bool) -> None:
    names = [label(name) for name in curves]
    units = {unit for _, unit in names}
    unit = f" ({units.pop()})" if len(units) == 1 and "" not in units else ""
    axes.set_ylabel(f"{names[0][0]}{unit}" if len(names) == 1 else unit.strip(" ()") or "value")
    if legend and len(names) > 1:
        _legend(axes, 3)


def _map(name: str, values: Floats, figure: str) -> str:
    """A matrix as shades, thinned to what can be seen."""
    rows, columns = (max(1, -(-size // MOST_CELLS)) for size in values.shape)
    shown = values[::rows, ::columns]
    fig, axes = _figure(3.4)
    largest = float(np.nanmax(np.abs(shown))) or 1.0
    for (row, column), value in np.ndenumerate(shown):
        share = min(1.0, abs(float(value)) / largest) if np.isfinite(value) else 0.0
        colour = SERIES[0] if value >= 0 else SERIES[1]
        axes.fill_between([column - 0.5, column + 0.5], row - 0.5, row + 0.5, color=colour, alpha=share, lw=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set_xlabel("column")
    axes.set_ylabel("row")
    text, unit = label(name)
    return _svg(fig, figure, f"{text}, {values.shape[0]} by {values.shape[1]}, largest {largest:.3g} {unit}.")


def _id(step: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in step)
