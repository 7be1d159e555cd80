"""hil.train: a network that a script made, trained as `hil train` trains an experiment, into the same kind of run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from hil.errors import UNTOUCHED, ConfigError, HilError, Interrupted, Refused, RunError, Stopped
from hil.hints import quoted

if TYPE_CHECKING:
    from hil.build.given import Given
    from hil.commands.run import Run
    from hil.commands.terminal import Terminal
    from hil.data.dataset import Dataset
    from hil.learner import Learner
    from hil.network import Network
    from hil.run.folder import RunFolder
    from hil.training.session import Point
    from hil.twin import Twin


def train(
    net: Network,
    learner: str | Learner | type,
    data: str | Dataset,
    *,
    epochs: int = 5,
    batch: int = 128,
    lr: float = 1e-3,
    optimizer: str | Mapping[str, Any] = "Adam",
    schedule: Literal["constant", "cosine"] = "constant",
    seed: int = 0,
    run: str | Path | None = None,
    name: str = "",
    show: bool | Callable[[Point], None] = True,
    report: bool = True,
    checkpoint_every_s: float = 60.0,
    twin: Twin | None = None,
    task: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Train `net` in place, and return its run: a folder with metrics, checkpoints, summary and report.

    The weights of `net` are afterwards those of the epoch with the best validation score. Call the same script again after
    an interruption or a fault, with the same `run`: it goes on from the newest checkpoint; a finished run is returned as it is,
    and nothing is trained. The first Ctrl-C ends the training after the step that runs, committed and resumable; a second one
    ends it at once. Whatever ends it, the outputs of the devices are made safe.

    Args:
        net: the network, its devices in its hidden layers; hil.dense makes one.
        learner: a name ("adfa", "dfa", "ff", ...; `hil list learners` shows them), a class with Settings and build, or an
            object with step, predict, state_dict and load_state_dict.
        data: a data set, or its name.
        epochs: how often all training examples are seen; more of them than before train a finished run longer.
        batch: examples in a step.
        lr: learning rate.
        optimizer: one of torch.optim, or with its settings: {"use": "SGD", "momentum": 0.9}.
        schedule: of the learning rate: "constant", or "cosine" down to 0 at the end.
        seed: of the order of the examples and of what the learner draws.
        run: the run folder: a new one, or the one to go on with. None: a new one in runs/.
        name: of the run, in its report.
        show: print what happens; or a function, called with every step and epoch instead.
        report: draw report.html at the end, which takes about a second; `hil report RUN` draws it later.
        checkpoint_every_s: a checkpoint follows every epoch, and every so many seconds.
        twin: a model of the device, for learners that differentiate one; known already of a bench file and of a simulated
            one.
        task: what is learned and how it is judged, as [task] of an experiment file: {"metric": "r2"}; None: what the targets
            ask for.
        **settings: of the learner, as in [learner] of an experiment file: feedback=hil.Feedback(...), loss="mse".

    Returns:
        the run.

    Raises:
        ConfigError, DataError: what was given does not fit together; nothing was driven.
        RunError: the folder holds another run, or one with other settings.
        Interrupted: Ctrl-C; the run is resumable.
        Stopped: a fault, chained as the cause; the run is resumable.
        UnsafeOutputs: the outputs could not be made safe.

    Example:
        >>> import hil, tempfile
        >>> from sim_devices.mach_zehnder import MachZehnder
        >>> net = hil.dense([64, 20, 10], MachZehnder(), overflow="clip")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = hil.train(net, "adfa", "digits", epochs=3, batch=32, lr=1e-2, run=folder, show=False, report=False)
        ...     run.test_accuracy > 0.6
        True
    """
    from hil.build.given import given, restore_decodes
    from hil.commands.run import Run
    from hil.data.dataset import load
    from hil.files import new_path
    from hil.run.folder import RunFolder

    data = load(data) if isinstance(data, str) else data
    path = Path(run) if run is not None else new_path(Path("runs"), name or "python")
    config = _begun(path)
    if config is not None:
        restore_decodes(net, config)
    rates = {"use": optimizer} if isinstance(optimizer, str) else dict(optimizer)
    table = {"epochs": epochs, "batch": batch, "schedule": schedule, "checkpoint_every_s": checkpoint_every_s}
    made = given(
        net,
        learner,
        data,
        seed=seed,
        name=name,
        optimizer={"lr": lr, **rates},
        train=table,
        settings=settings,
        twin=twin,
        task=task,
    )
    console = _console(show is True)
    folder = RunFolder(path) if config is not None else RunFolder.create(path)
    how = How(console, show if callable(show) else lambda point: None, report)
    with folder.owned():
        try:
            if config is None:
                _begin(folder, made, how)
            else:
                _go_on(folder, made, how)
        except (Stopped, Interrupted) as error:
            first = "" if isinstance(error, Interrupted) else "remove the cause, then "
            error.todo = f"{first}run the script again with the same run folder, and it goes on: {made.experiment.python}"
            raise
    return Run(path)


def _console(show: bool) -> Terminal:
    from hil.commands.terminal import Terminal
    from hil.telling import Teller

    if not show:
        return Terminal(quiet=True)
    teller = Teller(sys.stdout)
    return Terminal(file=cast(IO[str], teller), width=None if teller.isatty() else 160)


def _begun(path: Path) -> Mapping[str, Any] | None:
    """The config.toml of the run that is in the folder already; None: none is.

    Raises:
        RunError: it was not made from Python, or is damaged.
    """
    from hil import toml
    from hil.files import read_text, there

    config = path / "config.toml"
    if not there(config):
        return None
    try:
        found = toml.loads(read_text(config, toml.MOST_BYTES))
    except ValueError as error:
        raise RunError(
            "not TOML", where=str(config), got=str(error), outputs=UNTOUCHED, todo="choose another run folder"
        ) from error
    if "python" not in found:
        raise RunError(
            "this run was made from an experiment file", where=str(path), allowed="a folder that is new, or made by hil.train",
            outputs=UNTOUCHED, todo=f"choose another run folder; or go on with that one: hil resume {quoted(path)}",
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class How:
    """How a run tells of itself.

    Args:
        console: where to print.
        show: called with every point.
        report: draw report.html.
    """

    console: Terminal
    show: Callable[[Point], None]
    report: bool


def _begin(folder: RunFolder, made: Given, how: How) -> None:
    from hil.config.read import dump

    try:
        folder.write_config(dump(made.experiment))
        _launched(folder, made, how, None, False)
    except (HilError, KeyboardInterrupt) as error:
        noted = (folder.path / "journal.jsonl").exists() and not isinstance(error, Refused)
        if not noted and not any(folder.checkpoints.glob("*")):
            folder.discard()  # nothing ran: leave no empty folder behind
        raise


def _go_on(folder: RunFolder, made: Given, how: How) -> None:
    from hil import toml
    from hil.commands.train import reopen, report
    from hil.config.read import dump
    from hil.run import resume

    found = resume.inspect(folder.path)
    kept = str(found.config.get("python", ""))
    now = {**toml.loads(dump(made.experiment)), "python": kept}
    wrong = [text for key, text in resume.differences(found.config, now) if key not in resume.FREE]
    if wrong:
        raise RunError(
            "this run was begun with other settings", where=str(folder.path), got="; ".join(wrong[:4]),
            allowed="those that it was begun with; more epochs", outputs=UNTOUCHED, todo="choose another run folder",
        )  # fmt: skip
    start = None if found.damages else resume.start_of(found)
    facts: Mapping[str, Any] = {} if start is None else start.facts
    trained = int(facts.get("epoch", 0)) + (int(facts.get("batch", 0)) > 0)
    epochs = made.experiment.train.epochs
    if epochs < trained:
        raise ConfigError(
            "fewer epochs than were trained", where="hil.train epochs", got=str(epochs), allowed=f"{trained} or more",
            outputs=UNTOUCHED, todo="name more, or another run folder",
        )  # fmt: skip
    if found.status == "done" and epochs > trained:
        folder.write_config(dump(made.experiment))
        reopen(folder, trained, epochs)
        found = resume.inspect(folder.path)
    elif found.status == "done" and not found.damages and not {*found.lacking} - ({"report.html"} if not how.report else set()):
        how.console.print(f"run     {folder.path} is finished; nothing was driven", markup=False, soft_wrap=True)
        _best(folder, made)
        return
    plan = resume.plan(replace(found, config=now), python=True)
    for line in plan.said:
        how.console.print(f"resume  {line}", markup=False, soft_wrap=True)
    if plan.finish == ("report.html",):
        report(folder)
        _best(folder, made)
    else:
        _launched(folder, made, how, plan.start, True)


def _launched(folder: RunFolder, made: Given, how: How, start: Path | None, goes_on: bool) -> None:
    from hil.build.given import built_of
    from hil.commands.train import launch, lines, report
    from hil.devices.recovery import EventListener

    def building(experiment: object, run: Path, told: EventListener, *, record: bool, fresh: bool) -> Any:
        return built_of(made, told, fresh=fresh)

    summary = launch(folder, made.experiment, how.console, start, goes_on, building, how.show)
    for line in lines(folder, summary, report(folder) if how.report else None):
        how.console.print(line, markup=False, soft_wrap=True)


def _best(folder: RunFolder, made: Given) -> None:
    """The best weights of a finished run, into the network and the learner of the script.

    Raises:
        RunError: they are damaged, or of another network.
    """
    from hil.run import checkpoint
    from hil.run.checkpoint import under
    from hil.training.loop import fitting

    saved = checkpoint.load(folder.checkpoints / "best.json")
    with fitting():
        checkpoint.check_tensors(saved.tensors, made.net.state_dict(), "best weights")
        made.net.load_state_dict(dict(saved.tensors))
        if made.learner is not None:
            newest = checkpoint.load(checkpoint.latest(folder.checkpoints))
            made.learner.load_state_dict(under("best_learner", newest.tensors) or under("learner", newest.tensors))
