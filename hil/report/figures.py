"""Figures as inline SVG.

Colours are written as stand-ins and replaced by variables of the page's style sheet, so that one drawing serves light and
dark; text stays text.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hil.report.contents import Curve, DrawnFeedback, DrawnTransfer, Event, Histogram, Timeline, Watched
from hil.report.significance import Band
from hil.task import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, SURFACE = "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04"
BAD, GOOD = "#0a0a05", "#0a0a06"
SERIES = ("#0a0a11", "#0a0a12", "#0a0a13", "#0a0a14")
MANY = (*SERIES, "#0a0a15", "#0a0a16", "#0a0a17", "#0a0a18")
VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface", BAD: "--bad", GOOD: "--good",
    **{colour: f"--series-{k}" for k, colour in enumerate(MANY, 1)},
}  # fmt: skip
FAULTS = ("fault", "recovering")
EVENT_COLOURS = {
    "fault": BAD,
    "recovering": BAD,
    "recovery": GOOD,
    "calibration": SERIES[3],
    "roll_back": SERIES[3],
    "interrupt": SERIES[1],
    "resume": SERIES[0],
}
STYLE: Mapping[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "text.parse_math": False,
}
WIDTH_IN = 5.6


def score(curves: Mapping[str, Curve], best_epoch: float | None, test: float | None, metric: Metric) -> str:
    """The metric over the epochs, a share in per cent, the chosen epoch ringed, the test score as a level."""
    factor, unit = (100, " (%)") if metric.share else (1, "")
    fig, axes = _figure(3.3)
    for (name, line), colour in zip(curves.items(), SERIES, strict=False):
        _line(axes, line.epochs, [factor * v for v in line.values], colour, name)
    held = curves.get("validation")
    if held is not None and best_epoch is not None and best_epoch in held.epochs:
        at = held.epochs.index(best_epoch)
        axes.plot(
            held.epochs[at], factor * held.values[at], "o", ms=11, mfc="none", mec=SERIES[1], mew=1.5, label="chosen epoch"
        )
    if test is not None:
        axes.axhline(factor * test, color=INK, lw=1.1, ls=(0, (4, 3)), label="test")
    axes.set_ylabel(f"{metric.title}{unit}")
    if not metric.share:
        _logarithmic(axes, [v for line in curves.values() for v in line.values])
    _epochs(axes)
    _legend(axes)
    last = {name: line.values[-1] for name, line in curves.items() if line.values}
    ends = ", ".join(f"{name} ends at {_read(metric, value)}" for name, value in last.items())
    return _svg(fig, metric.name, f"{metric.title[0].upper()}{metric.title[1:]} over epochs: {ends}.")


def predictions(pairs: Sequence[tuple[float, float]]) -> str:
    """What came over what was wanted, of test examples; on the line they are equal."""
    fig, axes = _figure(3.3)
    wanted, given = zip(*pairs, strict=True)
    ends = (min(wanted), max(wanted))
    axes.plot(ends, ends, color=INK, lw=1.1, ls=(0, (4, 3)), label="equal")
    axes.plot(wanted, given, "o", ms=3, color=SERIES[0], mec=SURFACE, mew=0.3, label="test examples")
    axes.set_xlabel("target")
    axes.set_ylabel("output")
    _legend(axes)
    return _svg(fig, "predictions", f"Output over target of {len(pairs)} test values.")


def _read(metric: Metric, value: float) -> str:
    return f"{100 * value:.1f} %" if metric.share else metric.shown(value)


def loss(curves: Mapping[str, Curve]) -> str:
    """Loss over the epochs; logarithmic where it spans more than a factor of 20."""
    fig, axes = _figure(3.3)
    for (name, line), colour in zip(curves.items(), SERIES, strict=False):
        _line(axes, line.epochs, line.values, colour, name)
    _logarithmic(axes, [v for line in curves.values() for v in line.values])
    axes.set_ylabel("loss")
    _epochs(axes)
    _legend(axes)
    ends = ", ".join(f"{name} ends at {line.values[-1]:.3g}" for name, line in curves.items() if line.values)
    return _svg(fig, "loss", f"Loss over epochs: {ends}.")


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Make the axis logarithmic where the values span more than a factor of 20; else it begins at 0 if they are positive."""
    finite = [v for v in values if math.isfinite(v)]
    if finite and min(finite) > 0 and max(finite) > 20 * min(finite):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_ylim(bottom=0 if finite and min(finite) >= 0 else None)


def race(curves: Mapping[str, Band], name: str, metric: Metric) -> str:
    """The metric on the validation split over device passes, a line and its spread a learner; `name`: unique on a page."""
    factor, unit = (100, " (%)") if metric.share else (1, "")
    fig, axes = _figure(3.9)
    for number, (learner, band) in enumerate(curves.items()):
        colour, dashed = MANY[number % len(MANY)], number >= len(MANY)
        low, high = ([factor * (m + sign * s) for m, s in zip(band.mean, band.std, strict=True)] for sign in (-1, 1))
        axes.fill_between(band.passes, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(
            band.passes, [factor * m for m in band.mean], color=colour, ls="--" if dashed else "-",
            marker="o" if len(band.passes) <= 25 else "", ms=3.2, mec=SURFACE, mew=0.4, label=learner,
        )  # fmt: skip
    first = min((band.passes[0] for band in curves.values()), default=0.0)
    last = max((band.passes[-1] for band in curves.values()), default=0.0)
    if first > 0 and last > 50 * first:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: _counted(value))
    axes.set_xlabel("device passes")
    axes.set_ylabel(f"validation {metric.title}{unit}")
    _legend(axes)
    ends = ", ".join(f"{learner} ends at {_read(metric, band.mean[-1])}" for learner, band in curves.items())
    return _svg(fig, name, f"Validation {metric.title} over device passes: {ends}.")


def transfer(curve: DrawnTransfer | None, used: Sequence[Histogram]) -> str:
    """The measured transfer curve over the Twin's, and beneath it, on the same axis, the drives that the network uses."""
    rows = [ratio for ratio, there in ((3.0, curve is not None), (1.25, bool(used))) if there]
    fig = _blank(1.0 + 0.78 * sum(rows))
    grid = fig.add_gridspec(len(rows), 1, height_ratios=rows, hspace=0.09)
    parts = [fig.add_subplot(grid[0])]
    parts += [fig.add_subplot(grid[k], sharex=parts[0]) for k in range(1, len(rows))]
    told = []
    unit = curve.drive_unit if curve is not None else ""
    if curve is not None:
        _transfer(parts[0], curve)
        told.append(f"Reading over drive at {len(curve.drive)} points" + (", with the twin's curve." if curve.twin else "."))
    if used:
        _used(parts[-1], used)
        told.append(f"Beneath it, how often {len(used)} layers use each drive.")
    for upper in parts[:-1]:
        upper.tick_params(labelbottom=False, bottom=False)
    parts[-1].set_xlabel(f"drive ({unit})" if unit else "drive")
    fig.align_ylabels(parts)
    return _svg(fig, "node", " ".join(told))


def _transfer(axes: Axes, curve: DrawnTransfer) -> None:
    if curve.twin:
        axes.plot(curve.drive, curve.twin, color=SERIES[1], lw=2.4, label="twin")
    if curve.spread:
        low, high = ([m + sign * s for m, s in zip(curve.measured, curve.spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(curve.drive, low, high, color=SERIES[0], alpha=0.22, lw=0)
    step = max(1, len(curve.drive) // 60)  # enough dots to see the line beneath them
    label = "measured ± spread" if curve.spread else "measured"
    axes.plot(curve.drive[::step], curve.measured[::step], "o", ms=3.6, color=SERIES[0], mec=SURFACE, mew=0.4, label=label)
    axes.set_ylabel(f"reading ({curve.reading_unit})")
    _legend(axes)


def _used(axes: Axes, used: Sequence[Histogram]) -> None:
    for layer, (bins, colour) in enumerate(zip(used, itertools.cycle(SERIES[::-1])), 1):
        shares = [100 * share for share in bins.shares]
        axes.stairs(shares, bins.edges, fill=True, color=colour, alpha=0.18, lw=0)
        axes.stairs(shares, bins.edges, color=colour, lw=1.3, baseline=None, label=f"layer {layer}")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("used (%)")
    axes.legend(
        loc="upper right", ncols=min(len(used), 4), borderaxespad=0.1, handlelength=1.1, columnspacing=1.0, fontsize=9.5
    )
    axes.margins(x=0.02)


def feedback(part: DrawnFeedback) -> str:
    """Draw g over the true derivative of one layer, each divided by its largest magnitude."""
    fig, axes = _figure(2.9)
    axes.axhline(0, color=MUTED, lw=0.7)
    if part.slope:
        axes.plot(part.pre, _scaled(part.slope), color=SERIES[1], lw=2.4, label="true derivative (twin)")
    if part.g:
        axes.plot(part.pre, _scaled(part.g), color=SERIES[0], lw=1.8, label="g")
    axes.set_xlabel("pre-activation")
    axes.set_ylabel("relative to largest")
    _legend(axes)
    r = "unknown" if part.correlation is None else f"{part.correlation:+.3f}"
    return _svg(
        fig, f"layer-{part.layer}", f"Layer {part.layer}: g and the true derivative over the pre-activation; correlation {r}."
    )


def timeline(line: Timeline) -> str:
    """Committed steps over the time since the start, with faults and other events on the axis."""
    fig, axes = _figure(3.0)
    scale, unit = next(
        (s, u) for limit, s, u in ((180, 1, "s"), (7200, 60, "min"), (math.inf, 3600, "h")) if line.length_s < limit
    )
    keep = max(1, len(line.since_s) // 600)
    since, steps = [t / scale for t in line.since_s], line.steps
    axes.step([*since[::keep], *since[-1:]], [*steps[::keep], *steps[-1:]], where="post", color=MUTED, lw=1.4)
    seen: set[str] = set()
    for event in line.events:
        _event(axes, event, scale, seen)
    axes.set_xlim(0, max(line.length_s / scale, 1e-9))
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"time since the start ({unit})")
    axes.set_ylabel("committed step")
    if seen:
        _legend(axes, 5)
    faults = sum(event.kind in FAULTS for event in line.events)
    return _svg(
        fig, "timeline", f"Committed steps over time, with {faults} faults and {len(line.events) - faults} other events."
    )


def watched(seen: Watched) -> str:
    """Above, how far the bias walked in all; beneath, how far it was off when it was looked at, and what was done then."""
    fig = _blank(4.2)
    above, beneath = fig.subplots(2, 1, sharex=True)
    total = [walk + walked for walk, walked in zip(seen.walk, seen.walked, strict=True)]
    above.plot(seen.steps, total, color=SERIES[0], lw=1.4)
    above.set_ylabel(f"walk, in all ({seen.unit})")
    beneath.errorbar(seen.steps, seen.walk, yerr=seen.sigma, fmt="o", ms=3, lw=0.8, color=SERIES[0])
    for level, name, colour in ((seen.warn, "warn", SERIES[3]), (seen.act, "act", BAD)):
        for sign in (1, -1):
            beneath.axhline(sign * level, color=colour, lw=0.9, ls="--", label=name if sign > 0 else None)
    for number, what in enumerate(sorted({what for _, what in seen.acts})):
        at = [step for step, done in seen.acts if done == what]
        beneath.plot(at, [0.96] * len(at), "v", ms=6, mew=0, color=MANY[(number + 1) % len(MANY)],
                     transform=beneath.get_xaxis_transform(), label=what)  # fmt: skip
    beneath.set_xlabel("step")
    beneath.set_ylabel(f"off the reference ({seen.unit})")
    _legend(beneath, 6)
    return _svg(fig, "sentinel", f"{len(seen.steps)} looks at the node: its bias walked by {total[-1]:.3g} {seen.unit} in all.")


def _event(axes: Axes, event: Event, scale: float, seen: set[str]) -> None:
    colour = EVENT_COLOURS.get(event.kind)
    if colour is None or event.since_s is None:
        return
    label = None if event.kind in seen else event.kind
    seen.add(event.kind)
    at = event.since_s / scale
    axes.axvline(at, color=colour, lw=1.1)
    axes.plot([at], [0.965], "v", color=colour, ms=7, mew=0, transform=axes.get_xaxis_transform(), label=label)


def _figure(height_in: float) -> tuple[Figure, Axes]:
    fig = _blank(height_in)
    return fig, fig.add_subplot()


def _blank(height_in: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_IN, height_in), layout="constrained")


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, name: str) -> None:
    axes.plot(x, y, color=colour, marker="o" if len(x) <= 25 else "", ms=4, mec=SURFACE, mew=0.6, label=name)


def _epochs(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(axes: Axes, columns: int = 4) -> None:
    """Above the axes, in one row."""
    narrow = columns > 4
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=0.8 if narrow else 1.4,
        columnspacing=0.9 if narrow else 1.3,
        handletextpad=0.4 if narrow else 0.8,
    )


def _counted(value: float) -> str:
    """A number of passes as an axis has room for: 200 k, 1.5 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _scaled(values: Sequence[float]) -> list[float]:
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0) or 1.0
    return [v / largest for v in values]


def _svg(fig: Figure, name: str, told: str) -> str:
    """The figure as an SVG element for HTML: no prologue, no metadata, and ids that begin with `name`, unique on the page."""
    drawn = io.StringIO()
    fig.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    view = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index(">") + 1 :]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    for stand_in, variable in VARIABLES.items():
        body = body.replace(stand_in, f"var({variable})")
    head = f'<svg {view.group(0) if view else ""} role="img" aria-label="{escape(told)}">'
    return re.sub(r"\n\s*", "\n", f"{head}<title>{escape(told)}</title>{body}")


def style() -> Any:
    """A context in which the figures have the page's style, and the same names inside the SVG every time."""
    import matplotlib

    return matplotlib.rc_context({**STYLE, "svg.hashsalt": "hil"})
