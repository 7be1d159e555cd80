"""What the report shows, as values: curves, transfer, feedback, times, events, confusion; checked before they are drawn.

correlation      r = sum (a - mean a)(b - mean b) / sqrt( sum (a - mean a)^2  sum (b - mean b)^2 )
interval         Wilson's score interval of a share k / n at 95 % (E. B. Wilson, J. Am. Stat. Assoc. 22, 209, 1927)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hil.errors import DataError
from hil.metric import Metric, named, told
from hil.report.run_files import Facts, RunRecord

Numbers = tuple[float, ...]
Confusion = tuple[tuple[int, ...], ...]
PLACE = "diagnostics.json"
OVER = {"pre-activation": "at the pre-activations", "membrane above threshold": "at the membranes, counted from the threshold,"}
SLOPES = {"the twin": "true derivative (twin)", "a relaxed spike": "slope of a relaxed spike"}
ROUTINE = ("step", "commit", "checkpoint", "epoch")  # of the journal: no events


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over the epochs."""

    epochs: Numbers
    values: Numbers


@dataclass(frozen=True, slots=True)
class Histogram:
    """counts (bins,) between edges (bins + 1,), in the drive unit of the node."""

    edges: Numbers
    counts: Numbers

    @property
    def shares(self) -> Numbers:
        """Counts as shares of all, 0 to 1."""
        total = sum(self.counts) or 1.0
        return tuple(count / total for count in self.counts)


@dataclass(frozen=True, slots=True)
class DrawnTransfer:
    """drive, measured, spread and twin (points,); twin is empty where no twin is known."""

    drive: Numbers
    measured: Numbers
    spread: Numbers
    twin: Numbers
    drive_unit: str
    reading_unit: str

    @property
    def misfit(self) -> float | None:
        """Root mean square of measured minus twin, in the reading unit."""
        if not self.twin:
            return None
        return math.sqrt(sum((a - b) ** 2 for a, b in zip(self.measured, self.twin, strict=True)) / len(self.twin))


@dataclass(frozen=True, slots=True)
class DrawnFeedback:
    """g and the slope f' over what one layer visited, in ascending order; either may be empty.

    Args:
        layer: its number, from 1.
        pre: the places.
        g, slope: there.
        correlation: of g and the slope.
        over: what the places are, a key of OVER.
        of: whose slope it is, a key of SLOPES.
    """

    layer: int
    pre: Numbers
    g: Numbers
    slope: Numbers
    correlation: float | None
    over: str = "pre-activation"
    of: str = "the twin"


@dataclass(frozen=True, slots=True)
class DrawnSeries:
    """A test sequence, a value a step.

    Args:
        steps: since it began.
        given: the first input.
        target, output: what was wanted, and what came; of classes their numbers.
    """

    steps: Numbers
    given: Numbers
    target: Numbers
    output: Numbers


@dataclass(frozen=True, slots=True)
class DrawnStates:
    """The states of a node with memory on the test sequences.

    Args:
        nodes: numbers of those that are shown, from 1.
        values: of each, over the steps of the sequence that is shown.
        memory: share of the input k steps before that the states tell, k = 0, 1, ...; empty: not known.
        spectrum: eigenvalues of their covariance, as shares of the sum, largest first; empty: not known.
    """

    nodes: Numbers
    values: tuple[Numbers, ...]
    memory: Numbers = ()
    spectrum: Numbers = ()

    @property
    def capacity(self) -> float:
        """Sum of the memory curve behind k = 0, in steps."""
        return sum(self.memory[1:])

    @property
    def directions(self) -> float:
        """Participation ratio of the spectrum."""
        return sum(self.spectrum) ** 2 / sum(share**2 for share in self.spectrum)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal that is not a step: since_s after the first line."""

    since_s: float | None
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The progress of a run over time.

    Args:
        steps: committed steps over seconds since the start.
        length_s: of the whole journal.
    """

    since_s: Numbers
    steps: Numbers
    events: tuple[Event, ...]
    length_s: float


@dataclass(frozen=True, slots=True)
class Watched:
    """The observations of a sentinel, a value a look.

    Args:
        steps: after which.
        walk, sigma: off the reference, before anything was done.
        walked: all that was followed until then.
        acts: (step, what was done).
        unit: of the walks.
        warn, act: levels of the walk.
    """

    steps: Numbers
    walk: Numbers
    sigma: Numbers
    walked: Numbers
    acts: tuple[tuple[float, str], ...]
    unit: str
    warn: float
    act: float


def number(facts: Facts, key: str) -> float | None:
    """A finite number under `key`, or None."""
    value = facts.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def by_epoch(metrics: Sequence[Facts]) -> dict[tuple[int, str], Facts]:
    """The last line of each (epoch, split): a resumed run may have written an epoch twice."""
    last: dict[tuple[int, str], Facts] = {}
    for line in metrics:
        epoch, split = line.get("epoch"), line.get("split")
        if isinstance(epoch, int) and isinstance(split, str):
            last[epoch, split] = line
    return dict(sorted(last.items()))


def curve(metrics: Sequence[Facts], split: str, key: str) -> Curve:
    """A curve of `key`; an epoch without a finite value leaves a gap (NaN)."""
    lines = [(epoch, line) for (epoch, part), line in by_epoch(metrics).items() if part == split and key in line]
    values = [number(line, key) for _, line in lines]
    return Curve(tuple(float(e) for e, _ in lines), tuple(math.nan if v is None else v for v in values))


def transfer(diagnostics: Facts) -> DrawnTransfer | None:
    """The measured transfer curve, in the order of the drive.

    Raises:
        DataError: it is there, and does not make sense.
    """
    facts = _mapping(diagnostics, "transfer")
    if facts is None:
        return None
    drive, measured = numbers(facts, "transfer.drive"), numbers(facts, "transfer.measured")
    spread, twin = optional(facts, "transfer.spread"), optional(facts, "transfer.twin")
    _same_length("transfer", drive, measured, *(part for part in (spread, twin) if part))
    order = sorted(range(len(drive)), key=drive.__getitem__)
    drive, measured, spread, twin = (_reordered(part, order) for part in (drive, measured, spread, twin))
    return DrawnTransfer(
        drive,
        measured,
        spread,
        twin,
        str(facts.get("drive_unit", "1")),
        str(facts.get("reading_unit", "1")),
    )


def histograms(diagnostics: Facts) -> tuple[Histogram, ...]:
    """The drive values really used, per layer.

    Raises:
        DataError: they are there, and do not make sense.
    """
    found = []
    for layer, facts in enumerate(checked_list(diagnostics, "pre"), 1):
        edges, counts = numbers(facts, f"pre[{layer}].edges"), numbers(facts, f"pre[{layer}].counts")
        if len(edges) != len(counts) + 1 or any(b <= a for a, b in itertools.pairwise(edges)):
            raise senseless(
                f"pre[{layer}]", f"{len(edges)} edges and {len(counts)} counts", "rising edges, one more than counts"
            )
        found.append(Histogram(edges, counts))
    return tuple(found)


def feedback(diagnostics: Facts) -> tuple[DrawnFeedback, ...]:
    """Return g and the slope of every layer. Diagnostics that do not say over what are of static nodes.

    Raises:
        DataError: it is there, and does not make sense.
    """
    found = []
    over, of = diagnostics.get("feedback_over", "pre-activation"), diagnostics.get("feedback_slope", "the twin")
    for key, value, known in (("feedback_over", over, OVER), ("feedback_slope", of, SLOPES)):
        if not isinstance(value, str) or value not in known:
            raise senseless(key, repr(value)[:60], " or ".join(map(repr, known)))
    for layer, facts in enumerate(checked_list(diagnostics, "feedback"), 1):
        pre = numbers(facts, f"feedback[{layer}].pre")
        g, slope = optional(facts, f"feedback[{layer}].g"), optional(facts, f"feedback[{layer}].slope")
        if not g and not slope:
            continue
        _same_length(f"feedback[{layer}]", pre, *(part for part in (g, slope) if part))
        order = sorted(range(len(pre)), key=pre.__getitem__)
        pre, g, slope = (_reordered(part, order) for part in (pre, g, slope))
        found.append(DrawnFeedback(layer, pre, g, slope, number(facts, "correlation"), over, of))
    return tuple(found)


def seconds(diagnostics: Facts) -> dict[str, float]:
    """Return where the time went, in the order of the file: name without "_s" -> s; zeros are left out."""
    facts = _mapping(diagnostics, "time") or {}
    found = {key.removesuffix("_s"): number(facts, key) for key in facts}
    return {key: value for key, value in found.items() if value is not None and value > 0}


def confusion(diagnostics: Facts) -> Confusion:
    """counts[true][predicted], or empty.

    Raises:
        DataError: it is not a square table of whole numbers.
    """
    table = checked_list(diagnostics, "confusion")
    whole = all(isinstance(row, list) and all(isinstance(n, int) and n >= 0 for n in row) for row in table)
    if not whole or any(len(row) != len(table) for row in table):
        raise senseless("confusion", "something else", "a square table of whole numbers")
    return tuple(tuple(row) for row in table)


def timeline(journal: Sequence[Facts]) -> Timeline:
    """Steps and events over the time since the first dated line."""
    times = [_moment(line.get("t")) for line in journal]
    start = next((t for t in times if t is not None), None)
    since, steps, events = [], [], []
    length = 0.0
    for line, moment in zip(journal, times, strict=True):
        after = None if moment is None or start is None else (moment - start).total_seconds()
        length = max(length, after or 0.0)
        step, kind = number(line, "step"), str(line.get("kind", "?"))
        if after is not None and step is not None:
            since.append(after)
            steps.append(step)
        if kind not in ROUTINE and (kind != "sentinel" or "message" in line):
            events.append(Event(after, kind, _said(line)))
    return Timeline(tuple(since), tuple(steps), tuple(events), length)


def watched(journal: Sequence[Facts]) -> Watched | None:
    """The looks of the run's sentinel, in the order in which they were taken; None without any."""
    keys = ("step", "walk", "walk_sigma", "walked", "warn", "act")
    looks, acts, unit = [], [], ""
    for line in journal:
        if line.get("kind") != "sentinel":
            continue
        step, did = number(line, "step"), line.get("did")
        if step is not None and isinstance(did, list):
            acts += [(step, str(what)) for what in did if what != "reference"]
        values = [number(line, key) for key in keys]
        found = [value for value in values if value is not None]
        if len(found) == len(keys):
            looks.append(found)
            unit = str(line.get("unit", ""))
    if not looks:
        return None
    steps, walk, sigma, walked, warn, act = (tuple(column) for column in zip(*looks, strict=True))
    return Watched(steps, walk, sigma, walked, tuple(acts), unit, warn[-1], act[-1])


def metric_of(record: RunRecord) -> Metric:
    """Return the metric that the run was judged by: as its summary says, or its settings before there is one."""
    task = record.config.get("task")
    if "metric" in record.summary or not isinstance(task, Mapping):
        return told(record.summary)
    listed = task.get("metric", "accuracy")
    first = listed[0] if isinstance(listed, list) and listed else listed
    return named(str(first).rpartition(":")[2], task.get("lower") is True)


def of_numbers(record: RunRecord) -> bool:
    """True of a run whose targets are numbers, so that it has no classes to confuse."""
    task = record.config.get("task")
    return isinstance(task, Mapping) and task.get("use") == "numbers"


def predictions(diagnostics: Facts) -> tuple[tuple[float, float], ...]:
    """(target, output) of some test examples of numbers, or empty.

    Raises:
        DataError: they are no numbers, or not as many of both.
    """
    found = diagnostics.get("predictions", {})
    wanted, given = (checked_list(found, key) for key in ("target", "output")) if isinstance(found, Mapping) else ([], [])
    pairs: list[tuple[Any, Any]] = []
    for row, answers in zip(wanted, given, strict=False):
        pairs += list(zip(row, answers, strict=False)) if isinstance(row, list) and isinstance(answers, list) else [(row, None)]
    if len(wanted) != len(given) or not all(isinstance(n, int | float) and math.isfinite(n) for pair in pairs for n in pair):
        raise senseless("predictions", "something else", "as many numbers wanted as given")
    return tuple((float(a), float(b)) for a, b in pairs)


def series(diagnostics: Facts) -> DrawnSeries | None:
    """Return a test sequence over time, or None.

    Raises:
        DataError: its parts are no numbers, or not as long as each other.
    """
    found = diagnostics.get("series")
    if not isinstance(found, Mapping):
        return None
    parts = [checked_list(found, key) for key in ("input", "target", "output")]
    first = number(found, "first")
    if (
        first is None
        or len({len(part) for part in parts}) > 1
        or not all(isinstance(n, int | float) and math.isfinite(n) for part in parts for n in part)
    ):
        raise senseless("series", "something else", "as many inputs as targets and outputs, all numbers")
    return DrawnSeries(tuple(first + k for k in range(len(parts[0]))), *(tuple(map(float, part)) for part in parts))


def states(diagnostics: Facts) -> DrawnStates | None:
    """Return the states of a node with memory, or None.

    Raises:
        DataError: they are no numbers, or not as many values of each node.
    """
    found = diagnostics.get("states")
    if not isinstance(found, Mapping):
        return None
    nodes, listed = numbers(found, "states.nodes"), checked_list(found, "values")
    rows = tuple(numbers({"values": row}, "states.values") for row in listed)
    if len(rows) != len(nodes) or len({len(row) for row in rows}) > 1:
        raise senseless("states", "something else", "as many values of each node")
    memory, spectrum = optional(found, "states.memory"), optional(found, "states.spectrum")
    if any(not 0 <= share <= 1 + 1e-9 for share in (*memory, *spectrum)) or (spectrum and not sum(spectrum) > 0):
        raise senseless("states", "something else", "shares from 0 to 1")
    return DrawnStates(nodes, rows, memory, spectrum)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the interval of the true share with 95 % confidence, from `share` of `count` trials.

    >>> tuple(round(v, 3) for v in wilson(0.95, 180))
    (0.908, 0.973)
    """
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def tested(record: RunRecord, table: Confusion) -> int | None:
    """Return how many test examples there were, if the confusion matrix agrees with the accuracy in the summary."""
    accuracy, total = number(record.summary, "test_accuracy"), sum(map(sum, table))
    if accuracy is None or not total:
        return None
    right = sum(row[k] for k, row in enumerate(table))
    return total if abs(right / total - accuracy) < 0.5 / total else None


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone() if isinstance(text, str) else None
    except ValueError:
        return None


def _said(line: Facts) -> str:
    """Return what a journal line says besides its time and kind: the message, then the facts but those in tables."""
    told = [str(line[key]) for key in ("message", "what") if key in line]
    known = {"t", "kind", "message", "what", *(key for key, value in line.items() if isinstance(value, Mapping))}
    rest = [f"{key.replace('_', ' ')} {_short(value)}" for key, value in line.items() if key not in known]
    return "\n".join([*told, ", ".join(rest)]).strip()


def _short(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_short, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _mapping(facts: Facts, key: str) -> Facts | None:
    value = facts.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise senseless(key, type(value).__name__, "an object")
    return value


def checked_list(facts: Facts, key: str) -> list[Any]:
    """Return the list under `key`, or []. Raises: DataError: it is none."""
    value = facts.get(key)
    if value is not None and not isinstance(value, list):
        raise senseless(key, type(value).__name__, "a list")
    return value or []


def numbers(facts: object, key: str, where: str = PLACE) -> Numbers:
    """Return the list under the last part of the dotted `key`; every item a number, NaN allowed.

    Args:
        facts: of a file of the run.
        key: dotted, for the message.
        where: the file.

    Raises:
        DataError: it is no such list.
    """
    value = facts.get(key.rsplit(".", 1)[-1]) if isinstance(facts, Mapping) else None
    if not isinstance(value, list) or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        raise senseless(key, type(value).__name__, "a list of numbers", where)
    return tuple(map(float, value))


def optional(facts: Facts, key: str) -> Numbers:
    """Return the numbers under the last part of `key`, or (). Raises: DataError: as of `numbers`."""
    return () if facts.get(key.rsplit(".", 1)[-1]) is None else numbers(facts, key)


def _reordered(part: Numbers, order: Sequence[int]) -> Numbers:
    return tuple(part[k] for k in order) if part else ()


def _same_length(key: str, *parts: Numbers) -> None:
    if len({len(part) for part in parts}) != 1 or not parts[0]:
        raise senseless(key, " and ".join(str(len(part)) for part in parts) + " points", "as many in each list")


def senseless(key: str, got: str, allowed: str, where: str = PLACE) -> DataError:
    """Return the error for a part of a file of the run that is left out."""
    return DataError(f"{key} does not make sense, and is left out", where=where, got=got, allowed=allowed)
