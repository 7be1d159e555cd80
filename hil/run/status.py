"""What a run is doing, from its files alone: lock, journal, summary, checkpoints. The instruments are never asked.

locked       opening -> training <-> validating -> testing -> done        recovering: a fault is being put right; paused
not locked   done · interrupted · fault (outputs made safe, resumable) · unsafe · dead: the process is gone without a word
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hil.errors import RunError
from hil.hints import quoted
from hil.metric import Metric, named
from hil.run import glance, journal, resume
from hil.run.lock import UNTOUCHED, RunOwner, owner

RECOVERING = ("recovering",)  # an event of this kind as the last one: a fault is being put right
FAULTS = (*RECOVERING, "recovery", "retransmission", "fault", "recovered", "lost", "unsafe", "stalled", "alarm")
BEGINS, ENDS = glance.BEGINS, glance.ENDS
LATEST_S = 60.0  # rates are taken over the last commits of so long
SHOWN_FAULTS = 3
COMMITS = 4000  # looked at, of a journal however long


@dataclass(frozen=True)
class Status:
    """A run at a glance; None or "" where it is not known. Times and ages in s, shares 0 to 1.

    Args:
        faults: (age, kind, message) of the last few.
        again: how to go on.
    """

    run: str
    state: str
    owner: RunOwner | None
    epoch: int | None
    epochs: int | None
    step: int | None
    steps: int | None
    loss: float | None
    best: tuple[float, int] | None
    metric: str
    device_share: float | None
    health: str
    recovered: int
    faults: tuple[tuple[float | None, str, str], ...]
    commit_age_s: float | None
    left_s: float | None
    checkpoint: str
    checkpoint_age_s: float | None
    again: str
    remarks: tuple[str, ...]


def newest(runs: Path) -> Path:
    """The run in `runs` that was last written to.

    Raises:
        RunError: there is none.
    """
    found = [(max(_modified(p / n) for n in ("journal.jsonl", "config.toml", "run.lock")), p) for p in runs.glob("*/")]
    found = [(when, path) for when, path in found if when]
    if not found:
        raise RunError(
            "no runs here", where=str(runs), got="no run folder in it", outputs=UNTOUCHED, todo="name one: hil status RUN"
        )
    return max(found)[1]


def read(path: Path, now: Callable[[], float] = time.time) -> Status:
    """Read the status of a run.

    Args:
        path: of its folder.
        now: s since 1970.

    Raises:
        RunError: it is no run folder, or its journal cannot be read.
    """
    held = owner(path)
    alive = held is not None and held.alive
    found = resume.inspect(path, verify=not alive)  # those of a live run come and go
    told = journal.contents(path / "journal.jsonl", COMMITS)
    begun = _last(told.records, BEGINS) or {}
    epochs, per_epoch = _whole(begun, "epochs"), _whole(begun, "batches_per_epoch")
    last = journal.committed(told.records)[-1:]
    at: Mapping[str, Any] = last[0] if last else {}
    state = _alive(told.records, epochs, per_epoch) if alive else _ended(told.records, found.status)
    steps = epochs * per_epoch if epochs and per_epoch else None
    share, per_s = _rates(told.records)
    step = _whole(at, "step")
    left = (steps - step) / per_s if alive and steps and step is not None and per_s else None
    newest_point = found.saved[-1] if found.saved else None
    faults = [event for event in told.events() if event["kind"] in FAULTS]
    recovered = max((_whole(r, "in_all") or 0 for r in told.events() if r["kind"] == "recovered"), default=0)
    best, metric = _best(told.events())
    return Status(
        run=str(path),
        state=state,
        owner=held,
        epoch=_whole(at, "epoch"),
        epochs=epochs,
        step=step,
        steps=steps,
        loss=at.get("loss"),
        best=best,
        metric=metric.title,
        device_share=share,
        health=_health(state, faults, now()),
        recovered=max(recovered, _whole(at, "faults") or 0),
        faults=tuple((_age(e, now()), e["kind"], journal.message(e)) for e in faults[-SHOWN_FAULTS:]),
        commit_age_s=_age(at, now()),
        left_s=left,
        checkpoint=newest_point.path.name if newest_point else "",
        checkpoint_age_s=now() - _modified(newest_point.path) if newest_point and _modified(newest_point.path) else None,
        again="" if alive else _again(found),
        remarks=() if alive else tuple([f"{d.file} is damaged: {d.found}" for d in found.damages] + list(found.remarks)),
    )


def brief(path: Path) -> str:
    """A word or two: the state of the run in `path`, and whether its folder is damaged."""
    try:
        held = owner(path)
        alive = held is not None and held.alive
        found = resume.inspect(path, verify=False)
    except RunError as error:
        return f"unreadable: {error.what}"
    begun = next((r["kind"] for r in reversed(found.journal.records) if r["kind"] in (*BEGINS, *ENDS)), "")
    state = ("paused" if begun == "pause" else "at work") if alive else _ended(found.journal.records, found.status)
    return state.partition(":")[0] + (f", {found.damages[0].file} damaged" if found.damages and not alive else "")


def lines(status: Status) -> Iterator[str]:
    """Write a status for a terminal, line by line."""
    yield f"run     {status.run}"
    who = f", {'by' if status.owner.alive else 'last by'} {status.owner}" if status.owner else ""
    yield f"state   {status.state}{who}"
    yield (
        f"at      epoch {_of(status.epoch, status.epochs)} · step {_of(status.step, status.steps)}"
        f" · loss {_number(status.loss, '.4g')}"
        f" · best validation {_best_shown(status)}"
    )
    yield f"node    device {_number(status.device_share, '.0%')} · health {status.health} · faults recovered {status.recovered}"
    for age, kind, said in status.faults:
        yield f"        {_ago(age)}  {kind}: {' '.join(said.split())[:160]}"
    yield f"commit  {_ago(status.commit_age_s)} · checkpoint {status.checkpoint or 'none'}, {_ago(status.checkpoint_age_s)}"
    if status.left_s is not None:
        yield f"left    about {_duration(status.left_s)}"
    yield from (f"beware  {remark}" for remark in status.remarks)
    if status.again:
        yield f"next    {status.again}"


def log(path: Path) -> Iterator[str]:
    """Every event of the journal, a line each: time, kind, message. Steps are counted, not listed.

    Raises:
        RunError: it is no run folder, or its journal cannot be read.
    """
    resume.inspect(path, verify=False)
    told = journal.contents(path / "journal.jsonl", most=0)
    for event in told.events():
        yield f"{str(event.get('t', ''))[:23]:<23}  {event['kind']:<11} {' '.join(journal.message(event).split())}"
    if told.last:
        yield f"{str(told.last.get('t', ''))[:23]:<23}  {'commit':<11} step {told.last['step']:,}, loss {told.last['loss']:.4g}"
    yield from (f"{'':<23}  {'damaged':<11} {text}" for text in [*told.torn, *told.damaged])


def _alive(records: Sequence[journal.Record], epochs: int | None, per_epoch: int | None) -> str:
    begun = next((i for i in range(len(records) - 1, -1, -1) if records[i]["kind"] in BEGINS), None)
    if begun is None:
        return "opening"
    since = records[begun:]
    last = since[-1]
    if last["kind"] in RECOVERING:
        return "recovering"
    if _last(since, ("pause",)):
        return "paused"
    if _last(since, ("end",)):
        return "done, writing its report"
    if _last(since, ("interrupt", "fault")):
        return "stopping"
    commit, epoch = _last(since, ("commit",)), _last(records, ("epoch",))
    if (
        epoch is not None
        and epochs is not None
        and _whole(epoch, "epoch") == epochs
        and commit in (None, _before(records, epoch))
    ):
        return "testing"
    if commit is not None and per_epoch and commit.get("batch") == per_epoch and last["kind"] in ("commit", "checkpoint"):
        newer = [r for r in since if r["kind"] == "epoch" and r.get("step") == commit.get("step")]
        return "training" if newer else "validating"
    return "training"


def _before(records: Sequence[journal.Record], epoch: journal.Record) -> journal.Record | None:
    """The commit that ended `epoch`."""
    return next((r for r in reversed(records) if r["kind"] == "commit" and r.get("step") == epoch.get("step")), None)


def _ended(records: Sequence[journal.Record], status: str) -> str:
    if status == "done":
        return "done"
    last = _last(records, (*BEGINS, *ENDS))
    if last is None:
        return "dead: gone before its first step" if not records else "dead: gone without a word"
    return ENDS.get(last["kind"], "dead: gone without a word")


def _last(records: Sequence[journal.Record], kinds: Sequence[str]) -> journal.Record | None:
    return next((record for record in reversed(records) if record["kind"] in kinds), None)


def _best(events: Sequence[journal.Record]) -> tuple[tuple[float, int] | None, Metric]:
    """Return the best score with its epoch, the earlier in a tie, and of which metric it is."""
    metric, best = named("accuracy"), None
    for event in events:
        value, epoch = event.get("accuracy", event.get("score")), event.get("epoch")
        if event["kind"] == "epoch" and isinstance(value, float) and isinstance(epoch, int):
            if "score" in event:
                metric = named(str(event.get("metric")), event.get("lower") is True)
            if metric.better(value, None if best is None else best[0]):
                best = value, epoch
    return best, metric


def _best_shown(status: Status) -> str:
    if status.best is None:
        return "-"
    value, epoch = status.best
    share = status.metric == "accuracy"
    return f"{value:.1%} (epoch {epoch})" if share else f"{status.metric} {value:.4g} (epoch {epoch})"


def _rates(records: Sequence[journal.Record]) -> tuple[float | None, float | None]:
    """(share of the time that the device was busy, steps per s) over the last commits of this process."""
    recent: list[tuple[float, journal.Record]] = []
    for record in reversed(records):
        moment = _moment(record)
        if record["kind"] in BEGINS or (recent and moment is not None and recent[0][0] - moment > LATEST_S and len(recent) > 1):
            break
        if record["kind"] == "commit" and moment is not None:
            recent.append((moment, record))
    if len(recent) < 2 or recent[0][0] <= recent[-1][0]:
        return None, None
    wall = recent[0][0] - recent[-1][0]
    busy = recent[0][1].get("device_s", 0.0) - recent[-1][1].get("device_s", 0.0)
    steps = recent[0][1].get("step", 0) - recent[-1][1].get("step", 0)
    return min(max(busy / wall, 0.0), 1.0), max(steps / wall, 0.0) or None


def _health(state: str, faults: Sequence[journal.Record], now: float) -> str:
    if state in ("recovering", "unsafe", "fault"):
        return state
    ages = [age for event in faults if (age := _age(event, now)) is not None]
    if not ages:
        return "good"
    last = f"last fault {_ago(min(ages))}"
    return f"good again, {last}" if min(ages) > LATEST_S else f"shaky, {last}"


def _again(found: resume.Condition) -> str:
    try:
        plan = resume.plan(found)
    except RunError as error:
        return f"{error.what} ({error.where}; {error.got}): {error.todo}" if error.got else error.todo
    return f"hil resume {quoted(found.path)}   ({plan.said[-1]})"


def _whole(record: Mapping[str, Any], key: str) -> int | None:
    value = record.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _moment(record: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(record["t"]).replace(tzinfo=UTC).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _age(record: Mapping[str, Any], now: float) -> float | None:
    moment = _moment(record)
    return None if moment is None else max(0.0, now - moment)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _of(value: int | None, total: int | None) -> str:
    return f"{'-' if value is None else f'{value:,}'}/{'-' if total is None else f'{total:,}'}"


def _number(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "-"


def _ago(age_s: float | None) -> str:
    return "never" if age_s is None else f"{_duration(age_s)} ago"


def _duration(seconds: float) -> str:
    sizes = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    whole = round(seconds)
    for (size, unit), (smaller, minor) in itertools.pairwise(sizes):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {minor}" if rest and size > 60 else "")
    return f"{whole} s"
