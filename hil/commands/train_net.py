"""hil.train: a network that a script made, trained as `hil train` trains an experiment, into the same kind of run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, ParamSpec, Self, cast

from hil.errors import UNTOUCHED, ConfigError, HilError, Interrupted, Refused, RunError, Stopped
from hil.hints import quoted

if TYPE_CHECKING:
    from hil.build.given import Given
    from hil.commands.run import Run
    from hil.commands.terminal import Terminal
    from hil.learner import Learner
    from hil.loggers.logger import LoggerName
    from hil.network import Network
    from hil.run.folder import RunFolder
    from hil.training.session import Point
    from hil.twin import Twin

P = ParamSpec("P")


def train(
    net: Network,
    learner: str | Learner | type,
    data: Any,
    *,
    epochs: int = 5,
    batch: int = 128,
    lr: float = 1e-3,
    optimizer: str | Mapping[str, Any] = "Adam",
    scheduler: str | Mapping[str, Any] = "constant",
    patience: int | None = None,
    min_delta: float = 0.0,
    clip_norm: float | None = None,
    accumulate: int = 1,
    class_weights: Literal["balanced"] | Sequence[float] | None = None,
    augment: Mapping[str, Any] = {},
    start_from: str | Path | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    name: str = "",
    show: bool | Callable[[Point], None] = True,
    report: bool = True,
    checkpoint_every_s: float = 60.0,
    log: Sequence[LoggerName] = (),
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
        data: a data set; or its name, a file, arrays (x, y), a torch Dataset: whatever hil.load takes.
        epochs: how often all training examples are seen; more of them than before train a finished run longer.
        batch: examples in a step.
        lr: learning rate.
        optimizer: one of torch.optim, or with its settings: {"use": "SGD", "momentum": 0.9}.
        scheduler: of the learning rate: "constant", "cosine" down to 0 at the end, or one of torch.optim.lr_scheduler with its
            settings: {"use": "StepLR", "step_size": 2}, "every": "step" or "epoch" among them.
        patience: training ends after so many epochs without a better validation accuracy; None: with the last epoch.
        min_delta: better by more than this.
        clip_norm: largest norm of the gradient of all weights together; None: any.
        accumulate: the optimiser moves once in so many batches, by the mean of their gradients.
        class_weights: of each class in the loss; "balanced": inversely to how often it occurs.
        augment: of training examples, as [augment] of an experiment file: {"shift": 1, "flip": 0.5, "cutout": 4, "noise": 0.1}.
        start_from: a run folder, whose best weights the training begins with.
        seed: of the order of the examples and of what the learner draws.
        run: the run folder: a new one, or the one to go on with. None: a new one in runs/.
        name: of the run, in its report.
        show: print what happens; or a function, called with every step and epoch instead.
        report: draw report.html at the end, which takes about a second; `hil report RUN` draws it later.
        checkpoint_every_s: a checkpoint follows every epoch, and every so many seconds.
        log: who is told of every step and epoch besides the run folder: "csv", "tensorboard", "mlflow", "wandb". They write to
            logs/ there, and none of them can end the run.
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
    from hil.training.session import drained

    return drained(
        _points(
            net, learner, data, epochs=epochs, batch=batch, lr=lr, optimizer=optimizer, scheduler=scheduler, patience=patience,
            min_delta=min_delta, clip_norm=clip_norm, accumulate=accumulate, class_weights=class_weights, augment=augment,
            start_from=start_from, seed=seed, run=_folder(run, name), name=name, show=show, report=report,
            checkpoint_every_s=checkpoint_every_s, log=log, twin=twin, task=task, settings=settings,
        )
    )  # fmt: skip


class Points:
    """A training that you step through: an iterator of its points, and a context. What hil.points returns.

    Between two points everything is committed to the journal, and Ctrl-C, the recovery of faults and the guardian work as in
    hil.train. Leave the loop when you like: at the end of the `with` block the run is interrupted there, its outputs made safe,
    and the same script goes on with it.

    Args:
        points: the generator.
        folder: of the run.
    """

    def __init__(self, points: Generator[Point, None, Run], folder: Path) -> None:
        self._points, self.folder = points, folder

    @property
    def run(self) -> Run:
        """The run as its folder has it, at any time."""
        from hil.commands.run import Run

        return Run(self.folder)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Point:
        return next(self._points)

    def close(self) -> None:
        """Interrupt the run where it is, committed and resumable; of a run that is over nothing is left to do."""
        with suppress(Interrupted):  # that is what was asked for
            self._points.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _stepped_through(train: Callable[P, Run]) -> Callable[P, Points]:
    def points(*given: P.args, **named: P.kwargs) -> Points:
        """Train like hil.train, and yield every step and epoch; the arguments are those of hil.train.

        A step has epoch, step, examples and metrics ("loss", ...); an epoch has epoch, step, train and validation (mappings),
        best, wall_s and device_s.

        Returns:
            an iterator, whose `run` is the run; use it as a context, so that the outputs are safe when the loop is left.

        Raises:
            what hil.train raises, from the loop.

        Example:
            >>> import hil, tempfile
            >>> from sim_devices.mach_zehnder import MachZehnder
            >>> net = hil.dense([64, 20, 10], MachZehnder(), overflow="clip")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     with hil.points(net, "adfa", "digits", run=folder, show=False) as points:
            ...         for point in points:
            ...             if point.step == 3:
            ...                 break
            ...     points.run.summary["status"]
            'interrupted'
        """
        bound = signature(train).bind(*given, **named)
        bound.apply_defaults()
        wanted = dict(bound.arguments)
        wanted["run"] = _folder(wanted["run"], wanted["name"])
        return Points(_points(**wanted), wanted["run"])

    points.__signature__ = signature(train).replace(return_annotation=Points)  # type: ignore[attr-defined]
    return points


points = _stepped_through(train)


def _folder(run: str | Path | None, name: str) -> Path:
    from hil.files import new_path

    return Path(run) if run is not None else new_path(Path("runs"), name or "python")


def _points(
    net: Network, learner: str | Learner | type, data: Any, *, epochs: int, batch: int, lr: float,
    optimizer: str | Mapping[str, Any], scheduler: str | Mapping[str, Any], patience: int | None, min_delta: float,
    clip_norm: float | None, accumulate: int, class_weights: Literal["balanced"] | Sequence[float] | None,
    augment: Mapping[str, Any], start_from: str | Path | None, seed: int, run: Path, name: str,
    show: bool | Callable[[Point], None], report: bool, checkpoint_every_s: float, log: Sequence[LoggerName], twin: Twin | None,
    task: Mapping[str, Any] | None, settings: Mapping[str, Any],
) -> Generator[Point, None, Run]:  # fmt: skip
    """See `train`, whose arguments these are."""
    from hil.build.described import described
    from hil.build.given import given, script
    from hil.build.measured import restore
    from hil.commands.run import Run
    from hil.data.dataset import Dataset, load
    from hil.run.folder import RunFolder

    asked = data if isinstance(data, str) else None
    data = data if isinstance(data, Dataset) else load(data)
    config = _begun(run)
    if config is not None:
        restore(net, config)
    rates = {"use": optimizer} if isinstance(optimizer, str) else dict(optimizer)
    weights = class_weights if class_weights is None or isinstance(class_weights, str) else list(class_weights)
    table = {
        "epochs": epochs, "batch": batch, "patience": patience, "min_delta": min_delta, "clip_norm": clip_norm,
        "accumulate": accumulate, "class_weights": weights, "from": None if start_from is None else str(start_from),
        "checkpoint_every_s": checkpoint_every_s,
    }  # fmt: skip
    made = described(
        given(
            net, learner, data, seed=seed, name=name, optimizer={"lr": lr, **rates}, train=table, settings=settings,
            schedule={"use": scheduler} if isinstance(scheduler, str) else scheduler, augment=augment, twin=twin,
            log={"to": list(log)}, task=task,
        ),
        asked,
    )  # fmt: skip
    console = _console(show is True)
    folder = RunFolder(run) if config is not None else RunFolder.create(run)
    how = How(console, show if callable(show) else lambda point: None, report)
    with folder.owned():
        try:
            if config is None:
                yield from _begin(folder, made, how)
            else:
                yield from _go_on(folder, made, how)
        except (Stopped, Interrupted) as error:
            first = "" if isinstance(error, Interrupted) else "remove the cause, then "
            also = "" if made.experiment.bench is None else f"; or: hil resume {quoted(run)}"
            error.todo = f"{first}run the script again with the same run folder, and it goes on: {script()}{also}"
            raise
    return Run(run, net)


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
    if not {"python", "script"} & set(found):
        raise RunError(
            "this run was made from an experiment file", where=str(path), allowed="a folder that is new, or made by hil.train",
            outputs=UNTOUCHED, todo=f"choose another run folder; or go on with that one: hil resume {quoted(path)}",
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class How:
    """Settings that say how a run tells of itself.

    Args:
        console: where to print.
        show: called with every point.
        report: draw report.html.
    """

    console: Terminal
    show: Callable[[Point], None]
    report: bool


def _begin(folder: RunFolder, made: Given, how: How) -> Generator[Point, None, None]:
    from hil.build.calibration import bench_files
    from hil.config import modules
    from hil.config.read import dump
    from hil.files import write_atomic

    try:
        bench, here = made.experiment.bench, Path("script.py")  # modules are found beside the bench file, or here
        if bench is not None:
            origins = modules.origins({"config.toml": [here], "bench.toml": [bench.file, here]})
            for kept, payload in {**bench_files(bench), modules.ORIGINS: origins}.items():
                write_atomic(folder.path / kept, payload)
        folder.write_config(dump(made.experiment))
        yield from _launched(folder, made, how, None, False)
    except (HilError, KeyboardInterrupt) as error:
        noted = (folder.path / "journal.jsonl").exists() and not isinstance(error, Refused)
        if not noted and not any(folder.checkpoints.glob("*")):
            folder.discard()  # nothing ran: leave no empty folder behind
        raise


def _go_on(folder: RunFolder, made: Given, how: How) -> Generator[Point, None, None]:
    from hil import toml
    from hil.build.measured import restore
    from hil.commands.anew import reopen
    from hil.commands.train import report
    from hil.config.read import dump
    from hil.run import resume
    from hil.training.stopping import exhausted

    found = resume.inspect(folder.path)
    kept = {key: found.config[key] for key in ("python", "script") if key in found.config}  # it may have another name today
    now = {**toml.loads(dump(made.experiment)), **kept}
    wrong = [text for key, text in resume.differences(found.config, now) if key not in resume.FREE]
    if wrong:
        raise RunError(
            "this run was begun with other settings", where=str(folder.path), got="; ".join(wrong[:4]),
            allowed="those that it was begun with; more epochs", outputs=UNTOUCHED, todo="choose another run folder",
        )  # fmt: skip
    start = None if found.damages else resume.start_of(found)
    facts: Mapping[str, Any] = {} if start is None else start.facts
    restore(made.net, facts.get("experiment") or {})  # config.toml may be older than what was measured
    trained = int(facts.get("epoch", 0)) + (int(facts.get("batch", 0)) > 0)
    epochs, train = made.experiment.train.epochs, made.experiment.train
    stale = exhausted(facts.get("scores", ()), train.patience, train.min_delta, not made.task.metric.lower)
    if epochs < trained:
        raise ConfigError(
            "fewer epochs than were trained", where="hil.train epochs", got=str(epochs), allowed=f"{trained} or more",
            outputs=UNTOUCHED, todo="name more, or another run folder",
        )  # fmt: skip
    if found.status == "done" and epochs > trained and not stale:
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
        yield from _launched(folder, made, how, plan.start, True)


def _launched(
    folder: RunFolder, made: Given, how: How, start: Path | None, goes_on: bool
) -> Generator[Point, None, None]:  # fmt: skip
    from hil.build.given import built_of
    from hil.commands.train import launched, lines, report
    from hil.devices.recovery import EventListener

    def building(experiment: object, run: Path, told: EventListener, *, record: bool, fresh: bool) -> Any:
        return built_of(made, told, fresh=fresh)

    summary = yield from launched(folder, made.experiment, how.console, start, goes_on, building, how.show)
    for line in lines(folder, summary, report(folder) if how.report else None):
        how.console.print(line, markup=False, soft_wrap=True)


def _best(folder: RunFolder, made: Given) -> None:
    """The best weights of a finished run, into the network and the learner of the script.

    Raises:
        RunError: they are damaged, or of another network.
    """
    from hil.run import checkpoint
    from hil.run.checkpoint import under
    from hil.training.state import fitting

    saved = checkpoint.load(folder.checkpoints / "best.json")
    with fitting():
        checkpoint.check_tensors(saved.tensors, made.net.state_dict(), "best weights")
        made.net.load_state_dict(dict(saved.tensors))
        if made.learner is not None:
            newest = checkpoint.load(checkpoint.latest(folder.checkpoints))
            made.learner.load_state_dict(under("best_learner", newest.tensors) or under("learner", newest.tensors))
