"""The figures of a run: metric, loss, predictions, transfer curve, feedback, progress, drift."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hil.metric import Metric
from hil.report.contents import (
    SLOPES,
    Curve,
    DrawnFeedback,
    DrawnSeries,
    DrawnStates,
    DrawnTransfer,
    Histogram,
    Timeline,
    Watched,
)
from hil.report.figure import Columns, Figure, Sheet, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAULTS = ("fault", "recovering")
EVENT_MARKS = {
    "fault": "v", "recovering": "v", "recovery": "^", "calibration": "s", "roll_back": "<", "interrupt": "d", "resume": ">",
}  # fmt: skip


def score(curves: Mapping[str, Curve], best_epoch: float | None, test: float | None, metric: Metric) -> Figure:
    """The metric over the epochs, a share in per cent, the chosen epoch ringed, the test score as a level."""
    factor, unit = (100, "%") if metric.share else (1, "")
    scaled = {name: Curve(line.epochs, tuple(factor * v for v in line.values)) for name, line in curves.items()}
    held = scaled.get("validation")

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        _curves(sheet, axes, scaled)
        if held is not None and best_epoch is not None and best_epoch in held.epochs:
            best = held.values[held.epochs.index(best_epoch)]
            ring: dict[str, Any] = {"ms": sheet.pt(11), "mfc": "none", "mec": sheet.series(1), "mew": sheet.pt(1.5)}
            axes.plot([best_epoch], [best], "o", label="chosen epoch", **ring)
        if test is not None:
            axes.axhline(factor * test, color=sheet.look.ink, lw=sheet.pt(1.1), ls=(0, (1, 2)), label="test")
        axes.set_ylabel(heading(metric.title, unit))
        if not metric.share:
            _logarithmic(axes, scaled)
        sheet.legend(axes)

    columns = _epochs(scaled, heading(metric.title, unit))
    if test is not None:
        columns[heading(f"test {metric.title}", unit)] = (factor * test,)
    title = f"{metric.title[0].upper()}{metric.title[1:]}"
    ends = ", ".join(f"{name} ends at {read(metric, line.values[-1])}" for name, line in curves.items() if line.values)
    return Figure("score", title, f"{title} over epochs: {ends}.", draw, columns)


def loss(curves: Mapping[str, Curve]) -> Figure:
    """Loss over the epochs; logarithmic where it spans more than a factor of 20."""

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        _curves(sheet, axes, curves)
        _logarithmic(axes, curves)
        axes.set_ylabel("loss")
        sheet.legend(axes)

    ends = ", ".join(f"{name} ends at {line.values[-1]:.3g}" for name, line in curves.items() if line.values)
    return Figure("loss", "Loss", f"Loss over epochs: {ends}.", draw, _epochs(curves, "loss"))


def predictions(pairs: Sequence[tuple[float, float]]) -> Figure:
    """Output over target of test examples; on the line they are equal."""
    wanted, given = zip(*pairs, strict=True)
    ends = (min(wanted), max(wanted))

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        axes.plot(ends, ends, color=sheet.look.ink, lw=sheet.pt(1.1), ls=(0, (4, 3)), label="equal")
        axes.plot(wanted, given, "o", color=sheet.series(0), label="test examples", **sheet.dot(3, 0.3))
        axes.set_xlabel("target")
        axes.set_ylabel("output")
        sheet.legend(axes)

    told = f"Output over target of {len(pairs)} test values."
    return Figure("predictions", "Test examples", told, draw, {"target": wanted, "output": given})


def series(seen: DrawnSeries, states: DrawnStates | None = None) -> Figure:
    """Above, the input over time; on the same axis the states of a node with memory, the target, and what came of it."""
    states = states if states is not None and states.values and len(states.values[0]) == len(seen.steps) else None
    ratios = (1, 2) if states is None else (1, 1.6, 2)

    def draw(sheet: Sheet) -> None:
        above, *middle, beneath = sheet.figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
        above.step(seen.steps, seen.given, where="mid", color=sheet.look.muted, lw=sheet.pt(1.1))
        above.set_ylabel("input")
        for axes in middle if states is not None else ():
            for k, row in enumerate(states.values if states is not None else ()):
                axes.plot(seen.steps, row, color=sheet.series(k), lw=sheet.pt(0.9))
            axes.set_ylabel("states")
        beneath.plot(seen.steps, seen.target, color=sheet.series(1), lw=sheet.pt(2.4), label="target")
        beneath.plot(seen.steps, seen.output, color=sheet.series(0), lw=sheet.pt(1.4), ls=(0, (4, 1.6)), label="output")
        beneath.set_ylabel("target, output")
        whole_numbers(beneath, "step of time")
        sheet.legend(beneath)
        sheet.figure.align_ylabels((above, *middle, beneath))

    columns = {"step of time": seen.steps, "input": seen.given, "target": seen.target, "output": seen.output}
    shown = ""
    if states is not None:
        columns |= {f"state of node {node:.0f}": row for node, row in zip(states.nodes, states.values, strict=True)}
        shown = f" The states are the readings of nodes {', '.join(f'{node:.0f}' for node in states.nodes)}."
    told = f"Input, target and output of a test sequence over {len(seen.steps)} steps of time, behind the washout.{shown}"
    return Figure("series", "A test sequence over time", told, draw, columns, 4.0 if states is None else 5.4)


def memory(states: DrawnStates) -> Figure:
    """Share of the input k steps before that a linear readout of the states tells."""
    delays = tuple(float(k) for k in range(len(states.memory)))

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        axes.plot(delays, [100 * share for share in states.memory], "o-", color=sheet.series(0), **sheet.dot(3.5, 0.4))
        axes.set_ylim(0, 104)
        axes.set_ylabel("input that is told (%)")
        whole_numbers(axes, "steps before")

    told = (
        "Share of the input some steps before that a linear readout of the states tells, fitted on one half of the test "
        f"steps, judged on the other: {states.capacity:.3g} steps in all. Where the input repeats itself, the curve shows that "
        "too."
    )
    columns = {"steps before": delays, "input that is told (%)": [100 * share for share in states.memory]}
    return Figure("memory", "Memory curve", told, draw, columns, 2.8)


def spectrum(states: DrawnStates) -> Figure:
    """Eigenvalues of the covariance of the states."""
    number = tuple(float(k) for k in range(1, len(states.spectrum) + 1))
    least = 1e-12 * states.spectrum[0]
    shares = [max(share, least) for share in states.spectrum]

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        axes.semilogy(number, shares, "o-", color=sheet.series(1), **sheet.dot(3.5, 0.4))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylabel("share of the variance")
        whole_numbers(axes, "eigenvalue")

    told = (
        f"Eigenvalues of the covariance of the states, as shares of their sum, largest first: {states.directions:.3g} "
        f"directions (participation ratio) of {len(number)}. A flat end is noise."
    )
    return Figure("spectrum", "Spectrum of the states", told, draw, {"eigenvalue": number, "share": shares}, 2.8)


def transfer(curve: DrawnTransfer | None, used: Sequence[Histogram]) -> Figure:
    """The measured transfer curve over the Twin's, and beneath it, on the same axis, the drives that the network uses."""
    unit = curve.drive_unit if curve is not None else ""
    ratios = [ratio for ratio, there in ((2.4, curve is not None), (1.1, bool(used))) if there]

    def draw(sheet: Sheet) -> None:
        parts = sheet.figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        if curve is not None:
            _transfer(sheet, parts[0], curve)
        if used:
            _used(sheet, parts[-1], used)
        parts[-1].set_xlabel(heading("drive", unit))
        sheet.figure.align_ylabels(parts)

    told, columns = [], dict[str, Sequence[float]]()
    if curve is not None:
        told.append(f"Reading over drive at {len(curve.drive)} points" + (", with the twin's curve." if curve.twin else "."))
        columns[heading("drive", unit)] = curve.drive
        for name, values in (("measured", curve.measured), ("spread", curve.spread), ("twin", curve.twin)):
            columns |= {heading(name, curve.reading_unit): values} if values else {}
    if used:
        told.append(f"Beneath it, how often {len(used)} layers use each drive.")
    for layer, bins in enumerate(used, 1):
        columns[heading(f"layer {layer}: bin from", unit)] = bins.edges[:-1]
        columns[heading(f"layer {layer}: bin to", unit)] = bins.edges[1:]
        columns[f"layer {layer}: share of drives (%)"] = [100 * share for share in bins.shares]
    title = " and ".join(part for part, there in (("transfer curve", curve), ("drives in use", used)) if there)
    return Figure("node", title[0].upper() + title[1:], " ".join(told), draw, columns, 0.9 + 0.78 * sum(ratios))


def feedback(part: DrawnFeedback) -> Figure:
    """Draw g over the slope of one layer, each divided by its largest magnitude."""
    slope = SLOPES[part.of]
    curves = {slope: scaled(part.slope), "g": scaled(part.g)}

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        axes.axhline(0, color=sheet.look.muted, lw=sheet.pt(0.7))
        for (name, values), number, width, dash in zip(curves.items(), (1, 0), (2.6, 1.6), ("-", (0, (4, 1.6))), strict=True):
            if values:
                axes.plot(part.pre, values, color=sheet.series(number), lw=sheet.pt(width), ls=dash, label=name)
        axes.set_xlabel(part.over)
        axes.set_ylabel("relative to largest")
        sheet.legend(axes)

    r = "unknown" if part.correlation is None else f"{part.correlation:+.3f}"
    aside = "" if part.correlation is None else f"r = {r}"
    aside += ("" if part.slope else " no twin, so no true derivative") + ("" if part.g else " this learner uses no g")
    columns = {part.over: part.pre, **{f"{name}, relative to largest": v for name, v in curves.items() if v}}
    told = f"Layer {part.layer}: g and the {slope} over the {part.over}; correlation {r}."
    return Figure(f"feedback-layer-{part.layer}", f"Layer {part.layer}", told, draw, columns, aside=aside)


def timeline(line: Timeline) -> Figure:
    """Committed steps over the time since the start, with faults and other events on the axis."""
    limits = ((180, 1, "s"), (7200, 60, "min"), (math.inf, 3600, "h"))
    scale, unit = next((s, u) for limit, s, u in limits if line.length_s < limit)
    since = [t / scale for t in line.since_s]
    marked = [(e.since_s / scale, e) for e in line.events if e.kind in EVENT_MARKS and e.since_s is not None]

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        keep = max(1, len(since) // 600)
        shown = [*since[::keep], *since[-1:]], [*line.steps[::keep], *line.steps[-1:]]
        axes.step(*shown, where="post", color=sheet.look.muted, lw=sheet.pt(1.4))
        for kind in dict.fromkeys(event.kind for _, event in marked):
            _events(sheet, axes, kind, [at for at, event in marked if event.kind == kind])
        axes.set_xlim(0, max(line.length_s / scale, 1e-9))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(heading("time since the start", unit))
        axes.set_ylabel("committed step")
        sheet.legend(axes, 6)

    columns: Columns = {
        heading("time", unit): since, "committed step": line.steps,
        heading("time of the event", unit): [at for at, _ in marked], "event": [event.kind for _, event in marked],
    }  # fmt: skip
    faults = sum(event.kind in FAULTS for event in line.events)
    told = f"Committed steps over time, with {faults} faults and {len(line.events) - faults} other events."
    return Figure("timeline", "Progress over time", told, draw, columns)


def watched(seen: Watched) -> Figure:
    """Above, how far the bias walked in all; beneath, how far it was off when it was looked at, and what was done then."""
    total = [walk + walked for walk, walked in zip(seen.walk, seen.walked, strict=True)]

    def draw(sheet: Sheet) -> None:
        above, beneath = sheet.figure.subplots(2, 1, sharex=True)
        above.plot(seen.steps, total, color=sheet.series(0), lw=sheet.pt(1.4))
        above.set_ylabel(heading("total walk", seen.unit))
        beneath.errorbar(
            seen.steps, seen.walk, yerr=seen.sigma, fmt="o", ms=sheet.pt(3), lw=sheet.pt(0.8), color=sheet.series(0)
        )
        levels = (seen.warn, "warn", sheet.series(3), ":"), (seen.act, "act", sheet.look.bad, "--")
        for (level, name, colour, dash), sign in itertools.product(levels, (1, -1)):
            beneath.axhline(sign * level, color=colour, lw=sheet.pt(0.9), ls=dash, label=name if sign > 0 else None)
        for number, what in enumerate(sorted({what for _, what in seen.acts}), 1):
            at = [step for step, done in seen.acts if done == what]
            beneath.plot(at, [0.96] * len(at), "v^sdD<"[number % 6], ms=sheet.pt(6), mew=0, color=sheet.series(number),
                         transform=beneath.get_xaxis_transform(), label=what)  # fmt: skip
        beneath.set_xlabel("step")
        beneath.set_ylabel(heading("walk", seen.unit))
        sheet.legend(beneath, 6)
        sheet.figure.align_ylabels((above, beneath))

    columns: Columns = {
        "step": seen.steps, heading("total walk", seen.unit): total, heading("walk", seen.unit): seen.walk,
        heading("sigma of the walk", seen.unit): seen.sigma, "step of the act": [step for step, _ in seen.acts],
        "act": [what for _, what in seen.acts],
    }  # fmt: skip
    told = f"{len(seen.steps)} looks at the node: its bias walked by {total[-1]:.3g} {seen.unit} in all."
    return Figure("sentinel", "Walk of the bias over the steps", told, draw, columns, 4.0)


def read(metric: Metric, value: float) -> str:
    """A value of the metric, as a sentence has it."""
    return f"{100 * value:.1f} %" if metric.share else metric.shown(value)


def scaled(values: Sequence[float]) -> list[float]:
    """Divide by the largest magnitude."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0) or 1.0
    return [v / largest for v in values]


def counted(value: float) -> str:
    """Return a number of passes as an axis has room for: 200 k, 1.5 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def whole_numbers(axes: Axes, name: str) -> None:
    """Name the horizontal axis, and put its ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _curves(sheet: Sheet, axes: Axes, curves: Mapping[str, Curve]) -> None:
    for number, (name, line) in enumerate(curves.items()):
        sheet.line(axes, line.epochs, line.values, number, name)
    whole_numbers(axes, "epoch")


def _epochs(curves: Mapping[str, Curve], name: str) -> dict[str, Sequence[float]]:
    """Columns of curves over the epochs, each with epochs of its own where they differ."""
    columns: dict[str, Sequence[float]] = {}
    for split, line in curves.items():
        first = columns.setdefault("epoch", line.epochs)
        if line.epochs != first:
            columns[f"{split} epoch"] = line.epochs
        columns[f"{split} {name}"] = line.values
    return columns


def _logarithmic(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """Make the axis logarithmic where the values span more than a factor of 20; else it begins at 0 if they are positive."""
    finite = [v for line in curves.values() for v in line.values if math.isfinite(v)]
    if finite and min(finite) > 0 and max(finite) > 20 * min(finite):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        low, high = axes.get_ylim()
        positive = bool(finite) and min(finite) >= 0
        axes.set_ylim(0 if positive else low, 1.05 * max(finite) if positive and max(finite) > 0 else high)


def _transfer(sheet: Sheet, axes: Axes, curve: DrawnTransfer) -> None:
    if curve.twin:
        axes.plot(curve.drive, curve.twin, color=sheet.series(1), lw=sheet.pt(2.4), label="twin")
    if curve.spread:
        low, high = ([m + sign * s for m, s in zip(curve.measured, curve.spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(curve.drive, low, high, color=sheet.series(0), alpha=0.22, lw=0)
    step = max(1, len(curve.drive) // 60)  # enough dots to see the line beneath them
    label = "measured ± spread" if curve.spread else "measured"
    axes.plot(curve.drive[::step], curve.measured[::step], "o", color=sheet.series(0), label=label, **sheet.dot(3.6, 0.4))
    axes.set_ylabel(heading("reading", curve.reading_unit))
    sheet.legend(axes)


def _used(sheet: Sheet, axes: Axes, used: Sequence[Histogram]) -> None:
    for layer, bins in enumerate(used, 1):
        shares, colour = [100 * share for share in bins.shares], sheet.series(4 - layer)
        axes.stairs(shares, bins.edges, fill=True, color=colour, alpha=0.18, lw=0)
        axes.stairs(shares, bins.edges, color=colour, lw=sheet.pt(1.3), baseline=None, label=f"layer {layer}")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("share of\ndrives (%)")
    axes.margins(x=0.02)
    sheet.legend(axes)


def _events(sheet: Sheet, axes: Axes, kind: str, at: Sequence[float]) -> None:
    colours = {"fault": sheet.look.bad, "recovering": sheet.look.bad, "recovery": sheet.look.good,
               "interrupt": sheet.series(1), "resume": sheet.series(0)}  # fmt: skip
    colour, across = colours.get(kind, sheet.series(3)), axes.get_xaxis_transform()
    axes.vlines(at, 0, 1, color=colour, lw=sheet.pt(1.1), transform=across)
    axes.plot(at, [0.965] * len(at), EVENT_MARKS[kind], color=colour, ms=sheet.pt(7), mew=0, transform=across, label=kind)
