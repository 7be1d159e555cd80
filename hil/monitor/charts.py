"""Live curves: options of ECharts, in the colours of the style sheet, so that light and dark need no other drawing.

Every text is a value, never markup; the two functions in JavaScript are written here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from hil.monitor.parts import Text, box

FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
COLOURS = 8  # --series-1 to --series-8
NUMBER = "(v) => v == null || v === '-' ? '–' : String(+(+v).toPrecision(4))"
SHARE = "(v) => v == null || v === '-' ? '–' : (+v).toFixed(1) + ' %'"
WHOLE = "(v) => Number.isInteger(v) ? String(v) : ''"  # the last tick stands where the data end
COUNT = (
    "(v) => v >= 1e9 ? v / 1e9 + ' G' : v >= 1e6 ? v / 1e6 + ' M' : v >= 1e4 ? v / 1e3 + ' k' : String(+(+v).toPrecision(6))"
)
NUMBERED = ("epoch", "step")  # an axis with ticks at whole numbers alone
DOTTED = 40  # points of a line whose points are shown
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve of a chart.

    Args:
        name: in the legend.
        points: (x, y), finite.
        colour: a variable of the style sheet.
        width: px; 0: points alone.
        dashed: drawn so.
        symbol: of its points; "" as it suits.
        marks: (name, y, colour) of horizontal levels.
    """

    name: str
    points: Sequence[Point]
    colour: str = "--series-1"
    width: float = 2
    dashed: bool = False
    symbol: str = ""
    marks: Sequence[tuple[str, float, str]] = ()


def series_colour(number: int) -> str:
    """Return the colour of the curve of this number, from 0."""
    return f"--series-{number % COLOURS + 1}"


def finite(points: Sequence[tuple[object, object]]) -> list[Point]:
    """Return the points whose both values are finite numbers."""
    found = [(x, y) for x, y in points if isinstance(x, int | float) and isinstance(y, int | float)]
    return [(float(x), float(y)) for x, y in found if math.isfinite(x) and math.isfinite(y)]


def options(
    lines: Sequence[Line],
    x: str,
    y: str,
    share: bool = False,
    counts: bool = False,
    bottom: float | None = None,
    top: float | None = None,
    legend: bool = True,
) -> dict[str, Any]:
    """Return the options of a chart.

    Args:
        lines: the curves; those without points are left out.
        x: title of that axis, with its unit.
        y: title of that axis, with its unit.
        share: y is in per cent.
        counts: x are large counts.
        bottom: where the y axis begins; None: as the values need it.
        top: where it ends; None: as the values need it.
        legend: above the axes.
    """
    drawn = [line for line in lines if line.points]
    values = [value for line in drawn for _, value in line.points if line.width]
    log = not share and bool(values) and min(values) > 0 and max(values) > 20 * min(values)
    return {
        "animation": False,
        "textStyle": {"fontFamily": FONT, "fontSize": 12},
        "grid": {"left": 8, "right": 18, "top": 52 if legend else 28, "bottom": 24, "containLabel": True},
        "legend": {"show": legend, "left": 0, "top": 0, "itemWidth": 16, "itemHeight": 8, "itemGap": 16, "type": "scroll",
                   "textStyle": _ink(), "inactiveColor": "var(--grid)", "data": [line.name for line in drawn]},
        "tooltip": {"trigger": "axis", "confine": True, "backgroundColor": "var(--card)", "borderColor": "var(--muted)",
                    "textStyle": _ink(), ":valueFormatter": SHARE if share else NUMBER,
                    "axisPointer": {"lineStyle": {"color": "var(--muted)"}, "label": {"show": False}}},
        "xAxis": {"type": "value", "name": x, "nameLocation": "middle", "nameGap": 26, "scale": True, "max": "dataMax",
                  "splitLine": {"show": False}, **_axis(), "axisLabel": {**_muted(), "hideOverlap": True,
                  **({":formatter": COUNT} if counts else {":formatter": WHOLE} if x in NUMBERED else {})}},
        "yAxis": {"type": "log" if log else "value", "name": y, "nameLocation": "end", "nameGap": 10, "scale": True,
                  "min": bottom, "max": top,
                  "splitLine": {"lineStyle": {"color": "var(--grid)"}}, **_axis(),
                  "nameTextStyle": {**_muted(), "align": "left"},
                  "axisLabel": {**_muted(), "showMaxLabel": top is None}},
        "series": [_series(line) for line in drawn],
    }  # fmt: skip


def _series(line: Line) -> dict[str, Any]:
    colour = f"var({line.colour})"
    made: dict[str, Any] = {
        "type": "line" if line.width else "scatter",
        "name": line.name,
        "data": [list(point) for point in line.points],
        "showSymbol": len(line.points) <= DOTTED,
        "symbol": line.symbol or "circle",
        "symbolSize": 5 if line.width else 11,
        "itemStyle": {"color": colour},
        "lineStyle": {"color": colour, "width": line.width, "type": "dashed" if line.dashed else "solid"},
        "emphasis": {"disabled": True},
    }
    if line.marks:
        made["markLine"] = {
            "silent": True, "symbol": "none", "animation": False,
            "data": [{"yAxis": level, "name": name, "lineStyle": {"color": f"var({own})", "type": "dashed"},
                      "label": {"formatter": name, "color": f"var({own})", "position": "insideEndTop"}}
                     for name, level, own in line.marks],
        }  # fmt: skip
    return made


def _axis() -> dict[str, Any]:
    line = {"lineStyle": {"color": "var(--grid)"}}
    return {"axisLine": line, "axisTick": line, "axisLabel": _muted(), "nameTextStyle": _muted()}


def _ink() -> dict[str, str]:
    return {"color": "var(--ink)"}


def _muted() -> dict[str, str]:
    return {"color": "var(--muted)"}


class Chart:
    """A chart with a title; nothing is shown while it has no points.

    Args:
        title: above it.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        with box("section", "card") as self._box:
            self._head = Text("h3", title)
            self._chart = ui.echart({}, renderer="svg").classes("chart")
        self._chart.props["role"] = "img"
        self._box.set_visibility(False)
        self._shown: dict[str, Any] = {}

    def title(self, text: str) -> None:
        """Have another title."""
        self._title = text
        self._head.say(text)

    def show(self, made: dict[str, Any]) -> None:
        """Draw these options, if they are others than before."""
        if made == self._shown:
            return
        self._shown = made
        self._box.set_visibility(bool(made["series"]))
        ends = [f"{one['name']} ends at {one['data'][-1][1]:.4g}" for one in made["series"]]
        self._chart.props["aria-label"] = f"{self._title}: {', '.join(ends)}."
        self._chart.props["options"] = made
