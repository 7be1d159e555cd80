"""summary.json: how a run ended, or stands; written whole, so that it is the old one or the new one.

status    "done", "interrupted" or "fault"; a run that was killed has the summary of its last end, or none
cause     what ended an aborted run        outputs    their state once everything was closed
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from hil import __version__, torch_device
from hil.devices.meter import Metered
from hil.metric import told
from hil.run.folder import RunFolder
from hil.training.programmed import levels, programmed
from hil.training.state import Training

FILE = "summary.json"
STATUSES = ("done", "interrupted", "fault")


@dataclass(frozen=True)
class Labels:
    """What a result must say about itself.

    Args:
        node: name and parameters.
        resources: instrument -> identity.
        terms: what every checkpoint remembers of the files that it was made under, see hil/run/resume.py.
        twin_check: how the twin predicted the node when the run began, see hil/training/transfer_curve.py.
        after: what is known of the outputs once all is closed; "" of a twin.
    """

    name: str
    provenance: str
    node: Mapping[str, Any]
    resources: Mapping[str, str]
    terms: Mapping[str, Any] = field(default_factory=dict)
    twin_check: Mapping[str, Any] | None = None
    after: str = ""

    @property
    def outputs_after(self) -> str:
        """Their state once everything was closed; whoever closes raises UnsafeOutputs if this does not hold."""
        return self.after or "none; the node is a twin in this process"


def conclude(training: Training, folder: RunFolder, labels: Labels, status: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the summary of `training` as it stands, and return it.

    Args:
        training: as it stands.
        folder: of the run.
        labels: what a result must say about itself.
        status: "done", or why it ended.
        facts: what only this ending knows: scores, or the cause.

    Raises:
        RunError: it cannot be written.
    """
    summary = {
        "status": status,
        "name": labels.name,
        "provenance": labels.provenance,
        **facts,
        "metric": training.task.metric.name,
        "better": "lower" if training.task.metric.lower else "higher",
        **_validated(training),
        "best_epoch": training.best.epoch,
        "seed": training.plan.seed,
        "wall_s": training.wall_s,
        "device_s": training.device_s,
        "device_passes": training.device_passes,
        **_programmed(training),
        "faults_recovered": training.faults_recovered,
        "steps": training.step,
        "node": dict(labels.node),
        **({} if labels.twin_check is None else {"twin_honesty": dict(labels.twin_check)}),
        "resources": dict(labels.resources),
        "versions": {
            "hil": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "on": torch_device.title(training.net.place),
        },
    }
    if training.projection is not None:
        summary["projection"] = _projected(training, training.projection)
    if training.sentinel is not None:
        watched = training.sentinel.summary()
        summary["sentinel"] = {**watched, "share_of_calls": _share(watched.get("shots"), training.device_calls)}
        summary["sentinel"]["share_of_time"] = _share(watched.get("busy_s"), training.device_s)
    folder.write_json(FILE, summary)
    return summary


def _programmed(training: Training) -> dict[str, Any]:
    """How often something was programmed, and the levels of the best weights by layer, in the unit of the port; or nothing."""
    trained = programmed(training.net)
    if not trained:
        return {}
    found = {name: levels(layer, training.best.tensors.get(f"{name}.params")) for name, layer in trained.items()}
    budget = {} if training.plan.budget_writes is None else {"budget_writes": training.plan.budget_writes}
    verified = training.device_verified
    counts = {f"device_{name}": count for name, count in verified.items()} if verified["reads"] else {}
    return {
        "device_programs": training.device_programs, "device_writes": training.device_writes, **counts, **budget,
        "programmed": found,
    }  # fmt: skip


def _projected(training: Training, device: Metered) -> dict[str, Any]:
    """Shots of the device that projects, and how much of its answers no matrix explained, a number for each layer."""
    count, unexplained = device.count, training.learner.state_dict().get("projection.unexplained")
    shares = {} if unexplained is None else {"unexplained": unexplained.tolist()}
    frames = count.passes // (device.spec.inputs.size or 1)
    return {"frames": frames, "passes": count.passes, **shares}


def test_said(summary: Mapping[str, Any]) -> str:
    """The test score of a summary for people; "-" before the end."""
    metric = told(summary)
    value = summary.get(f"test_{metric.name}")
    return metric.said(value) if isinstance(value, float) else "-"


def _validated(training: Training) -> dict[str, float]:
    """The best score on the validation split; before the first one an accuracy of 0, and nothing of another metric."""
    metric, score = training.task.metric, training.best.score
    return {} if score is None and metric.name != "accuracy" else {f"validation_{metric.name}": score or 0.0}


def _share(part: object, whole: float) -> float:
    return float(part) / whole if isinstance(part, int | float) and whole else 0.0


def amend(folder: RunFolder, **facts: object) -> None:
    """Add what became known after the summary was written, such as the state of the outputs.

    Raises:
        RunError: it is damaged, or cannot be written.
    """
    summary = folder.read_json(FILE)
    if summary:
        folder.write_json(FILE, {**summary, **facts})
