"""The first lines of the report: how well it went, who answered, how many seeds, what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hil.hints import quoted
from hil.metric import Metric
from hil.report.contents import Confusion, curve, metric_of, number, tested, wilson
from hil.report.run_files import Facts, RunRecord

PROVENANCE = {
    "real": ("hardware", "Hardware answered: the node is a real one."),
    "twin": ("twin", "A twin answered: the physics of the node was simulated; no hardware took part."),
    "replay": ("replay", "A recording answered: readings taken earlier were replayed; no hardware took part."),
}
DAYS_S = 96 * 3600.0  # from here on a time is written in days
UNKNOWN = ("origin unknown", "It is not recorded what answered: do not take this for a result of hardware.")


@dataclass(frozen=True, slots=True)
class Tile:
    """One number worth a glance.

    Args:
        note: the small print beneath it.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Headline:
    """The head of a report: one large number, and what it is.

    Args:
        figure: the large number.
        sentence: what it is.
        origin, badge: who answered.
        state: "" or why the run is not done.
    """

    figure: str
    sentence: str
    badge: str
    kind: str
    origin: str
    state: str
    tiles: tuple[Tile, ...]


def verdict(record: RunRecord, table: Confusion) -> Headline:
    """Say in plain words what the summary says."""
    kind = _provenance(record)
    badge, origin = PROVENANCE.get(kind, UNKNOWN)
    figure, sentence = _score(record)
    tiles = [_test(record, table), _validation(record), _seeds(record.summary), _passes(record.summary)]
    tiles += [_time(record.summary), _faults(record.summary), _twin_check(record.summary)]
    return Headline(
        figure=figure,
        sentence=sentence,
        badge=badge,
        kind=kind if kind in PROVENANCE else "unknown",
        origin=origin,
        state=_state(record),
        tiles=tuple(tile for tile in tiles if tile is not None),
    )


def _provenance(record: RunRecord) -> str:
    """Return the summary's provenance; of a run without one, what was going to answer at its start or last resume."""
    if record.summary:
        return str(record.summary.get("provenance", "unknown"))
    said = [line["provenance"] for line in record.journal if "provenance" in line]
    return str(said[-1]) if said else "unknown"


def columns_of(tiles: int) -> int:
    """Return how many of so many tiles stand in a row, so that no last row has only one.

    >>> [columns_of(n) for n in (3, 6, 7, 8, 9)]
    [3, 6, 4, 4, 5]
    """
    rows = math.ceil(tiles / 6)
    return math.ceil(tiles / max(rows, 1))


def percent(share: float) -> str:
    """0.9534 -> "95.3 %", with a space that does not break."""
    return f"{100 * share:.1f}\u00a0%"


def score(metric: Metric, value: float) -> str:
    """A value of the metric: per cent as `percent` writes it, or four figures."""
    return percent(value) if metric.share else metric.shown(value)


def quantity(value: float, unit: str) -> str:
    """Three figures with the SI prefix that suits them.

    >>> quantity(0.000148, "V"), quantity(-3.5, "V"), quantity(0.25, "1")
    ('148 µV', '-3.5 V', '0.25')
    """
    if unit == "1":
        return f"{value:.3g}"
    if not value or not math.isfinite(value):
        return f"{value:g} {unit}"
    power = min(max(math.floor(math.log10(abs(value)) / 3 + 1e-9), -4), 3)
    return f"{value / 1000.0**power:.3g} {('p', 'n', 'µ', 'm', '', 'k', 'M', 'G')[power + 4]}{unit}"


def duration(seconds: float) -> str:
    """Three figures or so, in the unit that a person would use."""
    if seconds < 1:
        return quantity(seconds, "s")
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s" if seconds % 60 < 59.5 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < DAYS_S else f"{seconds / 86400:.1f} days"


def _score(record: RunRecord) -> tuple[str, str]:
    metric = metric_of(record)
    on = _section(record.config, "data").get("use")
    of = f" on {on}" if isinstance(on, str) else ""
    test, validation = (number(record.summary, f"{split}_{metric.name}") for split in ("test", "validation"))
    if test is not None:
        return score(metric, test), f"test {metric.title}{of}"
    if validation is None or not number(record.summary, "best_epoch"):
        seen = [v for v in curve(record.metrics, "validation", metric.name).values if math.isfinite(v)]
        validation = metric.best(seen) if seen else None
    if validation is not None:
        return score(metric, validation), f"validation {metric.title}{of} so far; the test split has not been read"
    return "No result", f"yet{of}: neither the test nor the validation split has been scored"


def _state(record: RunRecord) -> str:
    status = record.summary.get("status")
    if status == "done":
        return ""
    if record.owner:
        return (
            f"This run is still going on ({record.owner}). The page shows it until {_last_time(record)}; "
            f"hil report {quoted(record.place)} makes it anew."
        )
    again = f"Continue it with: hil resume {quoted(record.place)}"
    if status == "interrupted":
        return f"This run was interrupted before its end. {again}"
    if status == "fault":
        return f"This run stopped at a fault, listed under Faults and events. Remove its cause. {again}"
    if status is None:
        killed = "This run has no summary and no process is at work in it: it was killed."
        return f"{killed} Its last record is from {_last_time(record)}. {again}"
    return f"The summary gives the status: {status}."


def _last_time(record: RunRecord) -> str:
    """Return when the last line of the journal was written, to the second, in UTC as it is there."""
    times = [line["t"] for line in record.journal if isinstance(line.get("t"), str)]
    return f"{times[-1][:19].replace('T', ' ')} UTC" if times else "an unknown time"


def _test(record: RunRecord, table: Confusion) -> Tile | None:
    test, examples = number(record.summary, "test_accuracy"), tested(record, table)
    if test is None or examples is None:
        return None
    low, high = wilson(test, examples)
    note = f"{100 * low:.1f} to {percent(high)} with 95\u00a0% confidence"
    return Tile("test examples right", f"{round(test * examples):,} of {examples:,}", note)


def _validation(record: RunRecord) -> Tile | None:
    metric = metric_of(record)
    validation, epoch = number(record.summary, f"validation_{metric.name}"), number(record.summary, "best_epoch")
    if validation is None or not epoch:
        return None
    return Tile(f"validation {metric.title}", score(metric, validation), f"at epoch {epoch:.0f}, the best one")


def _seeds(summary: Facts) -> Tile | None:
    seeds = summary.get("seeds", [summary["seed"]] if "seed" in summary else None)
    if not isinstance(seeds, list) or not seeds:
        return None
    note = "the spread between seeds is unknown" if len(seeds) == 1 else ""
    return Tile("seed" if len(seeds) == 1 else "seeds", ", ".join(map(str, seeds)), note)


def _passes(summary: Facts) -> Tile | None:
    passes = number(summary, "device_passes")
    writes = number(summary, "device_writes")
    missed = number(summary, "device_missed")
    more = "" if writes is None else f"; {writes:,.0f} channels programmed"
    more += f", {missed:,.0f} of them off nevertheless" if missed else ""
    return None if passes is None else Tile("device passes", f"{passes:,.0f}", f"evaluations of the node, all counted{more}")


def _time(summary: Facts) -> Tile | None:
    wall, device = number(summary, "wall_s"), number(summary, "device_s")
    if wall is None:
        return None
    note = "" if device is None or not wall else f"{100 * min(device / wall, 1):.0f} % of it with the node"
    return Tile("wall time", duration(wall), note)


def _faults(summary: Facts) -> Tile | None:
    faults = number(summary, "faults_recovered")
    return None if faults is None else Tile("faults recovered", f"{faults:,.0f}")


def _twin_check(summary: Facts) -> Tile | None:
    """Return the tile of the twin check, of the twin that a learner or this report uses."""
    found = _section(summary, "twin_honesty")
    nrmse, bias = (number(found, key) for key in ("nrmse", "bias"))
    if nrmse is None or bias is None:
        return None
    note = f"of the swing, against {found.get('points')} measured points; bias {quantity(bias, str(found.get('unit', '1')))}"
    return Tile("the twin is off by", f"{100 * nrmse:.2g}\u00a0%", note)


def _section(config: Facts, name: str) -> Facts:
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}
