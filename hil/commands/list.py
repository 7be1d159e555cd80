"""What `hil list` shows: short names with their one-line descriptions, and what is on disk or on the wire."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from rich.table import Table

from hil.config.resolve import CHIPS, DRIVERS, LEARNERS, TWINS, resolve
from hil.data import kinds, objects, sources
from hil.errors import ConfigError, OpenFailed
from hil.metric import named
from hil.run.index import Entry, Index

Rows = list[tuple[str, ...]]
WIDE = 120  # columns of a terminal that has room for everything


def rows(kind: str) -> tuple[Rows, list[str]]:
    """Return the table of a kind but runs, header first and then a row each, and lines to be said below it."""
    if kind == "resources":
        return _resources()
    tables = {"devices": _devices, "learners": _learners, "datasets": _datasets}
    return tables[kind](), []


def _first_line(target: object) -> str:
    """The first sentence of the module that holds `target`: there stands what it is."""
    module = inspect.getmodule(target)
    return (inspect.getdoc(module) or "").partition("\n")[0]


def _learners() -> Rows:
    return [("name", "class", "what"), *((n, p, _first_line(resolve(p, "learners"))) for n, p in LEARNERS.items())]


def _devices() -> Rows:
    twins = [(f"{n} (twin)", p, _first_line(resolve(p, "twins"))) for n, p in {**TWINS, **CHIPS}.items()]
    drivers = [(p.partition(":")[2], p, _first_line(importlib.import_module(p.partition(":")[0]))) for p in DRIVERS]
    return [("name", "class", "what"), *twins, *((f"{n} (driver)", p, what) for n, p, what in drivers)]


def _datasets() -> Rows:
    published = ((name, sources.describe(name).line) for name in sources.NAMES)
    made = ((name, f"{_first_line(resolve(path, 'datasets'))} (made)") for name, path in kinds.MADE.items())
    own = ((name, _first_line(resolve(path, "datasets"))) for name, path in kinds.OWN.items())
    return [("name", "what"), *published, *made, *own, ('"module:name"', _first_line(objects))]


def _resources() -> tuple[Rows, list[str]]:
    """What VISA finds, and what announces itself: both are asked at the same time."""
    from drivers.links.discovery import discover, missing
    from drivers.links.visa_link import list_resources

    notes: list[str] = []
    with ThreadPoolExecutor(1) as beside:
        asked = None if missing() else beside.submit(discover)
        found = {_spelled(name): (name, "") for name in list_resources()}
        if asked is None:
            notes.append(f"not asked for: LXI instruments that announce themselves by mDNS; {missing()}")
        else:
            try:
                announced = asked.result()
            except OpenFailed as error:
                notes.append(f"not asked for: LXI instruments that announce themselves by mDNS; {error.got}")
                announced = ()
            named = [one for one in announced if one.resource]
            found |= {_spelled(one.resource): (one.resource, one.who) for one in named}
            notes += [f"{one.who} has a web page at {one.host}, and announces no address for commands" for one in announced
                      if not one.resource]  # fmt: skip
    return [("VISA resource", "what"), *sorted(found.values())], notes


def _spelled(resource: str) -> str:
    from drivers.resource import standard

    try:
        return standard(resource)
    except ConfigError:  # a serial port, or what VISA alone understands
        return resource


def runs(folder: Path | None = None, tags: Sequence[str] = (), sort: str = "begun") -> list[Entry]:
    """Return the runs, searches and comparisons in a folder; by default in runs/ and compare/.

    Args:
        folder: with all folders below it.
        tags: that they must have.
        sort: "begun", the newest first; "value", the best first; or the name of another field.
    """
    found = Index([folder] if folder else [Path("runs"), Path("compare")]).entries()
    kept = [entry for entry in found if entry.kind != "calibration" and set(tags) <= set(entry.tags)]
    if sort == "value":
        return sorted(kept, key=lambda e: float("inf") if e.value is None else e.value if e.lower else -e.value)
    return kept if sort == "begun" else sorted(kept, key=lambda entry: str(getattr(entry, sort)).lower())


def as_json(entries: Sequence[Entry]) -> str:
    """The entries as a JSON list, as in hil/run/index.py."""
    return json.dumps([{**asdict(entry), "path": str(entry.path)} for entry in entries], indent=1) + "\n"


def table(entries: Sequence[Entry], width: int) -> Table:
    """A table of runs for a terminal of this width; what matters least is left out of a narrow one."""
    narrow = width < WIDE
    made = Table(box=None, header_style="dim", padding=(0, 2 if not narrow else 1, 0, 0))
    heads = ["run", "begun", "state", "learner", "device", "score", "seed", "tags"]
    heads += [] if narrow else ["epoch", "from", "outputs"]
    for head in heads:
        made.add_column(head, no_wrap=head in ("begun", "state", "score", "seed", "epoch"), overflow="fold",
                        min_width=12 if head in ("run", "device") and entries else None)  # fmt: skip
    for entry in entries:
        begun = "-" if entry.started is None else f"{datetime.fromtimestamp(entry.started):%Y-%m-%d}"
        if not narrow and entry.started is not None:
            begun += f"{datetime.fromtimestamp(entry.started): %H:%M}"
        row = [
            str(entry.path), begun, entry.state + "!" * bool(entry.remarks), entry.learner or "-", entry.device or "-",
            score(entry), "-" if entry.seed is None else str(entry.seed), ", ".join(entry.tags),
        ]  # fmt: skip
        of = "-" if entry.epoch is None else f"{entry.epoch}/{entry.epochs or '-'}"
        made.add_row(*row, *([] if narrow else [of, entry.provenance or "-", entry.outputs or "-"]))
    return made


def damages(entries: Sequence[Entry]) -> list[str]:
    """What is damaged, a line a folder."""
    return [f"beware  {entry.path}: {'; '.join(entry.remarks)}" for entry in entries if entry.remarks]


def score(entry: Entry) -> str:
    """The score of an entry for people; one of the validation split is marked."""
    if entry.value is None:
        return "-"
    said = named(entry.metric, entry.lower).shown(entry.value)
    return said + (" v" if entry.split == "validation" else "")
