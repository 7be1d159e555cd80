"""What `hil list` shows: short names with their one-line descriptions, and what is on disk or on the wire."""

from __future__ import annotations

import importlib
import inspect
from datetime import datetime
from pathlib import Path

from hil.config.read import read_toml
from hil.config.resolve import CHIPS, DRIVERS, LEARNERS, TWINS, resolve
from hil.data import kinds, objects, sources
from hil.errors import ConfigError, RunError
from hil.files import read_object
from hil.run import status
from hil.run.summary import test_said

Rows = list[tuple[str, ...]]


def rows(kind: str) -> Rows:
    """Return the table of a kind: header first, then a row each."""
    tables = {"devices": _devices, "learners": _learners, "datasets": _datasets, "runs": _runs, "resources": _resources}
    return tables[kind]()


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
        standing, origin = status.brief(path.parent), str(summary.get("provenance", "-"))
        found.append((str(path.parent), *_asked(path), standing, test_said(summary), origin))
    return [("run", "begun", "learner", "device", "seed", "status", "test", "from"), *found]


def _asked(config: Path) -> tuple[str, str, str, str]:
    """When a run was begun, by which learner, through what, with which seed; "-" where that cannot be read."""
    try:
        begun = datetime.fromtimestamp(config.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        table = read_toml(config)
    except (OSError, ConfigError):
        return "-", "-", "-", "-"
    learner, device = (table.get(key) for key in ("learner", "device"))
    if isinstance(device, list):
        through = f"{len(device)} devices"
    else:
        named = (device.get(key) for key in ("bench", "use", "chip", "host")) if isinstance(device, dict) else ()
        through = next((_short(one) for one in named if one), "-")
    return begun, _short(learner.get("use", "-")) if isinstance(learner, dict) else "-", through, str(table.get("seed", "-"))


def _short(use: object) -> str:
    """The last part of a path of a file or of a class."""
    return str(use).rpartition("/")[2].removesuffix(".toml").rpartition(":")[2] or str(use)
