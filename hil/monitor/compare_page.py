"""The page that compares runs: their curves over one another, what they ended with, and the settings that differ."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nicegui import ui

from hil import toml
from hil.errors import HilError
from hil.files import read_text
from hil.metric import named
from hil.monitor import words
from hil.monitor.charts import COLOURS, Chart, Line, finite, options, series_colour
from hil.monitor.frame import framed, missing
from hil.monitor.gate import Role
from hil.monitor.live import LiveRun, Record
from hil.monitor.parts import Text, box
from hil.monitor.watching import REFRESH_S, Watching, key
from hil.report import tables
from hil.report.headline import percent
from hil.run.index import Entry

MOST = 24  # runs on one page
AXES = {"epoch": "epochs", "device_passes": "device passes", "elapsed": "time"}
SPLITS = ("validation", "train")
NAME = "run.name"  # a setting that stands above each column already
TITLES = {"epoch": "epoch", "device_passes": "device passes", "elapsed": "time (s)"}
HEAD = ("run", "state", "result", "metric", "epoch", "device passes", "duration", "device busy", "faults recovered", "seed")


@dataclass(frozen=True)
class Compared:
    """A run that is compared.

    Args:
        entry: of the index, as it was when the page was made.
        label: its name, made different from the other ones.
        live: its metrics.
        colour, dashed: its curve.
    """

    entry: Entry
    label: str
    live: LiveRun
    colour: str
    dashed: bool


async def build(watching: Watching, role: Role, runs: str) -> None:
    """Make the page of the runs with these names, separated by commas."""
    entries = [
        entry for name in list(dict.fromkeys(runs.split(",")))[:MOST] if (entry := await watching.named(name)) is not None
    ]
    entries = [entry for entry in entries if entry.kind == "run"]
    if not entries:
        missing(role, "None of these runs is here; select some in the table of all runs.")
        return
    await ComparePage(watching, role, entries).build()


class ComparePage:
    """The page for one visitor.

    Args:
        watching: where the entries come from.
        role: of the visitor.
        entries: of the runs.
    """

    def __init__(self, watching: Watching, role: Role, entries: Sequence[Entry]) -> None:
        self._watching, self._role = watching, role
        labels = distinct(entries)
        self._runs = [
            Compared(entry, label, LiveRun(entry.path), series_colour(n), n >= COLOURS)
            for n, (entry, label) in enumerate(zip(entries, labels, strict=True))
        ]
        self._over, self._split = "epoch", "validation"
        self._now: Sequence[Entry] = ()

    async def build(self) -> None:
        """Make the page, and keep its curves up to date."""
        configs = await asyncio.to_thread(lambda: [_config(run.entry.path) for run in self._runs])
        with framed("Compare", self._role, f"compare {len(self._runs)} runs"):
            Text("h1", f"Comparison of {len(self._runs)} runs")
            with box("section", "controls", aria_label="Curves"):
                self._choice("Over", AXES, self._over, self._by)
                self._choice("Examples", dict(zip(SPLITS, SPLITS, strict=True)), self._split, self._of)
            Text("h2", "Curves", "unseen")
            with box("p", "legend-line"):
                for run in self._runs:
                    with box("span"):
                        Text(
                            "span",
                            "",
                            f"key{' dashed' if run.dashed else ''}",
                            style=f"--own:var({run.colour})",
                            aria_hidden="true",
                        )
                        Text("span", run.label)
            with box("div", "pair"):
                self._score, self._loss = Chart("Score"), Chart("Loss")
            Text("h2", "Results")
            self._table = box("div", "scroll", tabindex="0", role="region", aria_label="Results")
            Text("h2", "Settings that differ")
            differing(self._runs, configs)
        await self._show()
        ui.timer(REFRESH_S, self._show, immediate=False)

    def _choice(self, title: str, choices: Mapping[str, str], chosen: str, do: Any) -> None:
        with box("label"):
            Text("span", title)
            with box("select") as made:
                for value, text in choices.items():
                    option = Text("option", text, value=value)
                    option.props.set_bool("selected", value == chosen)
            made.on("change", do, js_handler="(event) => emit(event.target.value)")

    async def _by(self, event: Any) -> None:
        self._over = event.args if event.args in AXES else "epoch"
        self._draw()

    async def _of(self, event: Any) -> None:
        self._split = event.args if event.args in SPLITS else "validation"
        self._draw()

    async def _show(self) -> None:
        entries = {entry.path: entry for entry in await self._watching.entries()}
        new = await asyncio.to_thread(lambda: [_updated(run.live) for run in self._runs])
        now = [entries.get(run.entry.path, run.entry) for run in self._runs]
        if any(new):
            self._draw()
        if any(new) or now != self._now:
            self._now = now
            self._tell(now)

    def _draw(self) -> None:
        first = self._runs[0].entry
        metric = named(first.metric or "accuracy", first.lower)
        factor = 100 if metric.share else 1
        name = f"{self._split} {metric.title}"
        self._score.title(f"{name[0].upper()}{name[1:]}")
        self._loss.title(f"{self._split.capitalize()} loss")
        title = f"{metric.title} (%)" if metric.share else metric.title
        for chart, value, scale, y in ((self._score, metric.name, factor, title), (self._loss, "loss", 1, "loss")):
            lines = []
            for run in self._runs:
                points = curve(run.live.metrics, self._split, value, self._over)
                lines.append(Line(run.label, [(x, scale * v) for x, v in points], run.colour, dashed=run.dashed))
            shares = metric.share and value == metric.name
            chart.show(options(lines, TITLES[self._over], y, share=shares, counts=self._over != "epoch", legend=False))

    def _tell(self, entries: Sequence[Entry]) -> None:
        self._table.clear()
        with self._table, box("table", "list"):
            with box("thead"), box("tr"):
                for head in HEAD:
                    Text("th", head, "text" if head in ("run", "state") else "", scope="col")
            with box("tbody"):
                for run, entry in zip(self._runs, entries, strict=True):
                    self._line(run, entry)

    def _line(self, run: Compared, entry: Entry) -> None:
        share = None if not entry.wall_s or entry.device_s is None else min(entry.device_s / entry.wall_s, 1.0)
        values = (
            words.value(entry), f"{entry.split} {words.title(entry)}", words.count(entry.epoch, entry.epochs),
            words.count(entry.device_passes), words.lasting(entry.wall_s), words.NONE if share is None else percent(share),
            words.count(entry.faults), words.count(entry.seed),
        )  # fmt: skip
        with box("tr"):
            with box("td", "text label"):
                Text("span", "", "key", style=f"--own:var({run.colour})", aria_hidden="true")
                Text("a", run.label, href=f"/view/{key(entry.path)}")
            with box("td", "text"):
                Text("span", words.state(entry), f"chip {words.tone(words.state(entry))}")
            for value in values:
                Text("td", value)


def curve(metrics: Sequence[Record], split: str, name: str, over: str) -> list[tuple[float, float]]:
    """Return (x, value) of each epoch of a split; device passes and time are those of the epoch's training."""
    places: dict[object, object] = {}
    elapsed = 0.0
    for line in metrics:
        if line.get("split") == "train":
            wall = line.get("wall_s")
            elapsed += wall if isinstance(wall, int | float) else 0.0
            places[line.get("epoch")] = {
                "epoch": line.get("epoch"),
                "device_passes": line.get("device_passes"),
                "elapsed": elapsed,
            }[over]
    return finite([(places.get(line.get("epoch")), line.get(name)) for line in metrics if line.get("split") == split])


def distinct(entries: Sequence[Entry]) -> list[str]:
    """Return a label of each entry: its name; where that is there twice, its folder, or the whole path."""
    found = [entry.name for entry in entries]
    for more in (lambda entry: entry.path.name, lambda entry: str(entry.path)):
        found = [more(entry) if found.count(label) > 1 else label for label, entry in zip(found, entries, strict=True)]
    return [words.short(label, 60) for label in found]


def differing(runs: Sequence[Compared], configs: Sequence[Mapping[str, Any]]) -> None:
    """Show the settings that are not the same in all runs."""
    flat = [{f"{section}.{name}": value for section, rows in tables.settings(one) for name, value in rows} for one in configs]
    names = list(dict.fromkeys(name for one in flat for name in one))
    rows = [(name, [one.get(name, "-") for one in flat]) for name in names]
    rows = [(name, values) for name, values in rows if len(set(values)) > 1 and name != NAME]
    if not rows:
        Text("p", "All settings are the same.", "note")
        return
    with box("div", "scroll", tabindex="0", role="region", aria_label="Settings that differ"), box("table", "list differ"):
        with box("thead"), box("tr"):
            Text("th", "setting", "text", scope="col")
            for run in runs:
                with box("th", "text", scope="col"):
                    Text("span", "", "key", style=f"--own:var({run.colour})", aria_hidden="true")
                    Text("span", run.label)
        with box("tbody"):
            for name, values in rows:
                with box("tr"):
                    Text("th", name, scope="row")
                    for value in values:
                        Text("td", words.short(value, 300))


def _config(path: Path) -> Mapping[str, Any]:
    try:
        return toml.loads(read_text(path / "config.toml", toml.MOST_BYTES))
    except (HilError, ValueError):
        return {}


def _updated(live: LiveRun) -> bool:
    try:
        return live.update()
    except HilError:
        return False
