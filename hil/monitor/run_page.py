"""The page of one run: outputs and buttons, figures of where it stands, live curves, the node, faults and settings."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from nicegui import ui

from hil import toml
from hil.errors import HilError
from hil.files import read_text
from hil.hints import quoted
from hil.metric import named
from hil.monitor import reports, run_curves, words
from hil.monitor.charts import Chart
from hil.monitor.controls import Controls
from hil.monitor.frame import framed, missing
from hil.monitor.gate import Role
from hil.monitor.live import LiveRun, Record, moment
from hil.monitor.parts import Text, Tiles, box, figure
from hil.monitor.watching import REFRESH_S, Watching, may_change
from hil.report import tables
from hil.report.headline import duration, percent
from hil.run import journal
from hil.run.index import Entry

TILES = ("Result", "Epoch", "Loss", "Time left", "Duration", "Device passes", "Device busy", "Faults recovered")
SHOWN_EVENTS = 25
LONG = ("node", "resources", "versions")  # of an event
LATEST_S = 60.0  # over which the share of the device is taken
NO_NODE = "No transfer curve and no drives have been recorded yet."


async def build(watching: Watching, role: Role, name: str) -> None:
    """Make the page of the entry with this name."""
    entry = await watching.named(name)
    if entry is None:
        missing(role)
    elif entry.kind == "run":
        await RunPage(watching, role, name, entry).build()
    else:
        with framed(entry.name, role, words.short(entry.name, 80)):
            lead(entry)
            await reported(entry)


async def build_report(watching: Watching, role: Role, name: str) -> None:
    """Make the page of a report alone."""
    entry = await watching.named(name)
    if entry is None:
        missing(role)
        return
    with framed(entry.name, role, words.short(entry.name, 80)):
        Text("a", "Back to the live page", href=f"/view/{name}")
        await reported(entry)


async def reported(entry: Entry) -> None:
    """Show the report of an entry, or why there is none."""
    with box("div") as place:
        Text("p", "The report is being drawn …", "note", role="status")
    await ui.context.client.connected()  # the page is there already: drawing may take seconds
    try:
        html = await reports.report(entry)
    except HilError as error:
        place.clear()
        with place:
            Text("h1", words.short(entry.name, 80))
            Text("p", f"There is no report yet: {error}", "note")
        return
    place.clear()
    with place:
        ui.html(html, sanitize=False).classes("reported")


def lead(entry: Entry) -> Text:
    """Show state, kind, provenance and tags in a line; return the element of the state."""
    with box("div", "lead"):
        state = Text("span", words.state(entry), f"chip {words.tone(words.state(entry))}")
        if entry.provenance:
            Text("span", words.provenance(entry), f"badge {words.provenance(entry)}")
        parts = [entry.kind, entry.learner, entry.device]
        parts += [f"seed {entry.seed}"] * (entry.seed is not None) + [f"started {words.moment(entry.started)}"]
        Text("span", " · ".join(words.short(part, 60) for part in parts if part), "note")
        for tag in entry.tags:
            Text("span", tag, "tag")
    return state


class RunPage:
    """The page for one visitor.

    Args:
        watching: where the entry comes from.
        role: of the visitor.
        name: of the entry in addresses.
        entry: as it is now.
    """

    def __init__(self, watching: Watching, role: Role, name: str, entry: Entry) -> None:
        self._watching, self._role, self._name, self._entry = watching, role, name, entry
        self._live = LiveRun(entry.path)
        self._node_svg = ""
        self._events: tuple[str, ...] = ()

    async def build(self) -> None:
        """Make the page, and keep it up to date."""
        entry = self._entry
        config = await asyncio.to_thread(_config, entry.path)
        self._budget = _budget(config)
        with framed(entry.name, self._role, words.short(entry.name, 80)):
            with box("div", "run-head"):
                with box("div"):
                    Text("h1", words.short(entry.name, 120))
                    self._state = lead(entry)
                    self._note = Text("p", entry.note, "note")
                    Text("p", str(entry.path), "run")
                self._controls = Controls(entry, may_change(self._role, entry.path))
            self._next = Text("p", "", "note")
            self._remarks = Text("p", "", "state")
            self._tiles = Tiles(TILES)
            Text("h2", "Learning")
            self._none = Text("p", "No step has been committed yet.", "note")
            with box("div", "pair"):
                self._score, self._loss = Chart("Score of each epoch"), Chart("Loss")
            Text("h2", "Device and faults")
            with box("div", "pair"):
                self._duty = Chart("Device busy, and what happened")
                self._drift = Chart("Drift of the bias")
                with box("section", "card"):
                    Text("h3", "Latest events")
                    self._list = box("div", "scroll latest", tabindex="0", role="region", aria_label="Latest events")
            Text("h2", "The node")
            self._node = box("div", "pair")
            with self._node:
                Text("p", NO_NODE, "note")
            _settings(config)
            with box("p"):
                Text("a", "Report of this run", href=f"/report/{self._name}")
        await self._show()
        await ui.context.client.connected()  # drawing the node may take seconds
        await self._show_node(self._entry)
        ui.timer(REFRESH_S, self._again, immediate=False)

    async def _again(self) -> None:
        await self._show()
        await self._show_node(self._entry)

    async def _show(self) -> None:
        entry = await self._watching.named(self._name)
        if entry is None:
            self._state.say("removed")
            return
        try:
            new = await asyncio.to_thread(self._live.update)
        except HilError as error:
            self._remarks.say(str(error))
            new = False
        if new or entry != self._entry or not self._tiles.shown:
            self._facts(entry)
        if new:
            self._curves(entry)
        self._entry = entry
        self._controls.show(entry)

    def _facts(self, entry: Entry) -> None:
        state = words.state(entry)
        self._state.say(state)
        self._state.look(f"chip {words.tone(state)}")
        self._note.say(entry.note)
        again = "" if entry.state in ("at work", "paused", "done") else f"To go on: hil resume {quoted(entry.path)}"
        self._next.say(again)
        self._remarks.say(" ".join(f"{remark}." for remark in entry.remarks))
        self._remarks.set_visibility(bool(entry.remarks))
        self._tiles.show(self._figures(entry))

    def _figures(self, entry: Entry) -> dict[str, tuple[str, str]]:
        last = self._live.last or {}
        step = last.get("step", entry.step)
        share = run_curves.busy(self._live.commits, LATEST_S)
        if share is None and entry.wall_s and entry.device_s is not None:
            share = min(entry.device_s / entry.wall_s, 1.0)
        passes = last.get("passes", entry.device_passes)
        spent = "" if not self._budget or passes is None else f"{percent(passes / self._budget)} of the budget"
        alive = entry.state in ("at work", "paused")
        faults = [at for event in self._live.events if event["kind"] in run_curves.FAULTS and (at := moment(event)) is not None]
        committed = moment(last) if last else None
        return {
            "Result": (words.value(entry), f"{entry.split} {words.title(entry)}" if entry.value is not None else ""),
            "Epoch": (words.count(last.get("epoch", entry.epoch), entry.epochs), f"step {words.count(step, entry.steps)}"),
            "Loss": (f"{last['loss']:.4g}" if last else words.NONE, "of the last step"),
            "Time left": (
                words.NONE if entry.left_s is None else words.left(entry.left_s),
                "at this rate" if entry.left_s is not None else "",
            ),
            "Duration": (words.lasting(entry.wall_s), _ago("last step", committed) if alive else ""),
            "Device passes": (words.count(passes, self._budget), spent),
            "Device busy": (words.NONE if share is None else percent(share), "of the time"),
            "Faults recovered": (words.count(entry.faults), _ago("last fault", max(faults)) if faults else "no fault so far"),
        }

    def _curves(self, entry: Entry) -> None:
        live, metric = self._live, named(entry.metric or "accuracy", entry.lower)
        self._none.set_visibility(not live.commits and not live.metrics)
        self._score.title(f"{metric.title[0].upper()}{metric.title[1:]} of each epoch")
        self._score.show(run_curves.score(live.metrics, metric))
        self._loss.show(run_curves.loss(live.metrics, live.commits, live.begun))
        self._duty.show(run_curves.duty(live.commits, live.events, live.first_s))
        self._drift.show(run_curves.drift(tuple(live.looks)))
        self._tell(tuple(live.events)[-SHOWN_EVENTS:][::-1])

    def _tell(self, events: tuple[Record, ...]) -> None:
        shown = tuple(str(event) for event in events)
        if shown == self._events:
            return
        self._events = shown
        self._list.clear()
        with self._list, box("table", "list events"):
            with box("thead"), box("tr"):
                for head in ("time", "event", "what happened"):
                    Text("th", head, "text", scope="col")
            with box("tbody"):
                for event in events:
                    kind, at = words.short(str(event["kind"]), 30), moment(event)
                    with box("tr"):
                        Text("td", "" if at is None else time.strftime("%H:%M:%S", time.localtime(at)))
                        Text("td", kind, f"text {'fault' if kind in run_curves.FAULTS else ''}".strip())
                        Text("td", words.short(journal.message(_told(event)), 500), "text told")

    async def _show_node(self, entry: Entry) -> None:
        try:
            svg = await reports.node(entry)
        except HilError as error:
            self._remarks.say(str(error))
            return
        if svg and svg != self._node_svg:
            self._node_svg = svg
            self._node.clear()
            with self._node, box("section", "card"):
                Text("h3", "Transfer curve, and the drives in use")
                figure(svg)


def _config(path: Path) -> dict[str, object]:
    """Return config.toml, empty where it cannot be read: the remarks of the entry say why."""
    try:
        return toml.loads(read_text(path / "config.toml", toml.MOST_BYTES))
    except (HilError, ValueError):
        return {}


def _budget(config: dict[str, object]) -> int | None:
    train = config.get("train")
    found = train.get("budget_passes") if isinstance(train, dict) else None
    return found if type(found) is int and found > 0 else None


def _settings(config: dict[str, object]) -> None:
    """Show all settings, folded."""
    Text("h2", "Settings")
    with box("details"):
        Text("summary", "config.toml as a table")
        with box("div", "settings"):
            for section, rows in tables.settings(config):
                with box("section"):
                    Text("h3", section)
                    with box("dl", "facts"):
                        for name, value in rows:
                            Text("dt", name)
                            Text("dd", value)


def _told(event: Record) -> Record:
    """Return an event without what the settings and the report show in full."""
    return {name: value for name, value in event.items() if name not in LONG}


def _ago(what: str, at: float | None) -> str:
    return "" if at is None else f"{what} {duration(round(max(0.0, time.time() - at)))} ago"
