"""Several learners on several devices with several seeds, on equal terms.

Equal are the data, the initial weights and the order of examples for a seed, the settings but those named, and the budget.

base = "digits_adfa_twin.toml"          an experiment file; everything that is not said here is as there
seeds = [0, 1, 2]
budget_passes = 4_000_000               each run ends with the step that spends them, validation and transfer curve included,
epochs = 12                             or with this epoch, whichever comes first; left out: as in the base
ablation = true                         each learner also with a wire and with a dead node, and the last layer trained alone
[[learner]]                             name, set; the rest is the [learner] of the experiment
use = "adfa"
[[learner]]
name = "SPSA"
use = "spsa"
set = ["optimizer.lr=0.01"]             section.key=value, for this learner only
[[device]]                              name, set; the rest is the [device]; left out: the base's
use = "mach_zehnder"

    compare/<name>/  table.json  compare.html  runs/<learner>/<device>/seed-<n>/        each a run folder, as of hil train
                                                runs/<learner>/<device>/<wire, dead>/seed-<n>/

A finished run is not repeated; an interrupted one goes on from its last checkpoint.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table

from hil.build.calibration import kept_files
from hil.build.prepared import prepared
from hil.commands import trust
from hil.commands.terminal import Terminal
from hil.commands.train import launch, resume
from hil.config import modules
from hil.config.device import DeviceTable
from hil.config.experiment import Experiment, LearnerTable, experiment_of
from hil.config.read import Holds, Section, checked, dump, find, of_kind, override, read_toml
from hil.config.resolve import UNTOUCHED
from hil.errors import ConfigError, Interrupted, RunError, Stopped
from hil.files import read_text, there, write_atomic
from hil.hints import quoted
from hil.metric import named
from hil.report import render
from hil.report.ablation import LAST_LAYER, ablation
from hil.report.ablation import table as worths
from hil.report.comparison import outcome, table, write
from hil.report.significance import ComparisonRow, RunOutcome, Standings, on_device
from hil.report.tables import TextTable
from hil.run.folder import RunFolder
from hil.run.resume import inspect, plan

RESULTS = ("table.json", "compare.html")
INSTEAD = ("wire", "dead")
FIRST = (0, 2, 3, 4, 11, 1, 6, 7, 5, 8, 9, 10)  # learner, mean, std, worst, |r|, seeds, passes, wall, …
FIRST_OF_WORTH = (0, 1, 2, 4, 5, 3)  # learner, node, wire, their difference, that to the last layer, dead node
WORTH = (
    "Wire: in the place of the node, linear from the range of its drive to the range of its reading (zero ± scale of [decode]) "
    "without noise; drives out of range are clipped, never folded. Of many channels each reading follows one drive. The rest "
    "of the experiment is unchanged, g of aDFA included. Dead node: one reading, whatever the drive.",
    "Differences: of means over seeds, ± their standard error (Welch); one within two standard errors is not stated.",
)
ASKED = "asked.toml"  # beside config.toml, which the run completes with what it measured


class Entry(BaseModel):
    """A learner or a device: name and set are ours, the rest goes into its table of the experiment.

    Args:
        name: in the results; none: what it uses.
        set: changes of the base for this one, "section.key=value".
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str | None = None
    set: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """Return the keys of the entry that are settings, as they are written."""
        return dict(self.model_extra or {})

    def called(self, otherwise: str) -> str:
        """The name of the learner, or what it uses."""
        rest = self.settings()
        return self.name or str(next((rest[key] for key in ("use", "bench", "chip") if key in rest), otherwise))


class Comparison(Section):
    """A comparison file.

    Args:
        base: the experiment that every run is made of.
        name: of the results; empty: the name of the file.
        seeds: one run each.
        budget_passes: device passes after which a run ends; none: no bound.
        epochs: of each run; none: those of the base.
        ablation: what the physics is worth: every learner also runs with a wire in the place of the node and with a dead node,
            and one trains the last layer alone.
        learner: [[learner]], one each: as [learner] of an experiment, and name, set.
        device: [[device]], one each: as [device] of an experiment, and name, set; left out: that of the base.
    """

    base: str
    name: str = ""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    budget_passes: Annotated[int, Field(gt=0)] | None = None
    epochs: Annotated[int, Field(gt=0)] | None = None
    ablation: Annotated[bool, Field(strict=True)] = False
    learner: Annotated[tuple[Entry, ...], Field(min_length=1), Holds(LearnerTable)]
    device: Annotated[tuple[Entry, ...], Holds(DeviceTable)] = (Entry(),)


@dataclass(frozen=True)
class Cell:
    """A run that is to be made.

    Args:
        named: files beside which modules of the user's are found: the comparison and its base.
        instead: what takes the place of the node, "" if nothing does.
    """

    learner: str
    device: str
    experiment: Experiment
    folder: Path
    named: tuple[Path, ...] = ()
    instead: str = ""


def read(path: Path) -> Comparison:
    """Raises: ConfigError: names file, table, key, what was found and what is allowed."""
    table = read_toml(path)
    of_kind(table, "compare", path)
    return checked(Comparison, table, str(path))


def run(file: Comparison, path: Path, out: Path, console: Console, trusted: bool = False) -> Standings:
    """Make the runs that are missing in `out`, write table.json and compare.html there, and return what they show.

    Args:
        file: the comparison.
        path: of the comparison file.
        out: its folder.
        console: where people are told.
        trusted: see hil/commands/trust.py, for runs that were begun.

    Raises:
        Refused: before anything runs. Stopped, Interrupted: as of hil train; the same command goes on.
    """
    modules.also(path, find(file.base, path))
    listed = list(cells(file, path, out))
    _unharmed(out, listed)
    for cell in listed:
        if there(cell.folder):
            trust.check(cell.folder, trusted)
        data = prepared(cell.experiment).data
        _fits(cell)
    out.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, str, str], list[RunOutcome]] = {}
    for number, cell in enumerate(listed, 1):
        done = _finished(cell)
        try:
            if not done:
                _train(cell)
        except (Stopped, Interrupted) as error:
            error.todo = f"hil compare {quoted(path)} --out {quoted(out)}   (goes on where it stopped)"
            raise
        result = outcome(cell.folder, str(cell.folder.relative_to(out)))
        metric = named(result.metric, result.lower)
        found.setdefault((cell.learner, cell.device, cell.instead), []).append(result)
        console.print(
            f" {number:>3}/{len(listed)}  {cell.learner} · {on_device(cell.device, cell.instead)} · seed {result.seed}   "
            f"test {metric.said(result.test)}   {result.passes:,.0f} passes   {result.wall_s:.1f} s"
            f"{'   (made before)' if done else ''}",
            soft_wrap=True, markup=False,
        )  # fmt: skip
        for line in () if cell.instead == "dead" else result.warnings:  # of a dead node all learners are at chance
            console.print(f"         beware: {line}", soft_wrap=True, markup=False)
    rows = tuple(ComparisonRow(learner, device, tuple(runs), instead) for (learner, device, instead), runs in found.items())
    standings = Standings(file.name or path.stem, rows, _terms(file, listed[0].experiment), len(data.test))
    write(standings, out)
    return standings


def cells(file: Comparison, path: Path, out: Path) -> Iterator[Cell]:
    """Yield every run of the comparison, seed by seed, so that a part of it is already a comparison.

    Raises:
        ConfigError: two have one name, or the experiment makes no sense.
    """
    base = find(file.base, path)
    table = read_toml(base)
    learners = _named(_learners(file), "learner", path)
    devices = _named(file.device, "device", path, str(table.get("name") or base.stem))
    asked = {
        (learner, device, instead): experiment_of(
            _table(table, file, by, on, instead), path, near=path if on.settings() else base
        )
        for device, on in devices.items()
        for learner, by in learners.items()
        for instead in ("", *(INSTEAD if file.ablation else ()))
    }
    for seed in file.seeds:
        for (learner, device, instead), experiment in asked.items():
            folder = out / "runs" / _slug(learner) / _slug(device) / instead / f"seed-{seed}"
            changed = experiment.model_copy(update={"seed": seed})
            yield Cell(learner, device, changed, folder, (path, base), instead)


def _learners(file: Comparison) -> tuple[Entry, ...]:
    """The learners of the file, and of an ablation one that trains the last layer alone."""
    if not file.ablation or any(entry.settings().get("use") == LAST_LAYER for entry in file.learner):
        return file.learner
    return (*file.learner, Entry.model_validate({"name": "last layer", "use": LAST_LAYER}))


def tables(standings: Standings, width: int) -> Iterator[Table]:
    """Make tables for each device, for the terminal: the learners, and what its node adds.

    Args:
        standings: the results.
        width: of the terminal; columns that have no room are left out, those that matter least first.
    """
    metric, found = standings.metric.title, list(ablation(standings))
    for device in standings.devices:
        yield _shown(f"{device}: test {metric} over seeds", table(standings.on(device)), FIRST, width)
        if listed := [worth for worth in found if worth.node.device == device]:
            yield _shown(f"{device}: what the node adds, test {metric}", worths(listed), FIRST_OF_WORTH, width)


def _shown(title: str, made: TextTable, order: Sequence[int], width: int) -> Table:
    """Make `made` a table of the terminal.

    Args:
        title: of the table.
        made: its text.
        order: numbers of its columns, those that matter most first; one that it does not have is passed over.
        width: of the terminal.
    """
    shown = Table(title=title, title_justify="left", box=None, header_style="dim")
    kept = _fitting(made, order, width)
    for k in kept:
        shown.add_column(made.head[k], justify="left" if made.head[k] == "learner" else "right", no_wrap=True)
    for row in made.rows:
        shown.add_row(*(row[k] for k in kept))
    left_out = [head for k, head in enumerate(made.head) if k not in kept]
    if left_out:
        shown.caption, shown.caption_justify = f"in the report: {', '.join(left_out)}", "left"
    return shown


def _fitting(made: TextTable, order: Sequence[int], width: int) -> list[int]:
    """The columns that there is room for, the later ones left out first; a column is as wide as its widest cell and two."""
    wide = [max(len(row[k]) for row in (made.head, *made.rows)) + 2 for k in range(len(made.head))]
    kept = [k for k in order if k < len(wide)]
    while len(kept) > 1 and sum(wide[k] for k in kept) > width:
        kept.pop()
    return sorted(kept)


def _table(base: Mapping[str, Any], file: Comparison, by: Entry, on: Entry, instead: str) -> dict[str, Any]:
    """The experiment file of a learner on a device; its seed is set afterwards."""
    made = copy.deepcopy(dict(base))
    made["learner"] = by.settings()
    if on.settings():
        made["device"] = on.settings()
    terms = {"epochs": file.epochs, "budget_passes": file.budget_passes}
    made["train"] = {**made.get("train", {}), **{key: value for key, value in terms.items() if value is not None}}
    for text in (*on.set, *by.set):
        override(made, text)
    if instead:
        listed = made.get("device")
        for one in listed if isinstance(listed, list) else [listed]:
            if isinstance(one, dict):  # anything else is refused when the experiment is read
                one["instead"] = instead
        made.pop("sentinel", None)  # what takes the node's place does not drift, and nothing of it needs to be recorded
        made["train"].pop("record", None)
    return made


def _named(entries: Sequence[Entry], kind: str, path: Path, otherwise: str = "") -> Mapping[str, Entry]:
    named: dict[str, Entry] = {}
    for entry in entries:
        name = entry.called(otherwise)
        if _slug(name) in map(_slug, named) or not _slug(name):
            fault = f"two {kind}s are called alike" if name else f"a {kind} has neither name nor use"
            raise ConfigError(
                fault, where=f"{path}: [[{kind}]]", got=repr(name), outputs=UNTOUCHED,
                todo=f'give each a name of its own: name = "{name or kind} 2"',
            )  # fmt: skip
        named[name] = entry
    return named


def _slug(name: str) -> str:
    """A folder's name: letters, digits, points and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def _fits(cell: Cell) -> None:
    """Refuse a folder whose run was asked for with other settings."""
    asked = cell.folder / ASKED
    if there(asked) and read_text(asked) != dump(cell.experiment):
        raise RunError(
            "this run was made with other settings", where=str(cell.folder), got=f"another {ASKED}",
            allowed="runs of the same comparison", outputs=UNTOUCHED, todo="choose another --out, or remove that folder",
        )  # fmt: skip


def _finished(cell: Cell) -> bool:
    if not there(cell.folder / ASKED):
        return False
    found = inspect(cell.folder, verify=False)
    return found.status == "done" and not found.lacking


def _unharmed(out: Path, listed: Sequence[Cell]) -> None:
    """Refuse a folder with results that no comparison of ours wrote. Raises: RunError."""
    for name in RESULTS:
        if there(out / name) and not any(there(cell.folder / ASKED) for cell in listed):
            raise RunError(
                "this file would be overwritten", where=str(out / name), got="a folder without a run of this comparison",
                allowed="a new or empty folder, or that of the same comparison", outputs=UNTOUCHED, todo="choose another --out",
            )  # fmt: skip


def _train(cell: Cell) -> None:
    """Start the run, or go on with it."""
    quiet = Terminal(quiet=True)
    folder = RunFolder(cell.folder)
    if not any(folder.checkpoints.glob("step-*")):
        if there(cell.folder / ASKED):
            with folder.owned():  # by nobody else
                folder.clear()  # nothing was committed
        folder = RunFolder.create(cell.folder)
        with folder.owned():
            write_atomic(folder.path / ASKED, dump(cell.experiment).encode())  # from here on the folder is known as this run's
            for name, payload in kept_files(cell.experiment, [cell.experiment.near, *cell.named]).items():
                write_atomic(folder.path / name, payload)
            folder.write_config(dump(cell.experiment))
            launch(folder, cell.experiment, quiet)
    else:
        with folder.owned():
            resume(folder, plan(inspect(folder.path)).start, quiet)
    render(folder.path, files=False)


def _terms(file: Comparison, experiment: Experiment) -> tuple[str, ...]:
    train = experiment.train
    budget = "no budget of device passes" if file.budget_passes is None else f"{file.budget_passes:,} device passes"
    terms = (
        f"Every run ends with the step that spends its budget, or with its last epoch: {budget}, {file.epochs or train.epochs} "
        "epochs. The transfer curve and every validation count as passes, as training does.",
        f"Data {experiment.data.use}, batch {train.batch}; for one seed all learners have the same initial weights, the same "
        f"order of examples; noise is keyed by the seed and the number of the call. Seeds: {', '.join(map(str, file.seeds))}.",
        "The epoch is chosen on the validation split; the test split is read once, at the end of each run.",
        "Bits per example: of one training step, 16 for a value sent or read, 1 for a spike. Angles: between the learner's "
        "direction and the true gradient of the twin (for spikes the surrogate gradient through time), per layer, mean over "
        "seeds, at the end; 90° is no relation.",
        "|r|: per hidden layer, magnitude of the correlation of the learner's g with the slope of the node, over what was "
        "visited at the end, mean over seeds. Static nodes: the slope of the twin, over pre-activations. Spiking neurons: the "
        "slope of a relaxed spike, over membranes. 1: g is the slope, up to a factor; 0: no relation.",
    )
    return (*terms, *WORTH) if file.ablation else terms
