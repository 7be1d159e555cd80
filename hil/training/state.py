"""The state of a training: all that changes while a network is trained, and the checkpoint that holds it.

Between two steps nothing is half done: the network, the learner, the optimiser and the counters belong to the same committed
step. What a checkpoint says is checked before anything is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from hil.data.augment import Augment
from hil.data.dataset import Dataset
from hil.devices.meter import VERIFIED, WRITES, Metered
from hil.errors import HilError, RunError
from hil.fitting import Fitting
from hil.foreign import said
from hil.learner import Learner
from hil.network import Network
from hil.run.checkpoint import (
    Checkpoint,
    check_optimizer,
    check_tensors,
    optimizer_state,
    restore_optimizer,
    under,
)
from hil.sentinel import Sentinel
from hil.snapshot import joined, parted
from hil.task import Task, task_of
from hil.torch_device import sent
from hil.training.moves import Moves
from hil.training.schedule import Constant
from hil.training.stopping import exhausted


@dataclass(frozen=True)
class TrainingPlan:
    """The length of a training, and what a step is made of.

    Args:
        seed: of everything.
        budget_passes: training ends with the step that spends so many node evaluations, all counted; None: with the last
            epoch.
        augment: what is done to training examples.
        accumulate, clip_norm: see hil/training/moves.py.
        patience, min_delta: see hil/training/stopping.py; epochs, and in units of the metric.
        budget_writes: training ends with the step that writes so many channels of what is programmed, all counted; None: any.
    """

    seed: int
    epochs: int
    batch: int
    budget_passes: int | None = None
    augment: Augment = field(default_factory=Augment)
    accumulate: int = 1
    clip_norm: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    budget_writes: int | None = None


class Recording(Protocol):
    """The recorder of a run; Tape is one. Marks: where it stands, a place to go back to."""

    def mark(self) -> None:
        """Note that a step is whole: what was recorded until now belongs to it."""

    def place(self) -> Mapping[str, Sequence[int]]:
        """Return where every reel stands."""

    def flush(self) -> Mapping[str, Sequence[int]]:
        """Make all that was recorded durable; return what `cut` needs to come back to the last whole step."""

    def cut(self, marks: Mapping[str, Sequence[int]] | None) -> None:
        """Go back to where `flush` or `place` gave these marks; nothing is recorded before that."""


@dataclass
class Best:
    """The best weights so far, by the task's metric on the validation split; the earlier wins a tie.

    With them, the learner's and the sentinel's state of that moment.
    """

    score: float | None = None
    epoch: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    learner: dict[str, Tensor] = field(default_factory=dict)
    sentinel: Mapping[str, object] = field(default_factory=dict)


DEVICE = "device"  # begins the names of tensors of the devices
KINDS = ("net", "learner", "optimizer", "best", "best_learner", "gathered", DEVICE)  # of tensors in a checkpoint


class Training:
    """The state of a training: all that changes while a network is trained.

    Args:
        net, learner, optimizer: as built for step 0.
        data: the splits, where the network is or in the host's memory.
        plan: how long, in which order. device: the metered node, or None for a purely digital network.
        tape: what the devices are recorded onto, or None.
        sentinel: who watches over the node, or None.
        schedule: of the optimiser's rates; None: constant.
        task: what is learned; None: what the targets of the data ask for.
        refit: the readout of the best weights is fitted at the end, see hil/training/refit.py.
        projection: the device that projects the error, or None; counted and saved with the others, the last of `devices`.

    scores: on the validation split, of each epoch. wall_s: how long it has gone on, as the caller of the loop keeps it.
    """

    def __init__(
        self,
        net: Network,
        learner: Learner,
        optimizer: Optimizer,
        data: Dataset,
        plan: TrainingPlan,
        devices: tuple[Metered, ...],
        tape: Recording | None = None,
        sentinel: Sentinel | None = None,
        schedule: Constant | None = None,
        task: Task | None = None,
        refit: bool = False,
        projection: Metered | None = None,
    ) -> None:
        self.net, self.learner, self.optimizer = net, learner, optimizer
        self.data, self.plan, self.projection = data, plan, projection
        self.devices = devices if projection is None else (*devices, projection)
        self.schedule = schedule or Constant(optimizer)
        self.moves = Moves(optimizer, plan.accumulate, plan.clip_norm)
        self.scores: list[float] = []
        self.epoch = self.batch = self.step = 0
        self.wall_s = 0.0
        self.best = Best()
        self.sums: dict[str, float] = {}
        self.seconds = dict.fromkeys(("data_s", "learner_s", "optimizer_s", "evaluate_s"), 0.0)
        self.tape, self.sentinel = tape, sentinel
        self.task, self.refit = task or task_of(data.train.y, data.classes), refit
        self.whole()

    @property
    def batches_per_epoch(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.data.train.y) / self.plan.batch)

    @property
    def policy(self) -> str:
        """The treatment of pre-activations beyond the range of the nodes: "refuse", "clip" or "fold"."""
        return next((layer.encode.overflow for layer in self.net.stack if layer.encode is not None), "refuse")

    @property
    def device_s(self) -> float:
        """Time with a device call in progress, s, summed over the devices."""
        return sum(device.count.busy_s for device in self.devices)

    @property
    def device_passes(self) -> int:
        """Node evaluations of all devices so far."""
        return sum(device.count.passes for device in self.devices)

    @property
    def device_calls(self) -> int:
        """Shots of all devices so far."""
        return sum(device.count.calls for device in self.devices)

    @property
    def device_writes(self) -> int:
        """Channels that were written, each time something else was programmed on a device, so far."""
        return sum(device.count.writes for device in self.devices)

    @property
    def device_verified(self) -> dict[str, int]:
        """Channels read back, times that channels were written once more, channels off after the last try, so far."""
        return {name: sum(getattr(device.count, name) for device in self.devices) for name in VERIFIED}

    @property
    def device_programs(self) -> int:
        """Times that something else was programmed on a device so far."""
        return sum(device.count.programs for device in self.devices)

    @property
    def faults_recovered(self) -> int:
        """Faults that the devices have recovered from so far."""
        return sum(device.count.faults for device in self.devices)

    @property
    def scored(self) -> bool:
        """True unless the epoch's validation is still due."""
        return self.batch < self.batches_per_epoch and not (self.spent and self.batch > 0)

    @property
    def spent(self) -> bool:
        """The budget of device passes, or that of writes, is used up."""
        budgets = (self.plan.budget_passes, self.device_passes), (self.plan.budget_writes, self.device_writes)
        return any(most is not None and used >= most for most, used in budgets)

    @property
    def stale(self) -> bool:
        """The score was no better for so long that the patience is at its end."""
        return exhausted(self.scores, self.plan.patience, self.plan.min_delta, not self.task.metric.lower)

    def whole(self) -> None:
        """Note that nothing is half done: a later return to this step takes the tape back to here."""
        if self.tape is not None:
            self.tape.mark()

    def sent(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Examples, where the network is."""
        return sent(x, self.net.place), sent(label, self.net.place)

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on exactly here. Raises: RunError: a tape that cannot be written."""
        slots, optimizer = optimizer_state(self.optimizer)
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"learner.{k}": v for k, v in self.learner.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in slots.items()}
        gathered, moves = self.moves.state()
        tensors |= {f"gathered.{k}": v for k, v in gathered.items()}
        tensors |= {f"best.{k}": v for k, v in self.best.tensors.items()}
        tensors |= {f"best_learner.{k}": v for k, v in self.best.learner.items()}
        states = [parted(device.snapshot()) for device in self.devices]
        tensors |= {f"{DEVICE}.{n}.{k}": v for n, (_, kept) in enumerate(states) for k, v in kept.items()}
        facts: dict[str, Any] = {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "batches_per_epoch": self.batches_per_epoch,
            "sums": self.sums,
            "seconds": self.seconds,
            "best": {"epoch": self.best.epoch, **({} if self.best.score is None else {self.task.metric.name: self.best.score})},
            "optimizer": optimizer,
            "schedule": self.schedule.state(),
            "moves": moves,
            "scores": list(self.scores),
            "devices": [
                {
                    "snapshot": snapshot,
                    "calls": d.count.calls,
                    "passes": d.count.passes,
                    "busy_s": d.count.busy_s,
                    "faults": d.count.faults,
                    **({} if d.programmed is None else {"programmed": d.programmed}),
                    **({} if d.written is None else _writes(d)),
                }
                for d, (snapshot, _) in zip(self.devices, states, strict=True)
            ],
            "wall_s": self.wall_s,
        }
        if self.sentinel is not None:
            facts["sentinel"] = self.sentinel.state()
            facts["best"]["sentinel"] = self.best.sentinel
        if self.tape is not None:
            facts["tape"] = self.tape.flush()
        return Checkpoint(tensors, facts)

    def restore(self, point: Checkpoint) -> None:
        """Go back to where `point` was taken.

        Raises:
            RunError: it belongs to another network, learner or number of devices.
        """
        facts = point.facts
        with fitting():
            self._check(point)
            self._learned(point)
            self.seconds = dict(facts["seconds"])
            for number, (device, saved) in enumerate(zip(self.devices, facts["devices"], strict=True)):
                device.restore(joined(saved["snapshot"], under(f"{DEVICE}.{number}", point.tensors)))
                device.recount(saved)
                device.reprogram(saved.get("programmed"))
            self.wall_s = float(facts.get("wall_s", 0.0))
            if self.tape is not None:
                self.tape.cut(facts.get("tape"))
            if self.sentinel is not None and "sentinel" in facts:
                self.sentinel.restore(facts["sentinel"])

    def go_back(self, point: Checkpoint) -> None:
        """Restore what was learned to how it was when `point` was taken.

        What happened is not undone: the node, its steering, all counts and the tape go on from where they are, so the steps
        that are made again are other ones.

        Raises:
            RunError: as of `restore`.
        """
        with fitting():
            self._check(point)
            self._learned(point)
        self.whole()

    def _check(self, point: Checkpoint) -> None:
        """Refuse a checkpoint that is not whole, before anything is restored. Raises: ValueError, KeyError, TypeError."""
        facts, tensors, net = point.facts, point.tensors, self.net.state_dict()
        unknown = [name for name in tensors if name.partition(".")[0] not in KINDS]
        if unknown:
            raise ValueError(f"an unknown tensor {unknown[0]}")
        epoch, batch, step = (_whole(facts, name) for name in ("epoch", "batch", "step"))
        best_epoch, metric = _whole(facts["best"], "epoch"), self.task.metric
        score = _finite(facts["best"], metric.name, -math.inf) if best_epoch else 0.0
        last = epoch * self.batches_per_epoch + batch
        same = facts.get("batches_per_epoch") == self.batches_per_epoch  # else the user changed data or batch, and means it
        if step < epoch + batch or (same and (step > last or batch > self.batches_per_epoch)):
            raise ValueError(f"step {step} in epoch {epoch}, batch {batch}")
        if best_epoch > epoch or (metric.share and not 0 <= score <= 1):
            raise ValueError(f"the best {metric.title} {score} of epoch {best_epoch}, after epoch {epoch}")
        check_tensors(under("net", tensors), net, "network")
        check_tensors(under("best", tensors), net if best_epoch else {}, "best weights")
        check_optimizer(
            self.optimizer, under("optimizer", tensors), facts["optimizer"], step > 0 and not isinstance(self.learner, Fitting)
        )
        self.moves.check(under("gathered", tensors), facts["moves"])
        if len(facts["scores"]) != epoch or not all(
            isinstance(score, float) and math.isfinite(score) for score in facts["scores"]
        ):
            raise ValueError(f"the scores {facts['scores']} of {epoch} epochs")
        for name in dict(facts["sums"]):
            _finite(facts["sums"], name, -math.inf)
        if facts["seconds"].keys() != self.seconds.keys():
            raise ValueError(f"times of {', '.join(facts['seconds'])}")
        for name in facts["seconds"]:
            _finite(facts["seconds"], name)
        _finite({"wall_s": 0.0, **facts}, "wall_s")
        for number, saved in enumerate(facts["devices"]):
            _finite(saved, "busy_s")
            for name in ("calls", "passes", "faults", "programs", "writes"):
                _whole({"faults": 0, "programs": 0, "writes": 0, **saved}, name)
            if not isinstance(saved["snapshot"], dict):
                raise ValueError("a device without its snapshot")
            joined(saved["snapshot"], under(f"{DEVICE}.{number}", tensors))
        if len(facts["devices"]) != len(self.devices):
            raise ValueError(f"{len(facts['devices'])} devices, not {len(self.devices)}")

    def _learned(self, point: Checkpoint) -> None:
        facts = point.facts
        self.net.load_state_dict(under("net", point.tensors))
        self.learner.load_state_dict(under("learner", point.tensors))
        restore_optimizer(self.optimizer, under("optimizer", point.tensors), facts["optimizer"])
        self.scores = list(facts["scores"])
        self.schedule.restore(facts["schedule"], self.scores)
        self.moves.restore(under("gathered", point.tensors), facts["moves"])
        self.epoch, self.batch, self.step = facts["epoch"], facts["batch"], facts["step"]
        self.sums = dict(facts["sums"])
        held, state, best = under("best", point.tensors), under("best_learner", point.tensors), facts["best"]
        score = best[self.task.metric.name] if best["epoch"] else None
        self.best = Best(score, best["epoch"], held, state, best.get("sentinel", {}))


def _writes(device: Metered) -> dict[str, Any]:
    return {**{name: getattr(device.count, name) for name in WRITES}, "written": device.written}


def _whole(facts: Mapping[str, Any], name: str) -> int:
    value = facts[name]
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} = {value!r}")
    return value


def _finite(facts: Mapping[str, Any], name: str, least: float = 0.0) -> float:
    value = facts[name]
    if type(value) not in (int, float) or not least <= value < math.inf:  # NaN is not
        raise ValueError(f"{name} = {value!r}")
    return float(value)


@contextmanager
def fitting() -> Iterator[None]:
    """Whatever goes wrong inside means that a checkpoint is of something else."""
    try:
        yield
    except HilError:
        raise
    except Exception as error:
        raise RunError(
            "this checkpoint does not fit the experiment",
            where="checkpoint",
            got=f"no {said(error)}" if isinstance(error, KeyError) else said(error) or type(error).__name__,
            allowed="the network, learner and optimiser that it was made with",
            outputs="safe; whatever was opened is closed again",
            todo="undo the change in config.toml, or start a new run: hil train",
        ) from error
