"""What a run folder holds, as far as it can be read; whatever cannot is a note, never a failure.

*.json    one object                      *.jsonl   an object a line, UTF-8; a killed process may tear the last line
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil import toml
from hil.errors import RunError
from hil.files import MOST_TEXT_BYTES, loads, read_bytes, there
from hil.run import journal
from hil.run.lock import owner

FILES = ("config.toml", "summary.json", "metrics.jsonl", "journal.jsonl", "diagnostics.json")
NOTES_PER_FILE = 5
COMMITS = 2000

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run folder, read.

    Args:
        place: the folder as the user named it.
        config, summary, diagnostics: empty if there is no such file.
        notes: what is missing or damaged, a sentence each.
        owner: who is at work in it, or ""; not looked for where the run says that it is done.
    """

    name: str
    place: str
    config: Facts
    config_text: str
    summary: Facts
    metrics: tuple[Facts, ...]
    journal: tuple[Facts, ...]
    diagnostics: Facts
    notes: tuple[str, ...]
    owner: str = ""


def read(run: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        RunError: there is no such folder, or none of its files is there.
    """
    if not any((run / name).is_file() for name in FILES):
        raise RunError(
            "not a run folder",
            where=str(run),
            got="none of its files" if run.is_dir() else "no such folder",
            allowed="a folder with " + ", ".join(FILES),
            todo="name a folder that hil train has written",
        )
    notes: list[str] = []
    text = _text(run / "config.toml", notes)
    summary = _object(run / "summary.json", notes)
    held = None if summary.get("status") == "done" else owner(run)
    return RunRecord(
        name=run.resolve().name,
        place=str(run),
        config=_config(text, notes),
        config_text=text,
        summary=summary,
        metrics=_lines(run / "metrics.jsonl", notes),
        journal=_journal(run / "journal.jsonl", notes),
        diagnostics=_object(run / "diagnostics.json", notes),
        notes=tuple(notes),
        owner=str(held) if held is not None and held.alive else "",
    )


def _text(path: Path, notes: list[str]) -> str:
    if not there(path):
        notes.append(f"{path.name} is missing.")
        return ""
    try:
        return read_bytes(path, MOST_TEXT_BYTES).decode("utf-8", errors="replace")
    except RunError as error:
        notes.append(f"{path.name} cannot be read: {error.got or error.what}.")
        return ""


def _config(text: str, notes: list[str]) -> Facts:
    try:
        return toml.loads(text)
    except ValueError as error:
        notes.append(f"config.toml is not TOML: {error}.")
        return {}


def _object(path: Path, notes: list[str]) -> Facts:
    text = _text(path, notes)
    if not text:
        return {}
    try:
        value = loads(text, path.name)
    except RunError as error:
        notes.append(f"{path.name} is damaged, and left out: {error.got}.")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{path.name} is left out: it holds a {type(value).__name__}, not an object.")
        return {}
    return value


def _journal(path: Path, notes: list[str]) -> tuple[Facts, ...]:
    """Its events, and so many of its commits as a figure can show; a weekend has millions."""
    if not there(path):
        notes.append(f"{path.name} is missing.")
        return ()
    try:
        told = journal.contents(path, COMMITS)
    except RunError as error:
        notes.append(f"{path.name} cannot be read: {error.got or error.what}.")
        return ()
    bad = [f"{path.name} {text}; it is left out." for text in told.damaged]
    notes.extend(bad[:NOTES_PER_FILE])
    if len(bad) > NOTES_PER_FILE:
        notes.append(f"{path.name}: {len(bad) - NOTES_PER_FILE} more damaged lines are left out.")
    return tuple(told.records)


def _lines(path: Path, notes: list[str]) -> tuple[Facts, ...]:
    good: list[Facts] = []
    bad: list[str] = []
    for number, line in enumerate(_text(path, notes).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = loads(line, path.name)
        except RunError as error:
            bad.append(f"{path.name} line {number} is damaged, and left out: {error.got}.")
            continue
        if isinstance(value, dict):
            good.append(value)
        else:
            bad.append(f"{path.name} line {number} is left out: it holds a {type(value).__name__}, not an object.")
    notes.extend(bad[:NOTES_PER_FILE])
    if len(bad) > NOTES_PER_FILE:
        notes.append(f"{path.name}: {len(bad) - NOTES_PER_FILE} more damaged lines are left out.")
    return tuple(good)
