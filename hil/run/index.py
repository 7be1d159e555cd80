"""Many folders at a glance: runs, comparisons, searches and calibrations below some roots, each an Entry.

Of a run are read: summary.json, config.toml, notes.toml, and the first and last lines of journal.jsonl; of metrics.jsonl the
last lines, and only while there is no summary. Checkpoints and tapes are never opened. What was read is kept, and read again
when time or size of one of these files has changed. A damaged file is a remark of its Entry, never an error.

    root/**/config.toml                    a run; with search.toml beside it a search
    root/**/runs/<learner>/<device>/seed-n a comparison, if asked.toml is in one of them; each of its runs is an Entry too
    root/**/*.toml beside .safetensors     a calibration
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hil import toml
from hil.errors import RunError
from hil.files import opened, read_object, read_text
from hil.plain import plain
from hil.run import glance, notes
from hil.run.folder import LOGS
from hil.run.lock import NAME as LOCK
from hil.run.lock import owner

WATCHED = ("config.toml", "summary.json", "journal.jsonl", "metrics.jsonl", "guardian.jsonl", notes.NAME, LOCK)
OF_SEARCH = ("search.toml", "generations.jsonl")
RUN_FILES = frozenset(("config.toml", "journal.jsonl", "summary.json", LOCK))  # any of them: a run folder, damaged perhaps
INSIDE = frozenset(
    ("checkpoints", "tape", "wire", "feedback", LOGS, "figures")
)  # folders of a run or of a page, not looked into
DEEPEST = 6  # folders below a root
MOST_LETTERS = 200
GENERATION_BYTES = 1 << 26

Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Entry:
    """A run, comparison, search or calibration at a glance; None or "" where something is not known.

    Args:
        path: of the folder; of a calibration, its file.
        kind: "run", "comparison", "search" or "calibration".
        name: as its file has it, else that of the folder.
        state: "at work", "paused", "done", "interrupted", "fault", "unsafe", "dead" or "unreadable"; of a calibration "good" or
            "bad".
        started: when it was begun, s since 1970.
        changed: when a file of it was last written, s since 1970.
        learner: which one; of a comparison all of them.
        device: what [device] names, without folder; of a calibration the bench.
        provenance: who answers: "real", "twin", "replay", "unknown".
        seed: of the run.
        metric: what it is judged by, as "accuracy".
        value: the test score if there is one, else the best on the validation split; an accuracy from 0 to 1.
        split: of which examples `value` is: "test", "validation", or "held" of a search.
        lower: a lower value is better.
        epoch, epochs, step, steps: finished, and of how many; of a search generations.
        left_s: how long it will still take, s.
        wall_s, device_s: time that it took, and time that the device was busy, s.
        device_passes: node evaluations.
        faults: that were recovered.
        outputs: of its bench: "on", "off, read back", "none (twin)", "not known", or what its device said.
        tags, note: what people say of it, see hil/run/notes.py.
        remarks: what is damaged, a sentence each.
    """

    path: Path
    kind: str
    name: str
    state: str
    started: float | None = None
    changed: float = 0.0
    learner: str = ""
    device: str = ""
    provenance: str = ""
    seed: int | None = None
    metric: str = ""
    value: float | None = None
    split: str = ""
    lower: bool = False
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    left_s: float | None = None
    wall_s: float | None = None
    device_s: float | None = None
    device_passes: int | None = None
    faults: int = 0
    outputs: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""
    remarks: tuple[str, ...] = ()


class Index:
    """Lists what is below some folders; asked again, it reads what has changed.

    Args:
        roots: folders; one that does not exist is empty. A run folder itself is one, too.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(roots)
        self._known: dict[Path, tuple[Stamp, bool, Entry]] = {}

    def entries(self) -> list[Entry]:
        """Return all entries, the newest first."""
        found: dict[Path, Entry] = {}
        for root in self._roots:
            for entry in self._below(root, 0):
                found.setdefault(entry.path, entry)
        self._known = {path: known for path, known in self._known.items() if path in found}
        return sorted(found.values(), key=lambda entry: -(entry.started or entry.changed))

    def _below(self, folder: Path, depth: int) -> list[Entry]:
        try:
            with os.scandir(folder) as listed:
                files: set[str] = set()
                folders: list[str] = []
                for item in listed:
                    if item.is_dir(follow_symlinks=False):
                        folders.append(item.name)
                    elif item.is_file(follow_symlinks=False):
                        files.add(item.name)
        except (OSError, ValueError):
            return []
        if RUN_FILES & files or "checkpoints" in folders:
            return [self._entry(folder, "search" if "search.toml" in files else "run")]
        found = [
            self._entry(folder / name, "calibration")
            for name in files
            if name.endswith(".toml") and name.removesuffix(".toml") + ".safetensors" in files
        ]
        for name in folders if depth < DEEPEST else ():
            if name not in INSIDE and not name.startswith("."):
                below = self._below(folder / name, depth + 1)
                if name == "runs" and any((entry.path / "asked.toml").is_file() for entry in below[:1]):
                    found.append(compared(folder, below))
                found += below
        return found

    def _entry(self, path: Path, kind: str) -> Entry:
        names = (*WATCHED, *(OF_SEARCH if kind == "search" else ()))
        stamp = _stamp(path, names if kind != "calibration" else ("",))
        known = self._known.get(path)
        alive = kind != "calibration" and _alive(path, known)
        if known is not None and known[:2] == (stamp, alive):
            return known[2]
        try:
            made = {"run": _run, "search": _search, "calibration": _calibration}[kind](path, alive)
        except Exception as error:  # noqa: BLE001 (a folder may hold anything: one of them must not hide the others)
            made = Entry(path, kind, path.name, "unreadable", remarks=(_short(f"{type(error).__name__}: {error}"),))
        entry = replace(made, changed=max((mtime for mtime, _ in stamp), default=0) / 1e9)
        self._known[path] = stamp, alive, entry
        return entry


def compared(folder: Path, runs: Sequence[Entry]) -> Entry:
    """A comparison, from its folder and the entries of its runs."""
    table, remarks = _object(folder / "table.json")
    states = [run.state for run in runs]
    whole = bool(table) and all(state == "done" for state in states)
    ended = next((word for word in ("unsafe", "fault", "dead", "interrupted") if word in states), "interrupted")
    state = next((word for word in ("at work", "paused") if word in states), "done" if whole else ended)
    rows = [row for row in _list(table.get("rows")) if isinstance(row, dict) and _number(row.get("mean")) is not None]
    lower = any(run.lower for run in runs)
    best = (min if lower else max)(rows, key=lambda row: float(row["mean"]), default={})
    tags, note, wrong = _notes(folder)
    return Entry(
        folder, "comparison", _short(table.get("name")) or folder.name, state,
        started=min((run.started for run in runs if run.started is not None), default=None),
        changed=max(run.changed for run in runs),
        learner=_short(best.get("learner")) or ", ".join(dict.fromkeys(run.learner for run in runs)),
        device=_short(best.get("device")) or ", ".join(dict.fromkeys(run.device for run in runs)),
        provenance=", ".join(dict.fromkeys(run.provenance for run in runs if run.provenance)),
        metric=runs[0].metric, value=_number(best.get("mean")), split="test" if best else "", lower=lower,
        step=sum(state == "done" for state in states), steps=len(runs),
        wall_s=_sum(run.wall_s for run in runs), device_s=_sum(run.device_s for run in runs),
        device_passes=None if (passes := _sum(run.device_passes for run in runs)) is None else int(passes),
        faults=sum(run.faults for run in runs),
        outputs=next((run.outputs for run in runs if run.state in ("at work", "paused")), runs[0].outputs),
        tags=tags, note=note, remarks=remarks + wrong,
    )  # fmt: skip


def _run(path: Path, alive: bool) -> Entry:
    summary, remarks = _object(path / "summary.json")
    config, more = _config(path / "config.toml")
    remarks += more
    try:
        told = glance.told(path)
    except RunError as error:
        told, remarks = glance.Told(), (*remarks, f"journal.jsonl: {_short(error.got or error.what)}")
    if told.damaged:
        remarks += (f"journal.jsonl: {told.damaged} damaged lines",)
    tags, note, more = _notes(path)
    state = glance.state(told, summary, alive)
    scored = _score(path, summary, told, config)
    train = config.get("train")
    epochs = _whole(train.get("epochs")) if isinstance(train, dict) else None
    epochs = epochs if epochs is not None else told.epochs
    steps = epochs * told.per_epoch if epochs and told.per_epoch else None
    last = told.commit
    stale = alive or told.newer  # the summary is of an earlier end
    left = (steps - last["step"]) / told.per_s if alive and state == "at work" and steps and last and told.per_s else None
    return Entry(
        path, "run", _short(summary.get("name")) or _short(config.get("name")) or path.name, state,
        started=told.started or _modified(path / "config.toml"),
        learner=_used(config.get("learner")), device=_through(config.get("device")),
        provenance=_short(summary.get("provenance")) or told.provenance,
        seed=_whole(config.get("seed")) if "seed" in config else _whole(summary.get("seed")),
        metric=scored.metric, value=scored.value, split=scored.split, lower=scored.lower,
        epoch=_whole(last.get("epoch")), epochs=epochs, step=_whole(last.get("step")), steps=steps,
        left_s=None if left is None else max(0.0, left),
        wall_s=told.wall_s if stale else _number(summary.get("wall_s")),
        device_s=_number(last.get("device_s") if stale else summary.get("device_s", last.get("device_s"))),
        device_passes=_whole(last.get("passes") if stale else summary.get("device_passes", last.get("passes"))),
        faults=_whole(last.get("faults")) or _whole(summary.get("faults_recovered")) or 0,
        outputs=glance.outputs(path, told, summary, alive), tags=tags, note=note, remarks=remarks + more,
    )  # fmt: skip


def _search(path: Path, alive: bool) -> Entry:
    summary, remarks = _object(path / "summary.json")
    config, more = _config(path / "config.toml")
    asked, _ = _config(path / "search.toml")
    tags, note, wrong = _notes(path)
    table = asked.get("search")
    wanted = _whole(table.get("generations")) if isinstance(table, dict) and "trials" not in table else None
    node = config.get("device")
    benched = "bench" in asked or (isinstance(node, dict) and bool({"bench", "host"} & set(node)))
    state = "at work" if alive else _short(summary.get("status")) or "dead"
    seed = asked.get("seed", summary.get("seed"))
    return Entry(
        path, "search", _short(summary.get("name")) or _short(asked.get("name")) or path.name, state,
        started=_modified(path / "search.toml"), learner=_used(config.get("learner")), device=_through(config.get("device")),
        provenance=_short(summary.get("provenance")), seed=_whole(seed),
        metric=_short(summary.get("judged_by")), value=_number(summary.get("held_accuracy")),
        split="held" if "held_accuracy" in summary else "",
        epoch=_count(path / "generations.jsonl"), epochs=wanted, step=_whole(summary.get("evaluations")),
        wall_s=_number(summary.get("wall_s")), device_passes=_whole(summary.get("device_passes")),
        outputs="not known" if alive and benched else "none (twin)" if not benched else "",
        tags=tags, note=note, remarks=remarks + more + wrong,
    )  # fmt: skip


def _calibration(path: Path, alive: bool) -> Entry:
    table, remarks = _config(path)
    started = None
    try:
        started = datetime.fromisoformat(str(table["taken_at"])).timestamp()
    except (KeyError, ValueError, OverflowError):
        remarks += ("no time at which it was taken",) if table else ()
    steps = _list(table.get("steps"))
    took = _sum(_number(step.get("took_s")) for step in steps if isinstance(step, dict))
    return Entry(
        path, "calibration", path.stem, "good" if table.get("good") is True else "bad", started=started,
        device=_short(table.get("bench")), provenance=_short(table.get("provenance")), seed=_whole(table.get("seed")),
        step=len(steps), steps=len(steps), wall_s=took, remarks=remarks,
    )  # fmt: skip


def _score(path: Path, summary: Mapping[str, Any], told: glance.Told, config: Mapping[str, Any]) -> glance.Score:
    """The test score of a summary, else the best on the validation split."""
    known = glance.summed(summary)
    if known.split == "test" and not told.newer:
        return known
    epochs = glance.validated(path / "metrics.jsonl")
    return glance.best(epochs, told, config) if epochs else replace(known, split="" if known.split == "test" else known.split)


def _alive(path: Path, known: tuple[Stamp, bool, Entry] | None) -> bool:
    """Whether a process holds the folder; a lock file that nobody has touched since it was free is not asked again."""
    try:
        stamp = _stamp(path, (LOCK,))
        if known is not None and not known[1] and known[0][WATCHED.index(LOCK)] == stamp[0]:
            return False
        held = owner(path, patience_s=0.0)
    except (OSError, RunError, ValueError):
        return False
    return held is not None and held.alive


def _stamp(path: Path, names: Sequence[str]) -> Stamp:
    found = []
    for name in names:
        try:
            facts = os.lstat(os.path.join(path, name) if name else path)
            found.append((facts.st_mtime_ns, facts.st_size))
        except (OSError, ValueError):
            found.append((0, -1))
    return tuple(found)


def _object(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The JSON object in a file, and what is wrong with it; nothing of a file that is not there."""
    if not os.path.lexists(path):
        return {}, ()
    try:
        return read_object(path), ()
    except RunError as error:
        return {}, (f"{path.name}: {_short(error.got or error.what)}",)


def _config(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    if not os.path.lexists(path):
        return {}, (f"{path.name} is missing",)
    try:
        return toml.loads(read_text(path, toml.MOST_BYTES)), ()
    except RunError as error:
        return {}, (f"{path.name}: {_short(error.got or error.what)}",)
    except ValueError as error:
        return {}, (f"{path.name}: not TOML: {_short(error)}",)


def _notes(path: Path) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    try:
        kept = notes.read(path)
    except RunError as error:
        return (), "", (f"{notes.NAME}: {_short(error.got or error.what)}",)
    return kept.tags, kept.note, ()


def _used(table: object) -> str:
    return short_name(table.get("use")) if isinstance(table, dict) else ""


def _through(device: object) -> str:
    """What [device] names; a network with a device a layer: how many."""
    if isinstance(device, dict) and isinstance(device.get("layers"), list) and device["layers"]:
        device = device["layers"]
    if isinstance(device, list):
        return f"{len(device)} devices"
    named = (device.get(key) for key in ("bench", "use", "chip", "host")) if isinstance(device, dict) else ()
    return next((short_name(one) for one in named if one), "")


def short_name(use: object) -> str:
    """The last part of the path of a file or of a class: "mzm_awg_scope", "MachZehnder"."""
    if not isinstance(use, str):
        return ""
    return _short(use.rpartition("/")[2].removesuffix(".toml").rpartition(":")[2] or use)


def _count(path: Path) -> int | None:
    """Lines of a file; None of one that cannot be read."""
    try:
        with opened(path) as file:
            return file.read(GENERATION_BYTES).count(b"\n")
    except (RunError, OSError):
        return None


def _modified(path: Path) -> float | None:
    try:
        return os.lstat(path).st_mtime
    except (OSError, ValueError):
        return None


def _short(value: object) -> str:
    """A text of a file as it may be shown in one line; "" of any other value that is missing."""
    return "" if value is None else plain(" ".join(str(value)[: 2 * MOST_LETTERS].split()))[:MOST_LETTERS]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def _number(value: object) -> float | None:
    return glance.number(value)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _sum(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
