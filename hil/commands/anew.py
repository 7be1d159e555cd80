"""A run that goes on with other settings: which may differ, what that means for its schedule, and what it makes void."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from hil import toml
from hil.build.prepared import prepared
from hil.config.experiment import Experiment, read_experiment
from hil.config.read import dump
from hil.config.resolve import UNTOUCHED
from hil.errors import ConfigError, RunError
from hil.files import remove_tree
from hil.hints import counted, quoted
from hil.metric import told as judged
from hil.report.figure import FOLDER as FIGURES
from hil.run import resume as condition
from hil.run.folder import RunFolder
from hil.run.summary import FILE, amend
from hil.training.stopping import exhausted


def set_anew(folder: RunFolder, sets: Sequence[str], changed: bool = False, chosen: Path | None = None) -> list[str]:
    """Write other settings into the config.toml of a run that goes on, and return what must be said about them.

    With more epochs, a larger budget of passes or more patience, a finished run is an interrupted one again: its weights,
    optimiser, metrics and best epoch carry on from its last checkpoint, and its test split is read once more at the end.

    Args:
        folder: of the run.
        sets: section.key=value.
        changed: settings that change what is trained are meant.
        chosen: as of `condition.plan`.

    Raises:
        Refused: nothing was changed.
    """
    found, where = condition.inspect(folder.path), "--set"
    copy = folder.path / "bench.toml"
    before, wanted = (read_experiment(folder.config, some, bench=copy) for some in ((), sets))
    wrong = [
        text
        for key, text in condition.differences(toml.loads(dump(before)), toml.loads(dump(wanted)))
        if key not in condition.FREE
    ]
    if wrong and not changed:
        raise ConfigError(
            "what was trained with another setting cannot go on with this one", where=where, got="; ".join(wrong),
            allowed=", ".join(condition.FREE), outputs=UNTOUCHED,
            todo=f"start a new run: hil train {quoted(folder.config)} --set …; or, if it is meant, add --changed",
        )  # fmt: skip
    start, table = condition.start_of(found, chosen), wanted.train
    facts = {} if start is None else start.facts
    trained = int(facts.get("epoch", 0)) + (int(facts.get("batch", 0)) > 0)
    if table.epochs < trained:
        raise ConfigError(
            "fewer epochs than were trained", where=f"{where} train.epochs", got=str(table.epochs),
            allowed=f"{trained} or more", outputs=UNTOUCHED,
            todo="name more; or an earlier checkpoint to go on from, with --from",
        )  # fmt: skip
    said = [*_scheduled(before, wanted, int(facts.get("step", 0)), trained)]
    if found.status == "done":
        passes = sum(int(device["passes"]) for device in facts.get("devices", ()))
        rising = not judged(folder.read_json(FILE)).lower
        stale = exhausted(facts.get("scores", ()), table.patience, table.min_delta, rising)
        if start is None or table.epochs == trained or (table.budget_passes or passes + 1) <= passes or stale:
            more = quoted(f"train.patience={int(table.patience or 0) + 5}" if stale else f"train.epochs={trained + 5}")
            raise RunError(
                "this run is finished, and nothing is left to train", where=str(folder.path), outputs=UNTOUCHED,
                got=f"{counted(trained, 'epoch')}, {passes:,} device passes"
                + (f", patience of {table.patience} over" if stale else ""),
                allowed="more epochs, and no budget of passes below that" + (", and more patience" if stale else ""),
                todo=f"hil resume {quoted(folder.path)} --set " + more,
            )  # fmt: skip
        said.append("the test split was read when the run was finished; it is read again at the end, and the summary says so")
    prepared(wanted)  # what it would refuse must not be written down
    folder.write_config(dump(wanted))
    if found.status == "done":
        reopen(folder, trained, table.epochs)
    return said


def _scheduled(before: Experiment, wanted: Experiment, step: int, trained: int) -> Iterator[str]:
    """Say what another number of epochs means for the learning rate."""
    old, new = before.train.epochs, wanted.train.epochs
    if old == new or step == 0:
        return
    run = counted(new, "epoch")
    if wanted.schedule.use not in ("constant", "cosine"):
        yield f"{wanted.schedule.use} goes on: this is a run of {run} from its beginning"
        return
    if wanted.schedule.use == "constant":
        yield f"the learning rate is constant, so this is a run of {run} from its beginning"
        return
    at, then = (0.5 * (1 + math.cos(math.pi * min(1.0, trained / epochs))) for epochs in (old, new))
    yield (
        f"the {wanted.schedule.use} schedule is stretched to {run}: after epoch {trained} the learning rate goes on "
        f"at {then:.0%} of [optimizer] lr instead of {at:.0%}; a run of {run} from its beginning gives other numbers"
    )


def reopen(folder: RunFolder, trained: int, epochs: int) -> None:
    """Forget the end of a finished run: it belongs to fewer epochs, and is made again."""
    folder.note("longer", message=f"to be trained for {counted(epochs, 'epoch')}", trained=trained)
    kept = folder.read_json("diagnostics.json")
    folder.write_json("diagnostics.json", {key: kept[key] for key in ("transfer", "honesty") if key in kept})
    folder.report.unlink(missing_ok=True)
    remove_tree(folder.path / FIGURES)
    amend(folder, status="interrupted", cause=f"finished after {counted(trained, 'epoch')}, to be trained for {epochs}")
