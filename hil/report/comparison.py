"""Finished run folders -> table.json and compare.html, and the table that both and the terminal show."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hil.errors import RunError
from hil.files import read_object, write_atomic
from hil.metric import Metric
from hil.report.ablation import Worth, ablation
from hil.report.ablation import table as worths
from hil.report.comparison_figures import race
from hil.report.contents import curve, metric_of, number, wilson
from hil.report.figure import Figure
from hil.report.headline import PROVENANCE, UNKNOWN, duration, score
from hil.report.page import publish
from hil.report.run_files import Facts, read
from hil.report.significance import ComparisonRow, RunOutcome, Standings, ranking
from hil.report.tables import TextTable

HEAD = (
    "learner", "seeds", "mean", "std", "worst", "validation", "device passes", "wall", "bits/example", "twin off by",
    "angles, layer 1 …",
)  # fmt: skip
ALIKE = "|r|"  # of g and the slope of the node, where a learner has a g


def outcome(folder: Path, shown: str) -> RunOutcome:
    """Return what a finished run says of itself.

    Raises:
        RunError: it is not finished, or damaged.
    """
    record = read(folder)
    metric = metric_of(record)
    test, validation = (number(record.summary, f"{split}_{metric.name}") for split in ("test", "validation"))
    passes, wall_s, seed = (number(record.summary, key) for key in ("device_passes", "wall_s", "seed"))
    if test is None or validation is None or passes is None or wall_s is None or seed is None:
        raise RunError(
            "not a finished run", where=str(folder), got="; ".join(record.notes) or "a summary without results",
            todo="remove that folder and compare again",
        )  # fmt: skip
    spent, held = curve(record.metrics, "train", "device_passes"), curve(record.metrics, "validation", metric.name)
    scores = dict(zip(held.epochs, held.values, strict=True))
    points = ((p, scores.get(epoch, math.nan)) for epoch, p in zip(spent.epochs, spent.values, strict=True))
    layers = record.diagnostics.get("layers")
    step = _mapping(_mapping(record.diagnostics, "traffic"), "step")
    return RunOutcome(
        seed=int(seed),
        test=test,
        validation=validation,
        passes=passes,
        wall_s=wall_s,
        provenance=str(record.summary.get("provenance", "unknown")),
        folder=shown,
        curve=tuple((p, a) for p, a in points if math.isfinite(a) and math.isfinite(p)),
        angles_deg=tuple(number(layer, "angle_deg") for layer in layers) if isinstance(layers, list) else (),
        step_passes=number(step, "passes_per_example"),
        step_bits=number(step, "bits_per_example"),
        twin_nrmse=number(_mapping(record.summary, "twin_honesty"), "nrmse"),
        metric=metric.name,
        lower=metric.lower,
        warnings=tuple(map(str, said)) if isinstance(said := record.summary.get("warnings"), list) else (),
        rule=str(_mapping(record.config, "learner").get("use", "")),
        overflow=next((v for v in reversed(curve(record.metrics, "train", "overflow").values) if math.isfinite(v)), None),
        feedback_correlation=_correlations(record.summary),
    )


def table(rows: Sequence[ComparisonRow]) -> TextTable:
    """A row a learner, the best first; scores on the test split."""
    alike = any(row.alike for row in rows)
    return TextTable((*HEAD, ALIKE) if alike else HEAD, tuple(_line(row, alike) for row in ranking(rows)))


def _correlations(summary: Facts) -> tuple[float | None, ...]:
    found = summary.get("feedback_correlation")
    return tuple(number({"r": one}, "r") for one in found) if isinstance(found, list) else ()


def _line(row: ComparisonRow, alike: bool) -> tuple[str, ...]:
    bits, metric = row.runs[0].step_bits, row.metric
    return (
        row.learner,
        str(len(row.runs)),
        metric.shown(row.mean, 2),
        "-" if row.std is None else metric.shown(row.std, 2),
        metric.shown(row.worst, 2),
        metric.shown(row.validation, 2),
        f"{row.passes:,.0f}",
        duration(row.wall_s),
        "-" if bits is None else f"{bits:,.0f}",
        f"{100 * max(off):.2g}%" if (off := [run.twin_nrmse for run in row.runs if run.twin_nrmse is not None]) else "-",
        " ".join("-" if a is None else f"{a:.0f}°" for a in row.angles_deg) or "-",
        *([" ".join("-" if r is None else f"{r:.2f}" for r in row.alike) or "-"] if alike else []),
    )


def write(standings: Standings, folder: Path) -> None:
    """table.json and compare.html in `folder`.

    Raises:
        RunError: they cannot be written.
    """
    write_atomic(folder / "table.json", (json.dumps(as_json(standings), indent=1) + "\n").encode())
    publish(folder / "compare.html", "comparison.html", contents(standings))


def as_json(standings: Standings) -> dict[str, Any]:
    """Everything, as JSON values; shares, such as accuracies, are fractions."""
    rows = [
        {
            "learner": row.learner,
            "device": row.device,
            "instead": row.instead,
            "seeds": [run.seed for run in row.runs],
            "mean": row.mean,
            "std": row.std,
            "worst": row.worst,
            "validation_mean": row.validation,
            "device_passes": row.passes,
            "wall_s": row.wall_s,
            "angles_deg": list(row.angles_deg),
            "feedback_correlation": list(row.alike),
            "runs": [dataclasses.asdict(run) for run in row.runs],
        }
        for row in standings.rows
    ]
    contests = [dataclasses.asdict(found) for found in standings.contests()]
    return {
        "name": standings.name,
        "test_examples": standings.test_examples,
        "terms": list(standings.terms),
        "rows": rows,
        "contests": contests,
        "ablation": [one.as_json() for one in ablation(standings)],
    }


def read_standings(folder: Path) -> Standings:
    """Read the standings of a finished comparison from its table.json.

    Raises:
        RunError: there is no such file, or it is damaged.
    """
    path = folder / "table.json"
    table = read_object(path)
    try:
        rows = tuple(
            ComparisonRow(str(row["learner"]), str(row["device"]), tuple(_outcome(run) for run in row["runs"]))
            for row in table["rows"]
        )
        if not rows or not all(row.runs for row in rows):
            raise ValueError("no runs in it")
        return Standings(str(table["name"]), rows, tuple(map(str, table["terms"])), int(table["test_examples"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            "a damaged file", where=str(path), got=f"{type(error).__name__}: {error}",
            allowed="the table that hil compare wrote", todo="give the same hil compare again: finished runs are not repeated",
        ) from error  # fmt: skip


def _outcome(run: Facts) -> RunOutcome:
    """A finished run, as `as_json` wrote it."""
    curve = tuple((float(passes), float(score)) for passes, score in run["curve"])
    angles = tuple(None if angle is None else float(angle) for angle in run["angles_deg"])
    whole = {name: float(run[name]) for name in ("test", "validation", "passes", "wall_s")}
    return RunOutcome(**{**run, **whole, "curve": curve, "angles_deg": angles, "warnings": tuple(map(str, run["warnings"]))})


def contents(standings: Standings) -> dict[str, object]:
    """Return what the template shows, by name."""
    kinds = {run.provenance for row in standings.rows if not row.instead for run in row.runs}
    kind = kinds.pop() if len(kinds) == 1 else "mixed"
    badge, origin = PROVENANCE.get(kind, ("mixed", "Not every run had the same kind of node.") if kind == "mixed" else UNKNOWN)
    found_worth = list(ablation(standings))
    devices = [
        {
            "name": found.device,
            "figure": _race(standings, found.device, number),
            "table": _spaced(table(standings.on(found.device))),
            "spread": _spread(standings.on(found.device), standings.metric),
            "drawn": _drawn(standings.on(found.device)),
            "pairs": found.pairs,
            **_worth([one for one in found_worth if one.node.device == found.device]),
        }
        for number, found in enumerate(standings.contests(), 1)
    ]
    return {
        "name": standings.name,
        "metric": standings.metric.title,
        "kind": kind if kind in PROVENANCE else "unknown",
        "badge": badge,
        "origin": origin,
        "learners": len({row.learner for row in standings.rows}),
        "findings": standings.findings(),
        "devices": devices,
        "terms": (*standings.terms, fineness(standings)),
        "factor": 100 if standings.metric.share else 1,
        "unit": " (percentage points)" if standings.metric.share else "",
        "runs_head": ("learner", "device", "seed", "test", "validation", "device passes", "folder"),
        "runs": [_run(row, run) for row in standings.rows for run in row.runs],
    }


def _worth(listed: Sequence[Worth]) -> dict[str, object]:
    """What the node of a device adds: a table, and a sentence a learner; no table without an ablation."""
    return {"worth": _spaced(worths(listed)) if listed else None, "told": [one.told for one in listed]}


def _run(row: ComparisonRow, run: RunOutcome) -> tuple[str, ...]:
    scores = (score(row.metric, value) for value in (run.test, run.validation))
    return row.learner, row.place, str(run.seed), *scores, f"{run.passes:,.0f}", run.folder


def _spaced(shown: TextTable) -> TextTable:
    """Write per cent as pages have it, with a space that does not break."""
    return TextTable(shown.head, tuple(tuple(cell.replace("%", "\u00a0%") for cell in row) for row in shown.rows))


def _spread(rows: Sequence[ComparisonRow], metric: Metric) -> str:
    seeds = _seeds(rows)
    return (
        f"Mean, standard deviation (std) and worst value of the test {metric.title} over {seeds} of each learner. "
        f"Validation, device passes and wall time are means over the same runs."
    )


def _drawn(rows: Sequence[ComparisonRow]) -> str:
    return (
        f"Lines: mean over {_seeds(rows)}. Bands: ± one standard deviation over these seeds. Where lines lie on each other, "
        f"the wider one is below."
    )


def _seeds(rows: Sequence[ComparisonRow]) -> str:
    """Say over how many seeds: "3 seeds", "1 seed", "2 to 3 seeds"."""
    counts = sorted({len(row.runs) for row in rows})
    return f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} {'seed' if counts == [1] else 'seeds'}"


def _race(standings: Standings, device: str, number: int) -> Figure:
    title = f"Validation {standings.metric.title} over device passes"
    return race({row.learner: row.band() for row in standings.on(device)}, f"race-{number}", title, standings.metric)


def fineness(standings: Standings) -> str:
    """Say how finely the test set can tell."""
    metric = standings.metric
    if metric.name != "accuracy":
        return f"{standings.test_examples:,} test examples, the same ones for all learners; {metric.title}: {metric.way}."
    best = max(row.mean for row in standings.rows)
    low, high = wilson(best, standings.test_examples)
    return (
        f"{standings.test_examples:,} test examples: an accuracy of {best:.1%} is known to {low:.1%} … {high:.1%} (95 %) for "
        f"the population they come from. All learners are tested on the same ones."
    )


def _mapping(facts: Facts, key: str) -> Facts:
    value = facts.get(key)
    return value if isinstance(value, dict) else {}
