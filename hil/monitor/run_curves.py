"""What the curves of a run show, from its metrics and its journal.

device busy      (device_s(b) - device_s(a)) / (t(b) - t(a))       between two commits a and b, 0 to 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hil.metric import Metric
from hil.monitor.charts import Line, finite, options
from hil.monitor.live import Record, moment
from hil.report.contents import watched

FAULTS = ("fault", "recovering", "lost", "unsafe", "stalled")
MENDED = ("recovered", "recovery", "retransmission", "calibration")
SPLITS = (("train", "--series-1"), ("validation", "--series-2"))
BINS = 150  # of the time axis
Curves = dict[str, Any]


def of_split(metrics: Sequence[Record], split: str, name: str, over: str = "epoch") -> list[tuple[float, float]]:
    """Return (x, value) of each epoch of a split."""
    return finite([(line.get(over), line.get(name)) for line in metrics if line.get("split") == split])


def score(metrics: Sequence[Record], metric: Metric) -> Curves:
    """The metric over the epochs, a share in per cent."""
    factor = 100 if metric.share else 1
    lines = [
        Line(split, [(x, factor * y) for x, y in of_split(metrics, split, metric.name)], colour) for split, colour in SPLITS
    ]
    return options(lines, "epoch", f"{metric.title} (%)" if metric.share else metric.title, share=metric.share)


def loss(metrics: Sequence[Record], commits: Sequence[Record], begun: Record) -> Curves:
    """The loss of steps, and of the epochs."""
    per_epoch = begun.get("batches_per_epoch")
    steps = []
    if isinstance(per_epoch, int) and per_epoch > 0:
        steps = thinned(finite([(commit["step"] / per_epoch, commit["loss"]) for commit in commits]))
    lines = [Line("of a step", steps, "--step-line", 1)]
    lines += [Line(split, of_split(metrics, split, "loss"), colour) for split, colour in SPLITS]
    return options(lines, "epoch", "loss")


def thinned(points: list[tuple[float, float]], most: int = 600) -> list[tuple[float, float]]:
    """Return no more than about `most` of the points, evenly, the last one among them."""
    stride = max(1, -(-len(points) // most))
    return points if stride == 1 else points[(len(points) - 1) % stride :: stride]


def busy(commits: Sequence[Record], latest_s: float) -> float | None:
    """Return the share of the time in which the device was busy, over the latest commits; None: not known."""
    timed = [(at, float(commit["device_s"])) for commit in commits if (at := moment(commit)) is not None]
    recent = [pair for pair in timed if pair[0] >= timed[-1][0] - latest_s]
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return None
    return min(max((recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0]), 0.0), 1.0)


def duty(commits: Sequence[Record], events: Sequence[Record], first_s: float | None) -> Curves:
    """The share of the device, and faults, over the time since the start."""
    times = [at for record in (*commits[-1:], *list(events)[-1:]) if (at := moment(record)) is not None]
    if first_s is None or not times:
        return options([], "", "")
    length = max(times) - first_s
    scale, unit = next(
        (s, u) for limit, s, u in ((180, 1, "s"), (7200, 60, "min"), (float("inf"), 3600, "h")) if length < limit
    )
    lines = [Line("device busy", _shares(commits, first_s, scale, length), "--series-3")]
    for name, kinds, colour, symbol, level in (
        ("fault", FAULTS, "--bad", "triangle", 105), ("recovered", MENDED, "--good", "circle", 105),
        ("pause, resume, stop", ("pause", "resume", "interrupt", "asked"), "--series-2", "rect", 105),
    ):  # fmt: skip
        noted = finite([(moment(event), level) for event in events if event["kind"] in kinds])
        points = [((when - first_s) / scale, y) for when, y in noted]
        lines.append(Line(name, points, colour, 0, symbol=symbol))
    return options(lines, f"time since the start ({unit})", "device busy (%)", share=True, bottom=0, top=110)


def _shares(commits: Sequence[Record], first_s: float, scale: float, length: float) -> list[tuple[float, float]]:
    """Return (time, per cent busy), one for each part of the time in which steps were committed."""
    found, width = [], max(length / BINS, 0.5)
    before: tuple[float, float] | None = None
    for commit in commits:
        at = moment(commit)
        if at is None:
            continue
        if before is None:
            before = at, commit["device_s"]
        elif at - before[0] >= width:
            share = (commit["device_s"] - before[1]) / (at - before[0])
            found.append(((at - first_s) / scale, 100 * min(max(share, 0.0), 1.0)))
            before = at, commit["device_s"]
    return found


def drift(looks: Sequence[Mapping[str, Any]]) -> Curves:
    """How far the node was off its reference at each look of the sentinel, between the levels where it warns and acts."""
    seen = watched(looks)
    if seen is None:
        return options([], "", "")
    levels = (("warn", seen.warn, "--waiting"), ("act", seen.act, "--bad"))
    marks = [(name, sign * level, colour) for name, level, colour in levels for sign in (1, -1)]
    total = [walk + walked for walk, walked in zip(seen.walk, seen.walked, strict=True)]
    lines = [
        Line("off the reference", list(zip(seen.steps, seen.walk, strict=True)), "--series-1", marks=marks),
        Line("walk in all", list(zip(seen.steps, total, strict=True)), "--series-4", dashed=True),
    ]
    return options(lines, "step", f"bias ({seen.unit})" if seen.unit else "bias")
