"""The raw sweeps of a calibration's step as figures, by a rule that any step can keep without knowing this file.

the first one-dimensional sweep of a length is the axis of the others of that length, if it rises or falls all the way, or is
called drive, time, delay, frequency or level; else each is drawn over its index
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

from hil.report.figure import Figure, Sheet, heading, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Sweeps = Mapping[str, Floats]
UNITS = {
    "v": "V", "mv": "mV", "s": "s", "ns": "ns", "hz": "Hz", "w": "W", "a": "A", "rad": "rad", "db": "dB", "ohm": "ohm",
    "lsb": "LSB", "samples": "samples", "symbols": "symbols", "1": "",
}  # fmt: skip
AXES = ("drive", "time", "delay", "frequency", "level")
MOST_DOTS = 1500
MOST_CELLS = 32
MOST_FIGURES = 8


@dataclass(frozen=True)
class FigurePanel:
    """Curves over one axis.

    Args:
        residuals: drawn beneath.
    """

    axis: str
    x: Floats
    curves: Sweeps
    residuals: Sweeps


def drawn(step: str, sweeps: Sweeps) -> Iterator[Figure]:
    """Figures of the panels and maps in the sweeps of a step: MOST_FIGURES of them at most, panels first."""
    listed = [*panels(sweeps)]
    for number, panel in enumerate(listed[:MOST_FIGURES], 1):
        yield _panel(panel, f"{slug(step)}-{number}")
    seen = {name for panel in listed for name in (*panel.curves, *panel.residuals)}
    maps = [name for name, v in sweeps.items() if v.ndim == 2 and min(v.shape) > 1 and name not in seen]
    for number, name in enumerate(maps[: max(0, MOST_FIGURES - len(listed))], 1):
        yield _map(name, sweeps[name], f"{slug(step)}-map-{number}")


def panels(sweeps: Sweeps) -> Iterator[FigurePanel]:
    """Curves that share an axis, and what has none by itself."""
    flat = {name: values for name, values in sweeps.items() if values.ndim == 1 and len(values) > 1}
    for points in dict.fromkeys(len(values) for values in flat.values()):
        same = {name: values for name, values in flat.items() if len(values) == points}
        rows = {name: v for name, v in sweeps.items() if v.ndim == 2 and v.shape[1] == points and len(v)}
        axis, x = next(iter(same.items()))
        others = {**{name: values for name, values in same.items() if name != axis}, **rows}
        if others and _is_axis(axis, x):
            residuals = {name: values for name, values in others.items() if "residual" in name}
            curves = {name: values for name, values in others.items() if name not in residuals}
            yield FigurePanel(axis, x, curves, residuals or _difference(curves))
        else:
            index = np.arange(points, dtype=np.float64)
            yield from (FigurePanel("index_1", index, {name: values}, {}) for name, values in same.items())


def _is_axis(name: str, x: Floats) -> bool:
    steps = np.diff(x)
    return label(name)[0] in AXES or bool((steps > 0).all() or (steps < 0).all())


def label(name: str) -> tuple[str, str]:
    """("drive", "V") of "drive_v"."""
    stem, _, end = name.rpartition("_")
    shown, unit = (stem, UNITS[end]) if stem and end in UNITS else (name, "")
    return shown.replace("_", " "), unit


def is_fit(name: str) -> bool:
    """True if a sweep's array of this name was computed, not measured."""
    return any(word in name for word in ("fit", "model"))


def _difference(curves: Sweeps) -> Sweeps:
    fits, others = ([name for name in curves if is_fit(name) is wanted] for wanted in (True, False))
    if len(fits) != 1 or len(others) != 1:
        return {}
    unit = others[0].rpartition("_")[2]
    return {f"residual_{unit if unit in UNITS else '1'}": curves[others[0]] - curves[fits[0]]}


def _panel(panel: FigurePanel, name: str) -> Figure:
    both = bool(panel.residuals and panel.curves)
    shown = panel.curves or panel.residuals
    axis, unit = label(panel.axis)

    def draw(sheet: Sheet) -> None:
        parts: Sequence[Axes] = [sheet.axes()] if not both else sheet.figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
        if both:
            parts[1].axhline(0, color=sheet.look.muted, lw=sheet.pt(0.7))
            _curves(sheet, parts[1], panel.x, panel.residuals, 2)
            _named(sheet, parts[1], panel.residuals, legend=len(panel.residuals) > 1)
            sheet.figure.align_ylabels(parts)
        _curves(sheet, parts[0], panel.x, shown, 0)
        _named(sheet, parts[0], shown, legend=True)
        parts[-1].set_xlabel(heading(axis, unit))

    columns = {heading(axis, unit): panel.x}
    for each, values in {**panel.curves, **panel.residuals}.items():
        rows = np.atleast_2d(values)
        names = [label(each)[0]] if len(rows) == 1 else [f"{label(each)[0]} {n}" for n in range(1, len(rows) + 1)]
        columns |= {heading(text, label(each)[1]): row for text, row in zip(names, rows, strict=True)}
    told = ", ".join(label(each)[0] for each in shown)
    lists = {key: values.tolist() for key, values in columns.items()}
    return Figure(
        name, f"{told} over {axis}", f"{told} over {axis} at {len(panel.x)} points.", draw, lists, 3.8 if both else 2.8
    )


def _curves(sheet: Sheet, axes: Axes, x: Floats, curves: Sweeps, first: int) -> None:
    for number, (name, values) in enumerate(curves.items(), first):
        colour, shown = sheet.series(number), label(name)[0]
        if is_fit(name):
            keep = np.argsort(x, kind="stable")[:: max(1, len(x) // MOST_DOTS)]
            axes.plot(x[keep], np.atleast_2d(values)[0][keep], color=colour, lw=sheet.pt(2.0), label=shown, zorder=3)
            continue
        rows = np.atleast_2d(values)
        many = np.tile(x, len(rows))
        step = max(1, rows.size // MOST_DOTS)
        dot = sheet.dot(3.6 if rows.size < 300 else 2.2, 0.3)
        axes.plot(many[::step], rows.ravel()[::step], "o", color=colour, label=shown, **dot)


def _named(sheet: Sheet, axes: Axes, curves: Sweeps, legend: bool) -> None:
    names = [label(name) for name in curves]
    units = {unit for _, unit in names}
    unit = units.pop() if len(units) == 1 else ""
    axes.set_ylabel(heading(names[0][0], unit) if len(names) == 1 else unit or "value")
    if legend and len(names) > 1:
        sheet.legend(axes, 3)


def _map(name: str, values: Floats, figure: str) -> Figure:
    """A matrix as shades, blue above zero and orange below, thinned to what can be seen."""
    rows, columns = (max(1, -(-size // MOST_CELLS)) for size in values.shape)
    shown = values[::rows, ::columns]
    finite = np.where(np.isfinite(shown), shown, 0.0)
    largest = float(np.abs(finite).max()) or 1.0
    places = [(float(row), float(column)) for row, column in np.ndindex(*shown.shape)]
    text, unit = label(name)

    def draw(sheet: Sheet) -> None:
        from matplotlib.collections import PolyCollection
        from matplotlib.colors import to_rgba

        axes = sheet.axes()
        cells = [[(c - 0.5, r - 0.5), (c + 0.5, r - 0.5), (c + 0.5, r + 0.5), (c - 0.5, r + 0.5)] for r, c in places]
        shades = [to_rgba(sheet.series(0 if value >= 0 else 1), abs(value) / largest) for value in finite.ravel()]
        axes.add_collection(PolyCollection(cells, facecolors=shades, linewidths=0))
        axes.set_xlim(-0.5, shown.shape[1] - 0.5)
        axes.set_ylim(shown.shape[0] - 0.5, -0.5)
        axes.grid(False)
        axes.set_xlabel("column")
        axes.set_ylabel("row")

    table = {heading(f"{text}, column {n}", unit): values[:, n].tolist() for n in range(values.shape[1])}
    told = f"{text}, {values.shape[0]} by {values.shape[1]}, largest {largest:.3g} {unit}."
    return Figure(figure, text, told, draw, table, 3.0)
