"""Reports inside the pages: what `hil report` writes, made anew from the files; nothing that stands in a run folder is served.

Drawing takes a second, so a report is made in a thread, one at a time, and kept until its folder has changed.
"""

from __future__ import annotations

import asyncio
import threading

from hil.files import read_object, there
from hil.monitor.watching import key
from hil.report import certificate, comparison, figures, page, run_files
from hil.report import contents as findings
from hil.run.folder import RunFolder
from hil.run.index import Entry

KEPT = 32  # reports
DRAWING = threading.Lock()  # the style of figures is one of the whole process

_made: dict[tuple[str, str], tuple[float, str]] = {}


async def report(entry: Entry) -> str:
    """Return the report of an entry as HTML.

    Raises:
        HilError: there is none yet, or its files are damaged.
    """
    return await asyncio.to_thread(_report, entry)


async def node(entry: Entry) -> str:
    """Return the figure of the node, its transfer curve and the drives in use; "" before they were measured.

    Raises:
        HilError: diagnostics.json is damaged.
    """
    return await asyncio.to_thread(_node, entry)


def _report(entry: Entry) -> str:
    name = (key(entry.path), "report")
    with DRAWING:
        kept = _made.get(name)
        if kept is None or kept[0] != entry.changed:
            kept = entry.changed, _drawn(entry)
            _keep(name, kept)
    return kept[1]


def _drawn(entry: Entry) -> str:
    if entry.kind == "calibration":
        return page.body("certificate.html", certificate.read(entry.path))
    if entry.kind == "search":
        from hil.report import search  # it imports torch, for which no other page waits

        return page.body("search.html", search.read(RunFolder.open(entry.path)))
    if entry.kind == "comparison":
        return page.body("comparison.html", comparison.contents(comparison.read_standings(entry.path)))
    return page.body("report.html", page.contents(run_files.read(entry.path)))


def _node(entry: Entry) -> str:
    path = entry.path / "diagnostics.json"
    if not there(path):
        return ""
    stamp, name = path.lstat().st_mtime, (key(entry.path), "node")
    with DRAWING:
        kept = _made.get(name)
        if kept is None or kept[0] != stamp:
            facts = read_object(path)
            curve, used = findings.transfer(facts), findings.histograms(facts)
            kept = stamp, figures.transfer(curve, used).svg if curve is not None or used else ""
            _keep(name, kept)
    return kept[1]


def _keep(name: tuple[str, str], made: tuple[float, str]) -> None:
    _made.pop(name, None)
    _made[name] = made
    while len(_made) > KEPT:
        del _made[next(iter(_made))]
