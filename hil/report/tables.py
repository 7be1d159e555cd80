"""The tables of the report: epochs, times, events, confusion, settings, origin; text only, to be escaped by the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hil.metric import Metric
from hil.report.contents import Confusion, Event, by_epoch, number
from hil.report.headline import duration
from hil.report.run_files import Facts

TIMES = {
    "upload": ("sending to the bench", "bench"),
    "wait": ("waiting for the bench", "bench"),
    "read": ("reading back", "bench"),
    "device": ("waiting for the node", "bench"),
    "host": ("learning and evaluation", "host"),
    "learner": ("learner", "host"),
    "optimizer": ("optimiser", "host"),
    "data": ("data", "host"),
    "evaluate": ("evaluation", "host"),
}
EPOCH_COLUMNS = (
    ("loss", "train", "loss", "{:.4f}"),
    ("accuracy", "train", "accuracy", "{:.1%}"),
    ("val. loss", "validation", "loss", "{:.4f}"),
    ("val. accuracy", "validation", "accuracy", "{:.1%}"),
    ("clipped", "train", "overflow", "{:.2%}"),
    ("samples/s", "train", "samples_per_s", "{:,.0f}"),
    ("device s", "train", "device_s", "{:,.1f}"),
    ("wall s", "train", "wall_s", "{:,.1f}"),
)
SPLITS = (("", "train"), ("val. ", "validation"))
LAYER_COLUMNS = (
    ("angle to the gradient", "angle_deg", "{:.1f}°"),
    ("firing rate", "firing_rate", "{:.2%}"),
    ("range in use", "range_use", "{:.0%}"),
)
OPERATION_COLUMNS = (
    ("accumulations", "accumulations", "{:,.0f}"),
    ("multiply-accumulations", "multiplications", "{:,.0f}"),
    ("memory accesses", "memory_accesses", "{:,.0f}"),
    ("energy, nJ", "energy_nj", "{:,.1f}"),
    ("firing rate", "firing_rate", "{:.2%}"),
)
SHOWN_EVENTS = 100
DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the wall time.

    Args:
        family: "bench", "host" or "rest"; tint 0, 1, … within it.
    """

    name: str
    text: str
    share: float
    family: str
    tint: int


@dataclass(frozen=True, slots=True)
class Cell:
    """A count of the confusion matrix, and its share of its row, 0 to 1."""

    count: int
    share: float
    right: bool


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of a report, all text.

    Args:
        head: of the columns.
        rows: each as wide as the head.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def epochs(metrics: Sequence[Facts], metric: Metric) -> TextTable:
    """A row an epoch; a column for every quantity that was recorded at all, the metric of the run among them."""
    lines = by_epoch(metrics)
    known: tuple[tuple[str, str, str, str], ...] = EPOCH_COLUMNS
    if metric.name != "accuracy":
        form = "{:.1%}" if metric.share else "{:.4g}"
        known = (*known[:4], *((f"{of}{metric.title}", split, metric.name, form) for of, split in SPLITS), *known[4:])
    columns = [c for c in known if any(split == c[1] and c[2] in line for (_, split), line in lines.items())]
    layers = max((len(_list(line, "correlation")) for line in lines.values()), default=0)
    rows = []
    for epoch in sorted({epoch for epoch, _ in lines}):
        cells = [_cell(lines.get((epoch, split), {}), key, form) for _, split, key, form in columns]
        found = next((r for s in ("train", "validation") if (r := _list(lines.get((epoch, s), {}), "correlation"))), [])
        cells += [f"{r:+.3f}" if isinstance(r, int | float) else "-" for r in [*found, *[None] * (layers - len(found))]]
        rows.append((str(epoch), *cells))
    return TextTable(("epoch", *(c[0] for c in columns), *(f"r, layer {n}" for n in range(1, layers + 1))), tuple(rows))


def shares(seconds: Mapping[str, float]) -> tuple[Share, ...]:
    """Parts of the wall time, the bench first, the rest last."""
    total = sum(seconds.values()) or 1.0
    names = TIMES if "learner" not in seconds else {**TIMES, "host": ("drivers on the host", "host")}
    tints = {"bench": 0, "host": 0, "rest": 0}
    found = []
    named = [(*names.get(key, ("everything else" if key == "other" else key, "rest")), value) for key, value in seconds.items()]
    for name, family, value in sorted(named, key=lambda part: list(tints).index(part[1])):
        found.append(Share(name, duration(value), value / total, family, tints[family]))
        tints[family] += 1
    return tuple(found)


def layers(diagnostics: Facts) -> TextTable | None:
    """A row a layer: angle to the true gradient, firing rate, range in use; only the columns that hold anything."""
    found = [line for line in _list(diagnostics, "layers") if isinstance(line, Mapping)]
    columns = [c for c in LAYER_COLUMNS if any(number(line, c[1]) is not None for line in found)]
    rows = tuple((str(n), *(_cell(line, key, form) for _, key, form in columns)) for n, line in enumerate(found, 1))
    return TextTable(("layer", *(c[0] for c in columns)), rows) if columns else None


def traffic(diagnostics: Facts) -> TextTable | None:
    """Return what one training step and one prediction ask of the devices, per example."""
    seen = diagnostics.get("traffic")
    parts = [(part, seen.get(part)) for part in ("step", "prediction")] if isinstance(seen, Mapping) else []
    keys = ("passes_per_example", "bits_per_example")
    rows = tuple((part, *(_cell(line, key, "{:,.0f}") for key in keys)) for part, line in parts if isinstance(line, Mapping))
    return TextTable(("per example", "device passes", "bits moved"), rows) if rows else None


def operations(diagnostics: Facts) -> TextTable | None:
    """Return what the products of one training step cost, forward and backward, per example; None of static nodes."""
    seen = diagnostics.get("operations")
    rows = []
    for part in ("forward", "backward"):
        line = seen.get(part) if isinstance(seen, Mapping) else None
        if isinstance(line, Mapping):
            shown = {**line, "energy_nj": 1e9 * (number(line, "energy_j") or 0.0)}
            rows.append((part, *(_cell(shown, key, form) for _, key, form in OPERATION_COLUMNS)))
    return TextTable(("per example", *(name for name, *_ in OPERATION_COLUMNS)), tuple(rows)) if rows else None


def events(listed: Sequence[Event]) -> tuple[tuple[str, str, str], ...]:
    """(time since the start, kind, text) of the first events."""
    return tuple(("" if e.since_s is None else duration(e.since_s), e.kind, e.text) for e in listed[:SHOWN_EVENTS])


def matrix(table: Confusion) -> tuple[tuple[Cell, ...], ...]:
    """Counts with their share of the row, which is the true class."""
    rows = []
    for true, row in enumerate(table):
        total = sum(row) or 1
        rows.append(tuple(Cell(n, n / total, true == predicted) for predicted, n in enumerate(row)))
    return tuple(rows)


def confused(table: Confusion, classes: Sequence[str], most: int = 5) -> tuple[str, ...]:
    """The commonest mistakes, worst first."""
    wrong = [(n, t, p) for t, row in enumerate(table) for p, n in enumerate(row) if n and t != p]
    wrong.sort(key=lambda pair: (-pair[0], pair[1:]))
    return tuple(f"{classes[true]} taken for {classes[predicted]}: {n:,}" for n, true, predicted in wrong[:most])


def class_names(diagnostics: Facts, table: Confusion) -> tuple[str, ...]:
    """Names from `classes` in the diagnostics where they fit, numbers otherwise."""
    names = _list(diagnostics, "classes")
    return tuple(map(str, names if len(names) == len(table) else range(len(table))))


def settings(config: Facts) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """(section, ((key, value), ...)) of the configuration; what stands outside any section comes first, as "run"."""
    loose = tuple((key, plain(value)) for key, value in config.items() if not isinstance(value, Mapping))
    found = [("run", loose)] if loose else []
    found += [(name, tuple(_flat(value))) for name, value in config.items() if isinstance(value, Mapping)]
    return tuple(found)


ORIGIN = ("provenance", "node", "resources", "versions")  # of a summary


def origin(summary: Facts) -> tuple[tuple[str, str], ...]:
    """Who answered, flat: node, instruments with serial numbers, versions."""
    return tuple(_flat({key: summary[key] for key in ORIGIN if key in summary}))


def rest(summary: Facts) -> tuple[tuple[str, str], ...]:
    """Everything else that the summary says, flat."""
    return tuple(_flat({key: value for key, value in summary.items() if key not in ORIGIN}))


def plain(value: object) -> str:
    """A value as a person would write it."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return str(value)


def _flat(facts: Facts, depth: int = 0) -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        if isinstance(value, Mapping) and value and depth < DEEPEST:
            yield from ((f"{key} · {inner}", text) for inner, text in _flat(value, depth + 1))
        else:
            yield str(key), plain(value)


def _cell(line: Facts, key: str, form: str) -> str:
    value = number(line, key)
    if value is None:
        return "-" if line.get(key) is None else str(line[key])
    return form.format(value).replace("%", " %")


def _list(facts: Facts, key: str) -> list[object]:
    value = facts.get(key)
    return value if isinstance(value, list) else []
