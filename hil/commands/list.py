"""What `hil list` shows: short names with their one-line descriptions, and what is on disk or on the wire."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from hil.config.resolve import CHIPS, LEARNERS, TWINS, resolve
from hil.data import kinds, objects, sources
from hil.errors import RunError
from hil.files import read_object
from hil.run import status
from hil.run.summary import test_said

Rows = list[tuple[str, ...]]

DRIVERS = (
    "drivers.keysight_33600:Keysight33600",
    "drivers.keysight_infiniivision:InfiniiVision",
    "drivers.spiking.device:SpikingBoard",
)


def rows(kind: str) -> Rows:
    """Return the table of a kind: header first, then a row each."""
    tables = {"devices": _devices, "learners": _learners, "datasets": _datasets, "runs": _runs, "resources": _resources}
    return tables[kind]()


def card(name: str) -> list[str]:
    """What is known of a published data set, a line each."""
    found = sources.describe(name)
    sums = [f"  {sum_}  {file}" for file, sum_ in found.sums.items()]
    return [
        found.line,
        "",
        found.source,
        "",
        f"classes: {', '.join(found.classes)}",
        "",
        "SHA-256 of its files, unpacked:",
        *sums,
    ]


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


def _resources() -> Rows:
    from drivers.links.visa_link import list_resources

    return [("VISA resource",), *((name,) for name in list_resources())]


def _runs() -> Rows:
    found: Rows = []
    for path in sorted(Path("runs").glob("*/config.toml")):
        try:
            summary = read_object(path.parent / "summary.json")
        except RunError:
            summary = {}
        found.append((str(path.parent), status.brief(path.parent), test_said(summary), str(summary.get("provenance", "-"))))
    return [("run", "status", "test", "from"), *found]
