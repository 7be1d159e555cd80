"""The page of all entries: a table to filter, sort and select from, with tags and notes edited in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from hil.errors import HilError
from hil.monitor import words
from hil.monitor.frame import framed
from hil.monitor.gate import Role
from hil.monitor.parts import Text, box
from hil.monitor.watching import REFRESH_S, Watching, key, may_change
from hil.run import notes
from hil.run.index import Entry

SIZE = 50  # rows of a page of the table
COLUMNS = (
    ("state", "State"), ("outputs", "Outputs"), ("name", "Name"), ("kind", "Kind"), ("learner", "Learner"),
    ("device", "Device"), ("value", "Result"), ("seed", "Seed"), ("started", "Started"), ("wall", "Duration"), ("tags", "Tags"),
)  # fmt: skip
READING = "The folders are being read."
EMPTY = "No entry fits the filter."
NOTHING = "There is nothing here yet: hil train, compare, search and calibrate write what this page shows."


class RunTable(Element, component="run_table.js"):
    """The table with its filter; it emits "query" and "notes"."""


@dataclass(frozen=True)
class Query:
    """What is to be shown, as a browser asks for it.

    Args:
        text: every word of it must be found in an entry.
        kind, state, tag: of the entries; "" for all.
        sort: name of a column.
        descending: the largest first.
        page: from 0.
    """

    text: str = ""
    kind: str = ""
    state: str = ""
    tag: str = ""
    sort: str = "started"
    descending: bool = True
    page: int = 0

    @classmethod
    def read(cls, said: object) -> Self:
        """Return what a browser asked for; what makes no sense is left out."""
        given = said if isinstance(said, Mapping) else {}
        texts = {name: str(given.get(name, ""))[:200] for name in ("text", "kind", "state", "tag")}
        sort, page = given.get("sort"), given.get("page")
        return cls(
            **texts,
            sort=sort if isinstance(sort, str) and sort in dict(COLUMNS) else "started",
            descending=given.get("descending") is True,
            page=page if type(page) is int and 0 <= page < 1_000_000 else 0,
        )

    def chosen(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the entries that fit, in order; those without a value come last."""
        needles = self.text.casefold().split()
        found = [entry for entry in entries if self._fits(entry, needles)]
        found.sort(key=lambda entry: entry.name)
        known = [entry for entry in found if _rank(entry, self.sort) is not None]
        known.sort(key=lambda entry: _rank(entry, self.sort), reverse=self.descending)
        return known + [entry for entry in found if _rank(entry, self.sort) is None]

    def _fits(self, entry: Entry, needles: Sequence[str]) -> bool:
        if (self.kind and entry.kind != self.kind) or (self.tag and self.tag not in entry.tags):
            return False
        if self.state and words.state(entry) != self.state:
            return False
        text = " ".join((entry.name, entry.kind, entry.state, entry.learner, entry.device, entry.provenance, entry.note))
        hay = f"{text} {' '.join(entry.tags)} {entry.path}".casefold()
        return all(needle in hay for needle in needles)


def _rank(entry: Entry, column: str) -> Any:
    """Return what an entry is sorted by; None: not known."""
    if column == "wall":
        return entry.wall_s
    if column == "tags":
        return entry.tags or None
    found = getattr(entry, column)
    return found.casefold() or None if isinstance(found, str) else found


def row(entry: Entry, role: Role) -> dict[str, Any]:
    """Return what the table shows of an entry: text, and how it is coloured."""
    state = words.state(entry)
    return {
        "id": key(entry.path),
        "name": words.short(entry.name, 80),
        "folder": "" if entry.path.name == entry.name else words.short(entry.path.name, 80),
        "kind": entry.kind,
        "state": state,
        "tone": words.tone(state),
        "progress": words.progress(entry),
        "outputs": words.outputs(entry),
        "learner": words.short(entry.learner, 40) or words.NONE,
        "device": words.short(entry.device, 40) or words.NONE,
        "provenance": words.provenance(entry),
        "value": words.value(entry),
        "split": entry.split if entry.value is not None else "",
        "metric": words.title(entry),
        "seed": words.NONE if entry.seed is None else str(entry.seed),
        "started": words.moment(entry.started),
        "wall": words.lasting(entry.wall_s),
        "tags": [words.short(tag, 40) for tag in entry.tags],
        "note": words.short(entry.note, 120),
        "whole": entry.note,
        "edit": entry.path.is_dir() and may_change(role, entry.path),
    }


class Overview:
    """The page for one visitor.

    Args:
        watching: where the entries come from.
        role: of the visitor.
    """

    def __init__(self, watching: Watching, role: Role) -> None:
        self._watching, self._role, self._query = watching, role, Query()

    async def build(self) -> None:
        """Make the page."""
        with framed("", self._role):
            with box("div", "head"):
                Text("h1", "Runs")
                self._counts = Text("p", "", "note")
            self._table = RunTable()
            self._table.props.update(
                rows=[], columns=[{"name": name, "label": label} for name, label in COLUMNS], total=0, size=SIZE, choices={},
                empty=READING, said="",
            )  # fmt: skip
            self._table.on("query", self._asked)
            self._table.on("notes", self._noted)
        ready = self._watching.ready
        if ready:
            await self._show()
        ui.timer(REFRESH_S, self._show, immediate=not ready)

    async def _asked(self, event: GenericEventArguments) -> None:
        self._query = Query.read(event.args)
        await self._show()

    async def _show(self) -> None:
        entries = await self._watching.entries()
        found = self._query.chosen(entries)
        part = found[self._query.page * SIZE :][:SIZE]
        self._counts.say(counted(entries))
        shown: dict[str, Any] = {
            "rows": [row(entry, self._role) for entry in part],
            "total": len(found),
            "choices": _choices(entries),
            "empty": EMPTY if entries else NOTHING,
        }
        changed = {name: value for name, value in shown.items() if self._table.props.get(name) != value}
        if changed:
            self._table.props.update(changed)

    async def _noted(self, event: GenericEventArguments) -> None:
        said = event.args if isinstance(event.args, Mapping) else {}
        entry = await self._watching.named(str(said.get("id", "")))
        if entry is None or not may_change(self._role, entry.path):
            return
        tags = tuple(tag.strip() for tag in str(said.get("tags", "")).split(",") if tag.strip())
        try:
            notes.write(entry.path, notes.Notes(tags, str(said.get("note", ""))))
            self._table.props["said"] = ""
        except HilError as error:
            self._table.props["said"] = str(error)
        self._watching.forget()
        await self._show()


def _choices(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Return what the three filters offer."""
    kinds: set[str] = set()
    states: set[str] = set()
    tags: set[str] = set()
    for entry in entries:
        kinds.add(entry.kind)
        states.add(words.state(entry))
        tags.update(entry.tags)
    return {"kind": sorted(kinds), "state": sorted(states), "tag": sorted(tags)}


def counted(entries: Sequence[Entry]) -> str:
    """Return how many there are of each tone, in words."""
    tones = Counter(words.tone(words.state(entry)) for entry in entries)
    driven = sum(words.outputs(entry) in ("on", "unknown") for entry in entries)
    parts = [f"{len(entries):,} {'entry' if len(entries) == 1 else 'entries'}", f"{tones['working']:,} at work"]
    parts += [f"{tones['waiting']:,} paused or interrupted"] * bool(tones["waiting"])
    parts += [f"{tones['bad']:,} with a fault"] * bool(tones["bad"])
    return " · ".join([*parts, f"outputs on or unknown in {driven:,}" if driven else "no outputs on"])
