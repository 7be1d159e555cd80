"""What the journal and the metrics of one run say, read from their first and last lines in a time that does not grow with them.

Ends of runs are always among the last lines: a process that ends writes nothing after them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hil.errors import RunError
from hil.files import loads, opened
from hil.metric import named
from hil.plain import plain
from hil.run import journal
from hil.run.outputs import HELD, guarded, hosted

TAIL_BYTES = 1 << 13
METRIC_BYTES = 1 << 18  # some thousand epochs
BEGINS = ("start", "resume")
ENDS = {"interrupt": "interrupted", "fault": "fault", "unsafe": "unsafe", "end": "done", "pause": "interrupted"}
LEAST_S = 0.05
OFF, TWIN, UNKNOWN = "off, read back", "none (twin)", "not known"
TWIN_TOLD = "none; the node is a twin"  # how a summary begins to say it


@dataclass(frozen=True)
class Score:
    """A score of a run.

    Args:
        metric: what it is judged by.
        value: None: not known yet.
        split: "test" or "validation".
        lower: a lower value is better.
    """

    metric: str = ""
    value: float | None = None
    split: str = ""
    lower: bool = False


@dataclass(frozen=True)
class Told:
    """What the first and last lines of a journal say.

    Args:
        started: s since 1970. epochs, per_epoch: as the run began, or went on last as far as that is known.
        provenance: who answers.
        driven: there is something whose outputs can be on: instruments, or a device that is no twin in the process itself.
        commit: the last committed step; empty before the first.
        per_s: steps a second, over the last lines.
        wall_s: from the first line to the last, s.
        last: what began or ended last: a kind of BEGINS or ENDS, or "".
        outputs: what was said of them after that; "" if nothing was.
        newer: the run went on after its last end, so a summary is of an earlier one.
        score: of the last "epoch": its metric, and which way is better.
        damaged: lines that cannot be read.
    """

    started: float | None = None
    epochs: int | None = None
    per_epoch: int | None = None
    provenance: str = ""
    driven: bool = True
    commit: Mapping[str, Any] = field(default_factory=dict)
    per_s: float | None = None
    wall_s: float | None = None
    last: str = ""
    outputs: str = ""
    newer: bool = False
    score: Score = Score()
    damaged: int = 0


def told(path: Path) -> Told:
    """Read the journal of the run in the folder `path`.

    Raises:
        RunError: it cannot be read at all.
    """
    head, tail, damaged = journal.ends(path / "journal.jsonl", last=TAIL_BYTES)
    if not head:
        return Told(damaged=damaged)
    begun: Mapping[str, Any] = next((r for r in reversed([*head, *tail]) if r["kind"] in BEGINS), {})
    place = next((n for n in range(len(tail) - 1, -1, -1) if tail[n]["kind"] in (*BEGINS, *ENDS)), -1)
    last = tail[place]["kind"] if place >= 0 else ""
    said = [r["outputs"] for r in tail[place:] if isinstance(r.get("outputs"), str)] if last in ENDS else []
    commits = [r for r in tail if r["kind"] == "commit"]
    since = [r for r in tail[place + 1 :] if r["kind"] == "commit"] if last in BEGINS else commits
    times = [when for r in (head[0], tail[-1]) if (when := moment(r)) is not None]
    provenance = begun.get("provenance")
    counts = {key: value if isinstance(value := begun.get(key), int) else None for key in ("epochs", "batches_per_epoch")}
    return Told(
        started=times[0] if times else None, epochs=counts["epochs"], per_epoch=counts["batches_per_epoch"],
        provenance=provenance[:40] if isinstance(provenance, str) else "",
        driven=not (provenance == "twin" and begun.get("resources") == {}),
        commit=commits[-1] if commits else {}, per_s=_rate(since), wall_s=times[1] - times[0] if len(times) == 2 else None,
        last=last, outputs=said[-1] if said else "", newer=last not in ENDS, score=_scored(tail), damaged=damaged,
    )  # fmt: skip


def state(found: Told, summary: Mapping[str, Any], alive: bool) -> str:
    """The state of a run in a word or two, see hil/run/status.py."""
    if alive:
        return "paused" if found.last == "pause" else "at work"
    if found.last in ENDS:
        return "done" if summary.get("status") == "done" else ENDS[found.last]
    return "done" if summary.get("status") == "done" and not found.commit and not found.last else "dead"


def outputs(path: Path, found: Told, summary: Mapping[str, Any], alive: bool) -> str:
    """What is known of the outputs of the run in the folder `path`.

    Args:
        path: of the folder.
        found: what its journal says.
        summary: of the run; believed only if the run ended after it was begun last.
        alive: a process is at work in the folder.
    """
    if not found.driven:
        return TWIN
    said = found.outputs or ("" if found.newer else _text(summary.get("outputs")))
    if alive:
        if found.last in ENDS:
            return said_plainly(said) if found.outputs else UNKNOWN  # not read back yet
        return "on" if found.last or found.commit else UNKNOWN  # else it is being opened
    if said:
        return said_plainly(said)
    guardian = guarded(path)
    known = {guardian.said, hosted(path)} - {""}
    if known == {"safe"}:
        return said_plainly(guardian.after or (OFF if guardian.said else HELD))
    gone = guardian.virtual and guardian.settled and known == {"unknown"}
    return "none (its virtual bench is gone)" if gone else UNKNOWN


def said_plainly(text: str) -> str:
    """What a run said of its outputs, in the words of an index; any other text is kept."""
    if text.startswith("off, read back"):
        return OFF
    return TWIN if text.startswith(TWIN_TOLD) else UNKNOWN if text.startswith("not known") else plain(text)[:120]


def summed(summary: Mapping[str, Any]) -> Score:
    """The test score of a summary, else the best on the validation split."""
    if not summary:
        return Score()
    metric = _text(summary.get("metric")) or "accuracy"
    lower = summary.get("better") == "lower"
    for split in ("test", "validation"):
        value = number(summary.get(f"{split}_{metric}"))
        if value is not None:
            return Score(metric, value, split, lower)
    return Score(metric, None, "", lower)


def validated(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The last lines of metrics.jsonl that are of the validation split; damaged ones are left out."""
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - METRIC_BYTES))
            lines = file.read(METRIC_BYTES).split(b"\n")[1 if size > METRIC_BYTES else 0 : -1]
    except (RunError, OSError):
        return ()
    found = []
    for line in lines:
        if b'"validation"' in line:
            with suppress(RunError):
                value = loads(line, path.name)
                if isinstance(value, dict) and value.get("split") == "validation":
                    found.append(value)
    return tuple(found)


def best(epochs: Sequence[Mapping[str, Any]], found: Told, config: Mapping[str, Any]) -> Score:
    """The best score of some epochs on the validation split.

    Args:
        epochs: lines of metrics.jsonl.
        found: what the journal says, which may name the metric.
        config: of the run, whose [task] may.
    """
    task = config.get("task")
    asked = task.get("metric") if isinstance(task, dict) else None
    metric = found.score.metric or (asked if isinstance(asked, str) else "")
    if metric not in epochs[-1]:
        rest = [key for key, value in epochs[-1].items() if key not in ("epoch", "step", "loss") and number(value) is not None]
        metric = "accuracy" if "accuracy" in rest else next(iter(rest), "loss")
    lower = found.score.lower if found.score.metric == metric else _lower(metric)
    values = [value for epoch in epochs if (value := number(epoch.get(metric))) is not None]
    return Score(metric, (min if lower else max)(values, default=None), "validation", lower)


def _lower(metric: str) -> bool:
    """Whether a lower value of this metric is better, of a run that has not said so."""
    return metric == "loss" or named(metric).lower


def number(value: object) -> float | None:
    """`value` as a finite number; None of anything else."""
    try:
        found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:
        return None
    return found if found is not None and math.isfinite(found) else None


def moment(record: Mapping[str, Any]) -> float | None:
    """When a line of a journal was written, s since 1970."""
    try:
        return datetime.fromisoformat(record["t"]).replace(tzinfo=UTC).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _rate(commits: Sequence[Mapping[str, Any]]) -> float | None:
    """Steps a second."""
    if len(commits) < 2:
        return None
    begin, end = moment(commits[0]), moment(commits[-1])
    steps = commits[-1]["step"] - commits[0]["step"]
    return steps / (end - begin) if begin is not None and end is not None and end - begin > LEAST_S and steps > 0 else None


def _scored(tail: Sequence[Mapping[str, Any]]) -> Score:
    record: Mapping[str, Any] = next((r for r in reversed(tail) if r["kind"] == "epoch"), {})
    if "score" in record:
        return Score(_text(record.get("metric")), number(record["score"]), "validation", record.get("lower") is True)
    return Score("accuracy", number(record.get("accuracy")), "validation") if "accuracy" in record else Score()


def _text(value: object) -> str:
    return plain(value)[:200] if isinstance(value, str) else ""
