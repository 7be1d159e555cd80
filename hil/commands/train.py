"""One run, from a folder that holds a config.toml to its summary and report: build, restore, train, diagnose.

What happens is told three times: to the user (the error), to the journal (a line), to whoever hears the alarms.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from hil import toml
from hil.build.measured import remembered
from hil.build.training import Built, built
from hil.commands.terminal import Terminal
from hil.config.experiment import Experiment, read_experiment
from hil.config.read import dump
from hil.config.resolve import located
from hil.config.watch import AlarmTable
from hil.errors import (
    ContractError,
    HilError,
    Interrupted,
    Refused,
    RunError,
    Stopped,
    Unrepeatable,
    UnsafeOutputs,
)
from hil.files import remove_tree, there
from hil.foreign import foreign, said
from hil.hints import counted, quoted
from hil.loggers import loggers
from hil.report import render
from hil.run import checkpoint, journal
from hil.run import resume as condition
from hil.run.alarms import Alarms, AlarmSettings, argv_of
from hil.run.checkpoint import Checkpoint
from hil.run.control import Listening, Paused
from hil.run.folder import RunFolder
from hil.run.signals import Stopping
from hil.run.summary import FILE, Labels, amend, test_said
from hil.telling import Teller, ignore
from hil.training import diagnostics, disk_space
from hil.training.outcome import narrow
from hil.training.progress import TrainingDisplay, telling
from hil.training.session import Point, Points, Session, drained, replay_test

Building = Callable[..., AbstractContextManager[Built]]


def launch(
    folder: RunFolder,
    experiment: Experiment,
    console: Console,
    start: Path | None = None,
    goes_on: bool = False,
    building: Building | None = None,
    show: Callable[[Point], None] = lambda point: None,
) -> dict[str, Any]:
    """Train `experiment` in its run folder, and return the summary. Arguments and errors as of `launched`."""
    return drained(launched(folder, experiment, console, start, goes_on, building, show))


def launched(
    folder: RunFolder,
    experiment: Experiment,
    console: Console,
    start: Path | None = None,
    goes_on: bool = False,
    building: Building | None = None,
    show: Callable[[Point], None] = lambda point: None,
) -> Points:
    """Train `experiment` in its run folder: yield the points, return the summary; of a run that is done make diagnostics only.

    Args:
        folder: with the experiment in its config.toml.
        experiment: as it was read from there.
        console: where people are told.
        start: a checkpoint to go on from, or None for step 0.
        goes_on: the run was begun before.
        building: opens the device and builds the training, instead of `built`.
        show: called with every point, besides the display.

    Raises:
        Refused: nothing was trained. Stopped, Interrupted: the run is committed and resumable.
        UnsafeOutputs: outputs could not be verified safe, whatever else went wrong.
    """
    with (
        folder.owned(),
        printed(console, folder),
        display_noted(console, folder),
        Stopping() as stopping,
        Listening(folder.path, stopping, folder.note, pausable=building is None),
    ):
        while True:
            try:
                return (yield from _opened(folder, experiment, console, start, goes_on, building, show, stopping))
            except Paused as error:
                paused = error
            start, goes_on = _waited(folder, paused, stopping, console), True
            experiment = read_experiment(folder.config, bench=folder.path / "bench.toml")


def _opened(
    folder: RunFolder, experiment: Experiment, console: Console, start: Path | None, goes_on: bool, building: Building | None,
    show: Callable[[Point], None], stopping: Stopping,
) -> Points:  # fmt: skip
    """Open the device, train, and close it. Arguments and errors as of `launched`; Paused: it may be opened again."""
    origin = experiment.near
    stopping.again()
    saved = checkpoint.load(start) if start else None  # read before anything is opened
    written = experiment
    if saved is not None:
        experiment = remembered(experiment, saved.facts.get("experiment"))
    complete = saved is not None and experiment is written  # config.toml says all that was measured
    done = folder.read_json(FILE).get("status") == "done"
    folder.sweep()
    if saved is None:
        remove_tree(folder.path / "tape")  # of a run that is made again from its beginning

    told = _Told(folder, console)
    if not goes_on:
        loggers.check(experiment.log.to, f"{origin}: [log] to")
    with (
        Alarms(_settings(experiment.alarm), str(folder.path), folder.note) as alarms,
        loggers.Loggers(experiment.log.to, folder, partial(_left_behind, folder, console)) as logs,
    ):
        with (
            _told(folder, origin, alarms) as ending,
            told,
            (building or built)(
                experiment,
                folder.path,
                told,
                record=experiment.train.record and not done,
                fresh=saved is None,
            ) as made,
            stopping.working(),
        ):
            known = made.first_diagnostics() if saved is None else folder.read_json("diagnostics.json")
            labels = replace(made.labels, terms=_terms(made.experiment, folder), twin_check=known.get("honesty"))
            ending.labels = labels
            with foreign(f"{origin}: before the first step", ContractError, "safe; whatever was opened is closed again"):
                session = _begun(folder, made, labels, saved, start, goes_on, alarms, console, told)
            if not complete:
                folder.write_config(dump(made.experiment))  # after the checkpoint: without one all is measured again
            alarms.watch(lambda: (made.training.step, made.training.device_passes))
            for line in made.introduction():
                console.print(line, markup=False, soft_wrap=True)
            if done:
                replay_test(made.training)
                summary = folder.read_json(FILE)
            else:
                config = toml.loads(dump(made.experiment))
                logs.begin(experiment.log.project, labels.name or folder.path.name, config, made.training.step)
                with TrainingDisplay(made.training, console) as live:

                    def shown(point: Point) -> None:
                        live(point)
                        logs(point)
                        show(point)

                    summary = yield from session.points(stopping, shown)
            _diagnose(folder, made, summary)
        return summary


def _waited(folder: RunFolder, paused: Paused, stopping: Stopping, console: Console) -> Path | None:
    """Wait until somebody asks to go on, and return the checkpoint to go on from.

    Raises:
        Interrupted: asked to stop instead. Refused: the folder was changed meanwhile so that nobody can go on.
    """
    console.print(f"paused  {paused.what}; its outputs: {paused.outputs}", markup=False, soft_wrap=True)
    console.print(
        f"next    hil resume {quoted(folder.path)}   goes on; Ctrl-C, or hil stop, ends it", markup=False, soft_wrap=True
    )
    stopping.wait()
    if stopping.asked:
        folder.note("interrupt", signal=stopping.asked)
        raise Interrupted(
            f"stopped by {stopping.asked} while it was paused; everything is committed", where=str(folder.path),
            outputs=paused.outputs, todo=f"hil resume {quoted(folder.path)}",
        )  # fmt: skip
    plan = condition.plan(condition.inspect(folder.path))
    for line in plan.said:
        console.print(f"resume  {line}", markup=False, soft_wrap=True)
    return plan.start


def _left_behind(folder: RunFolder, console: Console, message: str) -> None:
    """Say and note that a logger was left behind."""
    folder.note("beware", message=message)
    console.print(f"beware  {message}", markup=False, soft_wrap=True)


def resume(folder: RunFolder, start: Path | None, console: Console) -> dict[str, Any]:
    """Go on with the run in `folder`, from the checkpoint `start` or from step 0. Errors as of `launch`."""
    with folder.owned():
        experiment = read_experiment(folder.config, bench=folder.path / "bench.toml")
        return launch(folder, experiment, console, start, goes_on=True)


@contextlib.contextmanager
def printed(console: Console, folder: RunFolder) -> Iterator[None]:
    """Keep what is printed in output.log; at the level "debug" every event of the journal is printed."""
    if not isinstance(console, Terminal):
        yield
        return
    if console.level == "debug":
        folder.journal.heard = lambda kind, facts: console.print(
            f" . {kind}: {journal.message({'kind': kind, **facts})}", markup=False, soft_wrap=True
        )
    with console.kept(folder.path, f"training of {folder.path.name}"):
        yield


@contextlib.contextmanager
def display_noted(console: Console, folder: RunFolder) -> Iterator[None]:
    """Note in the journal, once, that `console` shows nothing any more; the run goes on without."""

    def lost(why: str) -> None:
        with contextlib.suppress(Exception):  # in the thread that shows: nobody could hear of it
            folder.note("display", message=f"what is said is not shown any more: {why}")

    file = console.file
    if not isinstance(file, Teller):
        yield
        return
    file.hear(lost)
    try:
        yield
    finally:
        file.drain()
        file.on_lost = ignore


def report(folder: RunFolder) -> Path:
    """Write the report of a run that is done; its figures as files are left to `hil report`, as they take seconds.

    Raises:
        Stopped: it cannot be written.
    """
    try:
        return render(folder.path, files=False)
    except RunError as error:
        raise _unreported(folder, "report.html") from error


def lines(folder: RunFolder, summary: Mapping[str, Any], page: Path | None) -> Iterator[str]:
    """Say what came of a run that is done, for people.

    Args:
        folder: of the run.
        summary: of the run.
        page: its report, or None.
    """
    if "stopped_early" in summary:
        yield f"stopped before the last epoch: no better validation accuracy for {counted(summary['stopped_early'], 'epoch')}"
    yield (
        f"done in {summary['wall_s']:.0f} s. test {test_said(summary)} "
        f"({summary['provenance']}, seed {summary['seed']}, weights of epoch {summary['best_epoch']} by validation). "
        f"{summary['device_passes']:,} node evaluations."
        + (f" {summary['device_writes']:,} channels programmed." if "device_writes" in summary else "")
        + (f" {summary['device_missed']:,} of them missed their tolerance." if summary.get("device_missed") else "")
    )
    yield from (f"beware  {line}" for line in summary.get("warnings", ()))
    yield f"run     {folder.path}"
    if page is not None:
        yield f"report  {page}"
    following = [(f"hil use {quoted(folder.path)}", "puts the trained network to use, round after round")]
    if there(bench := folder.path / "bench.toml") and summary["provenance"] == "twin":
        following.append((f"hil serve {quoted(bench)}", "opens the same bench to your own scripts"))
    wide = max(len(command) for command, _ in following)
    yield from (f"next    {command:<{wide}}   {why}" for command, why in following)


def _begun(
    folder: RunFolder, made: Built, labels: Labels, saved: Checkpoint | None, start: Path | None, goes_on: bool,
    alarms: Alarms, console: Console, told: _Told,
) -> Session:  # fmt: skip
    """Restore, or make the first checkpoint; from here on the run is resumable."""
    training, table = made.training, made.experiment.train
    facts = {
        "provenance": labels.provenance, "node": labels.node, "resources": labels.resources,
        "epochs": training.plan.epochs, "batches_per_epoch": training.batches_per_epoch,
    }  # fmt: skip
    if saved is not None and start is not None:
        training.restore(saved)
    warning = disk_space.check(folder, training)
    lost = folder.forget_metrics_after(training.epoch) if goes_on else []
    if saved is not None and start is not None:
        checkpoint.forget_after(folder.checkpoints, start)
    if goes_on:
        folder.note("resume", step=training.step, checkpoint=start.name if start else None, **facts)
    else:
        folder.note("start", **facts)
    for line in [warning, *lost, *made.node.beware]:
        if line:
            console.print(f"beware  {line}", markup=False, soft_wrap=True)
            folder.note("beware", message=line)

    def rest(error: BaseException | None) -> None:
        made.node.rest(error)
        with contextlib.suppress(RunError):  # what ends the run is told all the same
            told.rest()

    session = Session(training, folder, labels, table.checkpoint_every, table.checkpoint_every_s, tell=alarms.tell, rest=rest)
    if saved is None:
        if made.transfer is not None:
            folder.write_json("diagnostics.json", made.first_diagnostics())
        if made.first is not None:
            made.first.keep(folder)
            folder.note("from", message=made.first.told)
        session.begin()
    return session


def _terms(experiment: Experiment, folder: RunFolder) -> dict[str, Any]:
    """Return what a checkpoint remembers of the files that it was made under."""
    table = toml.loads(dump(experiment))
    if not all((folder.path / copy).is_file() for copy in condition.benches(table)):
        return {"experiment": table}
    return {"experiment": table, "bench_sha256": condition.bench_sha256(folder.path, table)}


def _settings(table: AlarmTable) -> AlarmSettings:
    argv = argv_of(table.command, f"{table.place} command")
    return AlarmSettings(argv, tuple(table.on), table.timeout_s, table.every_s, table.stalled_s)


def _diagnose(folder: RunFolder, made: Built, summary: dict[str, Any]) -> None:
    """The run is done by now: a fault here costs its report only."""
    try:
        with foreign("diagnostics"):
            found = diagnostics.write(folder, made.training, made.model, summary["wall_s"], made.settled)
            uses = [layer["range_use"] for layer in found["layers"]]
            alike = [layer["correlation"] for layer in found["feedback"]]
        if any(one is not None for one in alike):
            amend(folder, feedback_correlation=alike)
        if "operations" in found:
            amend(folder, operations=found["operations"])
        said = summary.get("warnings", [])
        if (line := narrow(said, uses)) and line not in said:
            summary["warnings"] = [*said, line]
            amend(folder, warnings=summary["warnings"])
            folder.note("warning", message=line)
    except HilError as error:
        made.node.rest(error)
        with contextlib.suppress(RunError):
            folder.note("fault", step=made.training.step, error=type(error).__name__, message=str(error))
        raise _unreported(folder, "diagnostics.json") from error


def _unreported(folder: RunFolder, name: str) -> Stopped:
    return Stopped(
        f"training is done and its summary written, but {name} could not be made", where=str(folder.path),
        todo=f"remove the cause, then: hil resume {quoted(folder.path)}   (makes what is missing)",
    )  # fmt: skip


class _Told:
    """Tells the journal and people of faults and recoveries.

    A fault that ends the run is told after the outputs are off: a disk that hangs must not keep them on. A context around
    all that can be on.
    """

    def __init__(self, folder: RunFolder, console: Console) -> None:
        self._folder, self._console = folder, console
        self._late: deque[tuple[str, dict[str, object]]] = deque()  # of any thread

    def __call__(self, kind: str, **facts: object) -> None:
        self._late.append((kind, facts))
        if kind != "lost" or facts.get("error") == Unrepeatable.__name__:  # that one has its batch repeated
            self.rest()

    def rest(self) -> None:
        """Tell what waits: nothing is on any more, or the run goes on."""
        while True:
            try:
                kind, facts = self._late.popleft()
            except IndexError:
                return
            self._folder.note(kind, **facts)
            for line in telling(kind, facts):
                self._console.print(line, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(RunError):  # what ended the run is told all the same
            self.rest()


class _Ending:
    """Facts that are known when a run ends early.

    Args:
        labels: once the node is open.
    """

    labels: Labels | None = None


@contextlib.contextmanager
def _told(folder: RunFolder, origin: Path, alarms: Alarms) -> Iterator[_Ending]:
    """Say how a run ended and in which state its outputs are, around everything that opens and closes instruments."""
    ending = _Ending()
    try:
        yield ending
    except UnsafeOutputs as error:
        outputs = error.outputs or "not known to be safe"
        if ending.labels is not None:
            _record(folder, "unsafe", outputs, message=str(error))
        alarms.tell("unsafe", str(error))
        raise
    except (Stopped, Interrupted) as error:
        # true now: had closing failed, UnsafeOutputs would be here
        error.outputs = outputs = ending.labels.outputs_after if ending.labels else ""
        _record(folder, "safe", outputs)
        if isinstance(error, Stopped):
            alarms.tell("fault", f"{error}\n\n{error.__cause__}" if error.__cause__ else str(error))
        raise
    except Refused as error:
        if not isinstance(error, RunError) and not located(error.where):
            error.where = f"{origin}: {error.where}"
        error.outputs = error.outputs or "safe; whatever was opened is closed again"
        error.todo = error.todo or f"correct {error.where.split(': ')[0]}"
        raise
    except BaseException as error:
        if ending.labels is not None:
            _cut_short(folder, ending.labels, error)
            if isinstance(error, Exception):
                alarms.tell("fault", f"{type(error).__name__}: {said(error)}")
        raise
    assert ending.labels is not None  # nothing was refused
    _record(folder, "safe", ending.labels.outputs_after)
    alarms.tell("end", f"done; its outputs: {ending.labels.outputs_after}")


def _record(folder: RunFolder, kind: str, outputs: str, **facts: object) -> None:
    """Write to the journal if it can be written: a full disk may be what ended the run."""
    with contextlib.suppress(RunError):
        folder.note(kind, outputs=outputs, **facts)
    with contextlib.suppress(RunError):
        amend(folder, outputs=outputs)


def _cut_short(folder: RunFolder, labels: Labels, error: BaseException) -> None:
    """Note a second Ctrl-C, or a fault that hil has no word for, when the session could not say it any more."""
    at_once = isinstance(error, KeyboardInterrupt)
    by = str(error) or "a second SIGINT"
    cause = f"stopped at once by {by}" if at_once else f"{type(error).__name__}: {said(error)}"
    status = "interrupted" if at_once else "fault"
    with contextlib.suppress(RunError):
        folder.note("interrupt" if status == "interrupted" else "fault", message=cause)
    outputs = labels.outputs_after
    with contextlib.suppress(RunError):
        before = {"name": labels.name, "provenance": labels.provenance, **folder.read_json(FILE)}
        if before.get("status") != "done":
            folder.write_json(FILE, {**before, "status": status, "cause": cause, "outputs": outputs})
    with contextlib.suppress(RunError):
        folder.note("safe", outputs=outputs)
