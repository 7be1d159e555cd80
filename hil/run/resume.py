"""In which condition a run folder is, and where a resume can go on: read from files alone, nothing is changed.

    inspect(folder) -> Condition      what is there, what is damaged, which checkpoints are good
    plan(condition) -> Plan           where to go on and what must be said about it, or Refused: file, finding, way out

Rules of the plan
    damage is never passed over: the newest checkpoint is used or refused, an earlier one only if the user says so (--from)
    a checkpoint that the journal knows of and that is gone is damage; steps beyond the newest checkpoint are not: they are made
    again, with the same numbers
    what makes the numbers (settings, bench) must be what the checkpoint was made under, or the user means it (--changed)
    no checkpoint was ever written: the run starts again from step 0
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil import toml
from hil.config.experiment import COPIES, KEPT, made_in_python
from hil.errors import RunError
from hil.files import read_bytes, read_object, read_text, there
from hil.hints import quoted
from hil.run import checkpoint, journal
from hil.run.lock import UNTOUCHED
from hil.run.summary import STATUSES

FREE = (  # settings that may change without a word: they change no number, or only where the run ends
    "name", "script", "alarm", "log", "train.epochs", "train.budget_passes", "train.budget_writes", "train.patience",
    "train.min_delta", "train.checkpoint_every", "train.checkpoint_every_s", "train.threads",
)  # fmt: skip
MEASURED = "decode", "network.pieces"  # absent from a config that was written before, see hil/build/measured.py


@dataclass(frozen=True)
class Damage:
    """Something wrong with a run folder.

    Args:
        file: in the run folder.
        found: what is wrong with it.
        todo: how to go on.
    """

    file: str
    found: str
    todo: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint: its place, and why it cannot be used, or ""."""

    path: Path
    step: int
    damage: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Condition:
    """A run folder, read.

    Args:
        status: of its summary; "" if there is none.
        config, bench: parsed, and its SHA-256; empty if missing.
        saved: checkpoints, oldest first.
        lost: names of those that the journal knows of, beyond them.
        journal: its events and last commit.
        lacking: what a finished run still has to be given.
        damages: what forbids to go on as if nothing had happened.
        remarks: what does not, and must be said.
    """

    path: Path
    status: str
    config: Mapping[str, Any]
    bench: str
    saved: tuple[Saved, ...]
    lost: tuple[str, ...]
    journal: journal.Contents
    lacking: tuple[str, ...]
    damages: tuple[Damage, ...]
    remarks: tuple[str, ...]

    @property
    def good(self) -> Saved | None:
        """The newest checkpoint that can be used."""
        return next((saved for saved in reversed(self.saved) if not saved.damage), None)

    @property
    def last_good(self) -> str:
        """Name the last good checkpoint, with the command that goes on from there."""
        if self.good is None:
            return f"no checkpoint can be used; train anew: hil train {quoted(self.path / 'config.toml')}"
        again = f"hil resume {quoted(self.path)} --from {quoted(f'{self.good.path.parent.name}/{self.good.path.name}')}"
        return f"the last good state is step {self.good.step:,}; to go on from there: {again}"


@dataclass(frozen=True)
class ResumePlan:
    """The way in which a run goes on.

    Args:
        start: the checkpoint to go on from, or None for step 0.
        finish: what is missing of a run whose training is over.
        said: what the user must know about it, a sentence each.
    """

    start: Path | None
    finish: tuple[str, ...]
    said: tuple[str, ...]


def inspect(path: Path, verify: bool = True) -> Condition:
    """Read the run folder at `path`.

    Args:
        path: of the folder.
        verify: compute the sums of checkpoints, which takes as long as reading them.

    Raises:
        RunError: it is not a folder that hil train made.
    """
    if not (path / "config.toml").is_file() and not (path / "checkpoints").is_dir():
        got = "no such folder" if not path.exists() else "no config.toml in it" if path.is_dir() else "a file"
        raise RunError(
            "not a run folder", where=str(path), got=got, outputs=UNTOUCHED,
            todo="name a folder that hil train made; hil list runs shows them",
        )  # fmt: skip
    damages: list[Damage] = []
    remarks: list[str] = []
    saved = tuple(_saved(path, verify))
    config = _config(path, saved, damages)
    bench = _bench(path, config, damages)
    summary = _object(path, "summary.json", "remove it, it is written again at the end; then", damages)
    status = str(summary.get("status", ""))
    if summary and status not in STATUSES:
        damages.append(Damage("summary.json", f'status "{status}"', f"remove it, then: hil resume {quoted(path)}"))
    drawn = _object(path, "diagnostics.json", "remove it, which costs the report the transfer curve; then", damages)
    told = _journal(path, damages, remarks)
    lost = tuple(_lost(told.events(), saved))
    return Condition(
        path, status, config, bench, saved, lost, told, tuple(_lacking(path, drawn)), tuple(damages), tuple(remarks)
    )


def plan(condition: Condition, chosen: Path | None = None, changed: bool = False, python: bool = False) -> ResumePlan:
    """Decide where to go on.

    Args:
        condition: of the folder, as it was inspected.
        chosen: a checkpoint, by the user's word.
        changed: the user means the changes in config.toml and bench.toml.
        python: who asks is the script that made the run.

    Raises:
        RunError: the folder is damaged, the run finished, or the checkpoint is none of this run's.
    """
    path = condition.path
    if condition.damages:
        first = condition.damages[0]
        more = "".join(f"; {other.file}: {other.found}" for other in condition.damages[1:])
        raise RunError(
            "a damaged run folder", where=str(path / first.file), got=first.found + more, outputs=UNTOUCHED, todo=first.todo
        )
    made = None if python else made_in_python(condition.config, str(path))
    if condition.status == "done" and not condition.lacking:
        longer = f"hil resume {quoted(path)} --set train.epochs=N" if made is None else "more epochs in the script that made it"
        raise RunError(
            "this run is finished", where=str(path), outputs=UNTOUCHED,
            todo=f"look at it: hil report {quoted(path)}; or train it longer: {longer}",
        )  # fmt: skip
    if made is not None:
        raise made
    start = start_of(condition, chosen)
    said = list(condition.remarks)
    if start is not None:
        said += _changes(condition, start, changed)
    if condition.status == "done":
        said.append(f"training is done; what is missing is made now: {', '.join(condition.lacking)}")
    elif start is None:
        said.append("there is no checkpoint yet, so the run starts again from step 0")
    else:
        said.append(f"going on from {start.path.name}" + _again(condition, start.step))
    finish = condition.lacking if condition.status == "done" else ()
    return ResumePlan(start.path if start else None, finish, tuple(said))


def _again(condition: Condition, step: int) -> str:
    last = int((condition.journal.last or {}).get("step", 0))
    voided = [r["step"] for r in condition.journal.events() if r["kind"] in journal.RETURNS and isinstance(r.get("step"), int)]
    if last <= step or (voided and voided[-1] >= last):
        return ""
    return f"; steps {step + 1:,} to {last:,} came after it, and are made again"


def _newest(condition: Condition) -> Saved | None:
    where = str(condition.path / "checkpoints")
    if condition.lost:
        raise RunError(
            "a checkpoint is missing" if condition.saved else "no checkpoint to resume from", where=where,
            got=f"no {', '.join(condition.lost)}, which journal.jsonl says was written", outputs=UNTOUCHED,
            todo=condition.last_good,
        )  # fmt: skip
    if not condition.saved:
        return None
    newest = condition.saved[-1]
    if newest.damage:
        raise RunError(
            "a damaged checkpoint", where=str(newest.path), got=newest.damage, allowed="the pair that hil wrote",
            outputs=UNTOUCHED, todo=condition.last_good,
        )  # fmt: skip
    return newest


def start_of(condition: Condition, chosen: Path | None = None) -> Saved | None:
    """The checkpoint to go on from; None: step 0. Raises: RunError: it is damaged, missing, or none of this run's."""
    return _chosen(condition, chosen) if chosen is not None else _newest(condition)


def _chosen(condition: Condition, chosen: Path) -> Saved:
    places = [chosen, condition.path / chosen, condition.path / "checkpoints" / chosen]
    found = next((s for place in places for s in condition.saved if place.resolve() == s.path.resolve()), None)
    folder = condition.path / "checkpoints"
    if found is None:
        there = ", ".join(saved.path.name for saved in condition.saved) or "none"
        raise RunError(
            "not a checkpoint of this run", where=f"--from {chosen}", allowed=f"one of {folder}: {there}",
            outputs=UNTOUCHED, todo=f"name one of these, or leave out --from: hil resume {quoted(condition.path)}",
        )  # fmt: skip
    if found.damage:
        raise RunError(
            "a damaged checkpoint", where=str(found.path), got=found.damage, allowed="the pair that hil wrote",
            outputs=UNTOUCHED, todo=condition.last_good,
        )  # fmt: skip
    return found


def _changes(condition: Condition, start: Saved, changed: bool) -> Iterator[str]:
    """Say what was changed since the checkpoint; refuse it unless it changes no number or is meant."""
    then = start.facts.get("experiment")
    files = [(f"config.toml: {text}", key in FREE) for key, text in differences(then, condition.config)]
    if start.facts.get("bench_sha256", condition.bench) != condition.bench:
        copies = list(benches(condition.config)) or ["bench.toml"]
        kept = " or ".join(KEPT[copy] for copy in copies)
        files.append((f"{' and '.join(copies)}: another text than when the run was made, or another {kept}", False))
    wrong = [text for text, free in files if not free]
    if wrong and not changed:
        name, _, rest = wrong[0].partition(": ")
        raise RunError(
            "this file was changed since the run was made", where=str(condition.path / name),
            got="; ".join([rest, *wrong[1:]]), allowed="the settings of the newest checkpoint", outputs=UNTOUCHED,
            todo=f"undo the change; or, if it is meant: hil resume {quoted(condition.path)} --changed",
        )  # fmt: skip
    yield from (f"changed since {start.path.name}: {text}" for text, _ in files)


def differences(then: object, now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what) of every setting that differs; nothing is known of a checkpoint without settings."""
    if not isinstance(then, Mapping):
        return
    before, after = dict(_flat(then)), dict(_flat(now))
    later = {*MEASURED} - {_name(key, MEASURED) for key in after}
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key) and not _name(key, later):
            yield _name(key, FREE) or key, f"{key} {_shown(before, key)} -> {_shown(after, key)}"


def _name(key: str, names: Iterable[str]) -> str | None:
    """Return which of the names a dotted key is, or is part of; None: none of them."""
    return next((name for name in names if key == name or key.startswith(f"{name}.")), None)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(table: Mapping[str, Any], key: str) -> str:
    return str(table[key])[:60] if key in table else "absent"


def _saved(path: Path, verify: bool) -> Iterator[Saved]:
    for file in checkpoint.listed(path / "checkpoints"):
        step = (checkpoint.place(file) or (0, True))[0]
        facts: Mapping[str, Any] = {}
        damage = ""
        try:
            facts = checkpoint.load(file).facts if verify else read_object(file, checkpoint.MOST_FACTS_BYTES)
            if facts.get("step") != step:
                damage, facts = "its facts are of another step than its name", {}
        except RunError as error:
            damage = error.got or error.what
        yield Saved(file, step, damage, facts)


def _config(path: Path, saved: tuple[Saved, ...], damages: list[Damage]) -> Mapping[str, Any]:
    kept = next((s.path for s in reversed(saved) if not s.damage and "experiment" in s.facts), None)
    todo = "restore it" + (f'; its settings are in {kept}, under "experiment"' if kept else f", or train anew beside {path}")
    try:
        return toml.loads(read_text(path / "config.toml", toml.MOST_BYTES))
    except RunError as error:
        missing = not there(path / "config.toml")
        damages.append(Damage("config.toml", "it is missing" if missing else error.got or error.what, todo))
    except ValueError as error:
        damages.append(Damage("config.toml", f"not TOML: {error}", todo))
    return {}


def _bench(path: Path, config: Mapping[str, Any], damages: list[Damage]) -> str:
    """The SHA-256 of the run's own copies of its bench files, "" where it needs none."""
    try:
        return bench_sha256(path, config)
    except RunError as error:
        name = Path(error.where).name or "bench.toml"
        todo = f"put the bench file of this run there; it was a copy of {str(benches(config).get(name, 'it'))[:200]}"
        damages.append(Damage(name, error.got or error.what, todo))
        return ""


def bench_sha256(path: Path, config: Mapping[str, Any]) -> str:
    """Return the sum of a run's copies of its bench files and calibrations, "" where it needs none.

    Args:
        path: of the run folder.
        config: the experiment, as TOML has it.

    Raises:
        RunError: one cannot be read.
    """
    content = b""
    for copy in (copies := benches(config)):
        calibration = path / KEPT[copy]
        kept = read_bytes(calibration, toml.MOST_BYTES) if there(calibration) else b""
        content += read_bytes(path / copy, toml.MOST_BYTES) + kept
    return hashlib.sha256(content).hexdigest() if copies else ""


def benches(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bench files that an experiment names, by the names of the run's copies."""
    tables = {copy: config.get(table) for table, copy in COPIES.items()}
    return {
        copy: table["bench"] for copy, table in tables.items() if isinstance(table, Mapping) and table.get("bench") is not None
    }


def _object(path: Path, name: str, todo: str, damages: list[Damage]) -> Mapping[str, Any]:
    if not there(path / name):
        return {}
    try:
        return read_object(path / name)
    except RunError as error:
        damages.append(Damage(name, error.got or error.what, f"{todo}: hil resume {quoted(path)}"))
        return {}


def _journal(path: Path, damages: list[Damage], remarks: list[str]) -> journal.Contents:
    try:
        told = journal.contents(path / "journal.jsonl", most=0)
    except RunError as error:
        damages.append(Damage("journal.jsonl", error.got or error.what, "make it readable, or move it away"))
        return journal.Contents()
    if told.damaged:
        more = f" and {len(told.damaged) - 1} more" if len(told.damaged) > 1 else ""
        remarks.append(f"journal.jsonl is damaged at {told.damaged[0]}{more}; what it told there is lost")
    remarks += [f"journal.jsonl {text}: torn when the run was killed, and skipped" for text in told.torn[-1:]]
    if not (path / "journal.jsonl").exists() and any((path / "checkpoints").glob("step-*.json")):
        remarks.append("journal.jsonl is missing; a new one begins")
    return told


def _lost(events: list[journal.Record], saved: tuple[Saved, ...]) -> Iterator[str]:
    """Checkpoints that the journal says were written, later than all that are there."""
    there = {file.path.name for file in saved}
    newest = max((checkpoint.place(file.path) or (-1, False) for file in saved), default=(-1, False))
    counted: list[str] = []
    for event in events:
        step = event.get("step")
        if event["kind"] in journal.RETURNS and isinstance(step, int):
            counted = [name for name in counted if (checkpoint.place(Path(name)) or (0, True))[0] <= step]
        elif event["kind"] == "checkpoint":
            counted.append(str(event.get("file")))
    for name in counted[-1:]:
        of = checkpoint.place(Path(name))
        if of is not None and of > newest and name not in there:
            yield name


def _lacking(path: Path, drawn: Mapping[str, Any]) -> Iterator[str]:
    if "traffic" not in drawn:
        yield "diagnostics.json"
    try:
        page = read_bytes(path / "report.html")
    except RunError:
        page = b""
    if not page.rstrip().endswith(b"</html>"):
        yield "report.html"
