"""A session of a run folder: drives the loop of a built Training, commits what it yields, and ends in one of three ways.

    done          test split read once with the best weights, summary.json, diagnostics.json, report.html
    interrupted   checkpoint, summary.json with status "interrupted"; raises Interrupted, or Paused to go on later
    fault         the newest checkpoint from which a resume is exact; raises Stopped from the fault

A sentinel that asks to go back gets the newest checkpoint that was made at a fixed step (every epoch, every so many steps) no
later than its last quiet look, so that a run that was killed meanwhile goes back to the same one; training goes on from there.

Every step is a line in the journal at once. A checkpoint follows every epoch, every so many steps if asked for, and at the
latest after `every_s` seconds: a crash costs the steps since the last one, and a resume makes them again with the same numbers.

Whatever ends a run, its outputs go off first (`rest`), and only then something is written: a disk that hangs must not keep an
output on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from hil.errors import ForeignError, HilError, Interrupted, LinkError, RunError, Stopped
from hil.foreign import foreign
from hil.hints import quoted
from hil.learner import Online
from hil.run import checkpoint, journal
from hil.run.control import Paused
from hil.run.folder import RunFolder
from hil.run.signals import Stopping
from hil.run.summary import Labels, conclude
from hil.sentinel import Look
from hil.training.loop import Epoch, TrainingStep, evaluate, settle, train
from hil.training.outcome import warnings
from hil.training.programmed import after_epoch
from hil.training.refit import refit
from hil.training.state import Training
from hil.training.states import looking_on, states_table
from hil.training.stopping import since_better

Point = TrainingStep | Epoch
T = TypeVar("T")
KEPT_CHECKPOINTS = 3
EVERY_S = 60.0
SCATTERED = 500  # test examples whose outputs are kept for the report
SHOWN_STEPS = 200  # of a test sequence, likewise
Tell = Callable[[str, str], None]
Rest = Callable[[BaseException | None], None]


Points = Generator[Point, None, dict[str, Any]]
"""Every step and epoch; the summary in the end."""


def drained(points: Generator[Point, None, T]) -> T:
    """Go through all points, and return what comes after the last one."""
    while True:
        try:
            next(points)
        except StopIteration as end:
            found: T = end.value
            return found


def silent(kind: str, message: str) -> None:
    """Do nothing: nobody wants to be told."""


def nothing_on(error: BaseException | None) -> None:
    """Do nothing: there is no output that could be on."""


class Session:
    """A process's part of a run.

    Args:
        every: checkpoint after so many steps, besides every epoch's end; None: epochs only.
        every_s: and after so many seconds.
        clock: seconds.
        tell: told of recovered faults as they happen, (kind, message).
        rest: makes the outputs safe when the run ends, because of an error or None; may be called again.
    """

    def __init__(
        self,
        training: Training,
        folder: RunFolder,
        labels: Labels,
        every: int | None = None,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        tell: Tell = silent,
        rest: Rest = nothing_on,
    ) -> None:
        self.training, self.folder, self.labels = training, folder, labels
        self._every, self._every_s, self._clock, self._tell, self._rest = every, every_s, clock, tell, rest
        self._begin, self._before = time.perf_counter(), training.wall_s
        self._committed = clock()
        self._journaled = training.step
        self._faults = training.faults_recovered
        self._whole = True  # nothing, devices included, has gone on since the last step

    def begin(self) -> None:
        """The checkpoint of step 0, so that from here on a resume finds the node as it was after it was measured.

        Raises:
            Stopped: it cannot be written.
        """
        with self._ending():
            if self.training.sentinel is not None:
                self.training.sentinel.begin()
            self.commit()

    def run(self, stopping: Stopping, show: Callable[[Point], None]) -> dict[str, Any]:
        """Train to the end and return the summary. Arguments and errors as of `points`."""
        return drained(self.points(stopping, show))

    def points(self, stopping: Stopping, show: Callable[[Point], None]) -> Points:
        """Train to the end: yield every point once it is in the journal, and return the summary.

        Whoever closes the generator between two points has interrupted the run: it is committed and resumable.

        Args:
            stopping: says when to stop.
            show: called with every point, for the live display.

        Raises:
            Interrupted: asked to stop, or closed; the run is committed and resumable.
            Stopped: a fault, chained as the cause; the run is resumable.
        """
        with self._ending():
            while not (yield from self._trained(stopping, show)):
                pass  # once more, from an earlier step
            return self._finish()

    def _trained(self, stopping: Stopping, show: Callable[[Point], None]) -> Generator[Point, None, bool]:
        """Train to the end; False: it went back to an earlier step instead."""
        self._whole = False
        for point in train(self.training):
            self._whole = True
            look = point.look if isinstance(point, TrainingStep) else None
            if stopping.due and not (look is not None and look.back):  # going back needs the node once more
                self._rest(None)
            self._journal(point)
            show(point)
            left = False
            try:
                yield point
            except GeneratorExit:
                left = True
            if look is not None and look.back:
                look, gone = self._go_back()
                if gone and look.fault is None and not left:
                    return False
            if self._due(point) and not stopping.due and not left and not (look is not None and look.fault is not None):
                self.commit()
            if look is not None and look.fault is not None:
                self._rest(look.fault)
                self.commit()
                raise look.fault
            if stopping.due or left:
                self._rest(None)
                self.commit()
                paused = stopping.pausing and not stopping.asked and not left
                raise self._paused(stopping.pausing) if paused else self._interrupted(stopping.asked or "the end of its loop")
            self._whole = False
        return True

    def _go_back(self) -> tuple[Look, bool]:
        """Go back to the newest checkpoint of a quiet time, if there is one; return the look, and whether there was."""
        training, folder, sentinel = self.training, self.folder, self.training.sentinel
        assert sentinel is not None  # it asked
        found = self._quiet()[-1:]
        if not found:
            return sentinel.back(None), False
        point, here = checkpoint.load(found[0]), training.step
        training.go_back(point)
        folder.note("roll_back", step=training.step, epoch=training.epoch, left=here, checkpoint=found[0].name)
        checkpoint.forget_after(folder.checkpoints, found[0])
        folder.forget_metrics_after(training.epoch)
        self._journaled = training.step
        return sentinel.back(training.step), True

    def _quiet(self) -> list[Path]:
        """Checkpoints made at a fixed step, up to the last quiet look, oldest first."""
        sentinel = self.training.sentinel
        if sentinel is None:
            return []
        until = (sentinel.quiet_step, True)
        found = [path for path in checkpoint.listed(self.folder.checkpoints) if (checkpoint.place(path) or (0, True)) <= until]
        return [path for path in found if checkpoint.fixed(path)]

    def commit(self) -> None:
        """Make everything up to the last step durable; nothing to do if it is.

        Raises:
            RunError: it cannot be written. LinkError: the state of the plant is lost.
        """
        training, folder = self.training, self.folder
        name = _name(training)
        if self._newest() != name:
            training.wall_s = self._wall_s()
            folder.journal.sync()  # a checkpoint must not be ahead of the journal, whatever dies
            point = training.checkpoint()
            facts = {**point.facts, **self.labels.terms}
            if training.sentinel is not None:
                facts["fixed"] = training.batch == 0 or bool(self._every and training.step % self._every == 0)
            checkpoint.save(folder.checkpoints, name, checkpoint.Checkpoint(point.tensors, facts))
            checkpoint.prune(folder.checkpoints, KEPT_CHECKPOINTS, self._quiet()[-1:])
            folder.note("checkpoint", step=training.step, epoch=training.epoch, batch=training.batch, file=f"{name}.json")
        self._committed = self._clock()

    def _newest(self) -> str:
        found = checkpoint.listed(self.folder.checkpoints)
        return found[-1].stem if found else "none"

    def _due(self, point: Point) -> bool:
        if isinstance(point, Epoch) or (self._every and point.step % self._every == 0):
            return True
        return self._clock() - self._committed >= self._every_s

    def _wall_s(self) -> float:
        return self._before + time.perf_counter() - self._begin

    def _journal(self, point: Point) -> None:
        training = self.training
        if isinstance(point, Epoch):
            _record(self.folder, point, training)
            return
        self.folder.journal.commit(
            point.step, point.epoch, training.batch, point.metrics["loss"], training.device_passes, training.device_s,
            training.faults_recovered,
        )  # fmt: skip
        self._journaled = point.step
        if training.faults_recovered > self._faults:
            new, self._faults = training.faults_recovered - self._faults, training.faults_recovered
            self.folder.note("recovered", step=point.step, faults=new, in_all=self._faults)
            self._tell("recovered", f"{new} fault{'s' * (new > 1)} recovered by step {point.step:,}, {self._faults} in all")

    def _finish(self) -> dict[str, Any]:
        """Read the test split once, with the best weights."""
        training, folder = self.training, self.folder
        fitted = refit(training) if training.refit else None
        best = {key: value.clone() for key, value in training.best.tensors.items()}
        facts = {"epoch": training.best.epoch, **({"sentinel": training.best.sentinel} if training.best.sentinel else {})}
        checkpoint.save(folder.checkpoints, "best", checkpoint.Checkpoint(best, facts))
        load_best(training)
        settle(training)
        with _states(training) as seen:
            score, outputs = evaluate(training.net, training.learner, training.data.test, training.tape, training.task)
        if training.tape is not None:
            training.tape.flush()  # a run that says that it is done can be replayed to its end
        if outputs.ndim == 3:
            _series(folder, training, outputs[0], seen)
        if training.task.kind == "classes":
            _confusion(folder, training, training.task.scored(outputs, outputs.ndim == 3).argmax(1))
        else:
            _scatter(folder, training, training.task.scored(outputs, outputs.ndim == 3))
        training.wall_s = self._wall_s()
        reads = 1 + sum(event["kind"] == "end" for event in journal.contents(folder.path / "journal.jsonl", most=0).events())
        beware = warnings(training, folder)
        if reads > 1:
            beware.append(
                f"the test split was read {reads} times, as the run was made longer: epochs that were chosen by what it showed "
                "were chosen on test data"
            )
        for line in beware:
            folder.note("warning", message=line)
        metric = training.task.metric
        since = since_better(training.scores, training.plan.min_delta, not metric.lower)
        final = {
            **({} if fitted is None else {"readout": fitted}),
            **{f"test_{one.name}": score[one.name] for one in training.task.metrics},
            "test_loss": score["loss"],
            "test_reads": reads,
            "warnings": beware,
            **({"stopped_early": since} if training.stale else {}),
        }
        summary = conclude(training, folder, self.labels, "done", final)
        folder.note("end", step=training.step, **{f"test_{metric.name}": score[metric.name]})
        return summary

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Turn whatever ends a run into its summary and its Interrupted or Stopped."""
        try:
            with foreign(f"after step {self.training.step:,} or later"), self._rested():  # what no seam within has mapped
                yield
        except Interrupted as error:
            self.training.wall_s = self._wall_s()
            with contextlib.suppress(RunError):  # the step is committed; that counts
                conclude(self.training, self.folder, self.labels, "interrupted", {"cause": error.what})
            raise
        except HilError as error:
            kept = self._commit_after()
            self.training.wall_s = self._wall_s()
            with contextlib.suppress(RunError):  # a full disk may be the fault itself, which is said below
                self.folder.note("fault", step=self.training.step, error=type(error).__name__, message=str(error))
            with contextlib.suppress(RunError):
                conclude(self.training, self.folder, self.labels, "fault", {"cause": str(error)})
            raise Stopped(
                f"a fault ended the run after step {self.training.step:,}; {kept}",
                where=str(self.folder.path),
                todo=f"remove the cause, then: hil resume {quoted(self.folder.path)}",
            ) from error

    @contextlib.contextmanager
    def _rested(self) -> Iterator[None]:
        """Outputs off first, whatever ends the run."""
        try:
            yield
        except BaseException as error:
            self._rest(error)
            raise

    def _commit_after(self) -> str:
        """Commit the last whole step after a fault, if a resume from there is exact; returns what it will start from.

        A plant whose state can be saved has gone on since the last step if the fault was within the next one, and a virtual
        bench that died took its state along. Then the checkpoint before stays the newest: going on from there gives the
        numbers of a run without the fault, going on from here would not.
        """
        training, newest = self.training, self._newest()
        if newest == _name(training):
            return "which is committed"
        instead = f"so the newest checkpoint is {newest}" if newest != "none" else "so hil resume starts again from step 0"
        try:
            with foreign("the state of the network"):
                weights = training.net.state_dict().values()
            if not all(bool(torch.isfinite(value).all()) for value in weights):
                return f"its weights are not finite, {instead}"  # from the others a resume would fail again
            if not self._whole and isinstance(training.learner, Online):
                return f"the learner had begun the next one, {instead}"
            if not self._whole and any(device.snapshot() for device in training.devices):
                return f"the simulated node has gone on since then, {instead}"
            if self._journaled != training.step:
                return f"it is not in the journal, {instead}"
            with foreign("its checkpoint"):
                self.commit()
        except LinkError as lost:
            with contextlib.suppress(RunError):
                self.folder.note("lost", what="the state of the plant", message=str(lost))
            return f"the newest checkpoint is {newest}, as the plant's state is lost"
        except (RunError, ForeignError):
            return f"it could not be written, {instead}"
        return "which is committed"

    def _paused(self, by: str) -> Paused:
        self.folder.note("pause", step=self.training.step, by=by)
        return Paused(f"paused by {by} after step {self.training.step:,}, which is committed", where=str(self.folder.path))

    def _interrupted(self, why: str) -> Interrupted:
        self.folder.note("interrupt", step=self.training.step, signal=why)
        return Interrupted(
            f"stopped by {why} after step {self.training.step:,}, which is committed",
            where=str(self.folder.path),
            todo=f"hil resume {quoted(self.folder.path)}",
        )


def run(
    training: Training, folder: RunFolder, stopping: Stopping, labels: Labels, every: int | None, show: Callable[[Point], None]
) -> dict[str, Any]:
    """A whole run in one process, see `Session`."""
    session = Session(training, folder, labels, every)
    if training.step == 0:
        session.begin()
    return session.run(stopping, show)


def load_best(training: Training) -> None:
    """The weights and the learner's state of the moment when they were the best on the validation split."""
    training.net.load_state_dict(training.best.tensors)
    if training.best.learner:
        training.learner.load_state_dict(training.best.learner)


def replay_test(training: Training) -> None:
    """Bring a simulated node to where it stood when the test split had been read; a real one is not asked again."""
    if training.refit:
        refit(training)
    load_best(training)
    settle(training)
    if any(device.snapshot() for device in training.devices):
        evaluate(training.net, training.learner, training.data.test, task=training.task)


def _name(training: Training) -> str:
    return checkpoint.name(training.step, training.scored)


def _record(folder: RunFolder, point: Epoch, training: Training) -> None:
    place = {"epoch": point.epoch, "step": point.step}
    times = {
        "wall_s": point.wall_s,
        "device_s": point.device_s,
        "host_s": max(0.0, point.wall_s - point.device_s),
        "samples_per_s": point.samples_per_s,
    }
    folder.measure(
        {**place, "split": "train", **point.train, **times, "device_passes": training.device_passes, **after_epoch(training)},
        {**place, "split": "validation", **point.validation},
    )
    metric = training.task.metric
    value = point.validation[metric.name]
    score = {"accuracy": value} if metric.name == "accuracy" else {"metric": metric.name, "score": value, "lower": metric.lower}
    folder.note("epoch", **place, loss=point.train["loss"], **score, best=point.best)


def _confusion(folder: RunFolder, training: Training, predicted: torch.Tensor) -> None:
    classes, label = len(training.data.classes), training.task.targets(training.data.test.y).to(predicted.device)
    names = list(training.data.classes)
    table = torch.bincount(label * classes + predicted, minlength=classes**2).view(classes, classes)
    folder.write_json(
        "diagnostics.json", {**folder.read_json("diagnostics.json"), "confusion": table.tolist(), "classes": names}
    )


@contextlib.contextmanager
def _states(training: Training) -> Iterator[list[torch.Tensor]]:
    """Collect the states of a node with memory while the test split is scored; nothing of any other node."""
    remembering = [device for device in training.devices if device.spec.memory]
    if not remembering or training.data.test.x.ndim != 3:
        yield []
        return
    with looking_on(remembering[-1], training.data.test.x.shape[1]) as seen:
        yield seen


def _series(folder: RunFolder, training: Training, outputs: torch.Tensor, seen: list[torch.Tensor]) -> None:
    """The first test sequence behind the washout: first input, target, and what came, a number a step; classes by number.

    Of a node with memory, also its states, as they were `seen`: with several layers those of the last one.
    """
    split, task = training.data.test, training.task
    target = split.y[0] if task.kind == "classes" else split.y[0, :, 0]
    output = outputs.argmax(1) if task.kind == "classes" else outputs[:, 0]
    part = slice(task.washout, task.washout + SHOWN_STEPS)
    values = {"input": split.x[0, :, 0], "target": target, "output": output}
    found = {"first": task.washout, **{name: value[part].tolist() for name, value in values.items()}}
    states = {} if not seen else {"states": states_table(split.x[..., 0].cpu(), torch.cat(seen)[-len(split) :], task.washout)}
    folder.write_json("diagnostics.json", {**folder.read_json("diagnostics.json"), "series": found, **states})


def _scatter(folder: RunFolder, training: Training, outputs: torch.Tensor) -> None:
    """Some test examples: what was wanted, and what came; for the figure of numbers."""
    wanted = training.task.targets(training.data.test.y)[:SCATTERED]
    found = {"target": wanted.tolist(), "output": outputs[:SCATTERED].tolist()}
    folder.write_json("diagnostics.json", {**folder.read_json("diagnostics.json"), "predictions": found})
