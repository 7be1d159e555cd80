"""From a built Training to a run folder: drives the loop, commits what it yields, and ends in one of three ways.

    done          test split read once with the best weights, summary.json, diagnostics.json, report.html
    interrupted   checkpoint, summary.json with status "interrupted"; raises Interrupted
    fault         checkpoint of the last committed step; raises Stopped from the fault

A step counts when it is in a checkpoint. Between checkpoints a crash costs the steps since the last one, and a resume makes
them again with the same numbers.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from hil import accelerator
from hil.errors import HilError, Interrupted, LinkError, RunError, Stopped
from hil.run import checkpoint
from hil.run.folder import RunFolder
from hil.run.loop import Epoch, Step, Training, evaluate, settle, train
from hil.run.stopping import Stopping

Point = Step | Epoch
KEPT_CHECKPOINTS = 3


@dataclass(frozen=True)
class Labels:
    """What a result must say about itself. node: name and parameters. resources: instrument -> identity."""

    name: str
    provenance: str
    node: Mapping[str, Any]
    resources: Mapping[str, str]

    @property
    def outputs_after(self) -> str:
        """Their state once everything was closed; whoever closes raises UnsafeOutputs if this does not hold."""
        return "off, read back" if self.resources else "none; the node is a twin in this process"


def run(
    training: Training, folder: RunFolder, stopping: Stopping, labels: Labels, every: int | None, show: Callable[[Point], None]
) -> dict[str, Any]:
    """Train to the end and return the summary.

    Args:
        every: checkpoint after so many steps, besides every epoch's end; None: epochs only.
        show: called with every point, for the live display.
    Raises:
        Interrupted: asked to stop; the run is committed and resumable.
        Stopped: a fault, chained as the cause; the run is committed up to the last step before it.
    """
    begin = time.perf_counter()
    before = float(folder.read_json("summary.json").get("wall_s", 0.0))
    try:
        for point in train(training):
            show(point)
            if isinstance(point, Epoch):
                _record(folder, point, training)
            if isinstance(point, Epoch) or (every and point.step % every == 0):
                commit(training, folder)
            if stopping.asked:
                commit(training, folder)
                raise _interrupted(stopping.asked, folder, training)
        return _finish(training, folder, labels, before - begin)
    except Interrupted:
        with contextlib.suppress(RunError):  # the step is committed; that counts
            _conclude(training, folder, labels, before + time.perf_counter() - begin, "interrupted", {})
        raise
    except HilError as error:
        kept = _commit_after(training, folder)
        with contextlib.suppress(RunError):  # a full disk may be the fault itself, which is said below
            folder.note("fault", step=training.step, error=type(error).__name__, message=str(error))
            _conclude(training, folder, labels, before + time.perf_counter() - begin, "fault", {})
        raise _stopped(folder, training, kept) from error


def _finish(training: Training, folder: RunFolder, labels: Labels, since: float) -> dict[str, Any]:
    """Read the test split once, with the best weights. since: the run's time before this process, less its first second."""
    best = {key: value.clone() for key, value in training.best.tensors.items()}
    checkpoint.save(folder.checkpoints, "best", checkpoint.Checkpoint(best, {"epoch": training.best.epoch}))
    training.net.load_state_dict(best)
    if training.best.learner:  # the weights are read as they were when they were the best
        training.learner.load_state_dict(training.best.learner)
    settle(training)
    score, predicted = evaluate(training.net, training.learner, training.data.test)
    _confusion(folder, training, predicted)
    final = {"test_accuracy": score["accuracy"], "test_loss": score["loss"]}
    summary = _conclude(training, folder, labels, since + time.perf_counter(), "done", final)
    folder.note("end", step=training.step, test_accuracy=score["accuracy"])
    return summary


def commit(training: Training, folder: RunFolder) -> None:
    """Make everything up to the last step durable."""
    checkpoint.save(folder.checkpoints, _name(training), training.checkpoint())
    checkpoint.prune(folder.checkpoints, KEPT_CHECKPOINTS)
    folder.note("step", step=training.step, epoch=training.epoch, batch=training.batch)


def _name(training: Training) -> str:
    return f"step-{training.step:08d}"


def _commit_after(training: Training, folder: RunFolder) -> str:
    """Commit the last whole step after a fault; returns what a resume will start from.

    A virtual bench that died took the state of its plant along. Then the checkpoint before stays the newest: going on from
    there gives the numbers of a run without the fault, going on from here would not.
    """
    newest = checkpoint.latest(folder.checkpoints).stem if any(folder.checkpoints.glob("step-*.json")) else "none"
    if newest == _name(training):
        return "which is committed"
    if not all(bool(torch.isfinite(value).all()) for value in training.net.state_dict().values()):
        return f"its weights are not finite, so the newest checkpoint is {newest}"  # from the others a resume would fail again
    try:
        commit(training, folder)
    except LinkError as lost:
        folder.note("lost", what="the state of the plant", message=str(lost))
        return f"the newest checkpoint is {newest}, as the plant's state is lost"
    except RunError:
        return f"it could not be written, so the newest checkpoint is {newest}"
    return "which is committed"


def _interrupted(why: str, folder: RunFolder, training: Training) -> Interrupted:
    folder.note("interrupt", step=training.step, signal=why)
    return Interrupted(
        f"stopped by {why} after step {training.step:,}, which is committed",
        where=str(folder.path),
        todo=f"hil resume {folder.path}",
    )


def _stopped(folder: RunFolder, training: Training, kept: str) -> Stopped:
    again = f"hil resume {folder.path}" if any(folder.checkpoints.glob("step-*.json")) else "hil train, into another folder"
    return Stopped(
        f"a fault ended the run after step {training.step:,}; {kept}",
        where=str(folder.path),
        todo=f"remove the cause, then: {again}",
    )


def _record(folder: RunFolder, point: Epoch, training: Training) -> None:
    place = {"epoch": point.epoch, "step": point.step}
    times = {
        "wall_s": point.wall_s,
        "device_s": point.device_s,
        "host_s": max(0.0, point.wall_s - point.device_s),
        "samples_per_s": point.samples_per_s,
    }
    folder.measure({**place, "split": "train", **point.train, **times, "device_passes": training.device_passes})
    folder.measure({**place, "split": "validation", **point.validation})


def _conclude(
    training: Training, folder: RunFolder, labels: Labels, wall_s: float, status: str, final: Mapping[str, float]
) -> dict[str, Any]:
    summary = {
        "status": status,
        "name": labels.name,
        "provenance": labels.provenance,
        **final,
        "validation_accuracy": max(training.best.accuracy, 0.0),
        "best_epoch": training.best.epoch,
        "seed": training.plan.seed,
        "wall_s": wall_s,
        "device_s": training.device_s,
        "device_passes": training.device_passes,
        "faults_recovered": 0,
        "steps": training.step,
        "node": dict(labels.node),
        "resources": dict(labels.resources),
        "versions": {
            "hil": version("hil"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "on": accelerator.title(training.net.place),
        },
    }
    folder.write_json("summary.json", summary)
    return summary


def _confusion(folder: RunFolder, training: Training, predicted: torch.Tensor) -> None:
    classes, label = len(training.data.classes), training.data.test.y.to(predicted.device)
    names = list(training.data.classes)
    table = torch.bincount(label * classes + predicted, minlength=classes**2).view(classes, classes)
    folder.write_json(
        "diagnostics.json", {**folder.read_json("diagnostics.json"), "confusion": table.tolist(), "classes": names}
    )
