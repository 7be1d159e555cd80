"""The training loop is a generator: `for point in train(training)`. The caller saves, plots, recalibrates, stops.

Between two points nothing is half done: the network, the learner, the optimiser and the counters in `Training` belong to the
same committed step, and `Training.checkpoint()` holds all of it. Random numbers come from (seed, step, stream), the order of
examples from (seed, epoch), so a resumed run goes on with the numbers of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from hil.data.augment import Augment
from hil.data.dataset import Dataset, Split, batches
from hil.devices.meter import Metered
from hil.devices.resilient import ResilientArray, whole_batch
from hil.errors import ContractError, HilError, RunError
from hil.fitting import Fit, Fitting
from hil.foreign import MADE_SAFE, foreign, said
from hil.learner import Learner, Online, Selecting
from hil.network import Network
from hil.run.checkpoint import (
    Checkpoint,
    check_optimizer,
    check_tensors,
    optimizer_state,
    restore_optimizer,
    under,
)
from hil.seeding import generator
from hil.sentinel import Look, Sentinel
from hil.task import Task, as_task, task_of
from hil.torch_device import sent
from hil.training.moves import Moves
from hil.training.schedule import Constant
from hil.training.stopping import exhausted

EVALUATION_BATCH = 500


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


@dataclass(frozen=True)
class TrainingStep:
    """One committed step: its place, and what the learner said about it.

    Args:
        look: of the sentinel, if it took one after the step; the loop itself obeys `look.fault`, its caller `look.back` (by
            `Training.go_back`).
    """

    epoch: int
    step: int
    examples: int
    metrics: Mapping[str, float]
    look: Look | None = None


@dataclass(frozen=True)
class Epoch:
    """One finished epoch: means over its training steps, and the score on the validation split. Times in s."""

    epoch: int
    step: int
    train: Mapping[str, float]
    validation: Mapping[str, float]
    best: bool
    wall_s: float
    device_s: float
    samples_per_s: float


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


KINDS = ("net", "learner", "optimizer", "best", "best_learner", "gathered")  # of tensors in a checkpoint


class Training:
    """All that changes while a network is trained.

    Args:
        net, learner, optimizer: as built for step 0.
        data: the splits, where the network is or in the host's memory.
        plan: how long, in which order. device: the metered node, or None for a purely digital network.
        tape: what the devices are recorded onto, or None.
        sentinel: who watches over the node, or None.
        schedule: of the optimiser's rates; None: constant.
        task: what is learned; None: what the targets of the data ask for.
        refit: the readout of the best weights is fitted at the end, see hil/training/refit.py.

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
    ) -> None:
        self.net, self.learner, self.optimizer = net, learner, optimizer
        self.data, self.plan, self.devices = data, plan, devices
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
    def faults_recovered(self) -> int:
        """Faults that the devices have recovered from so far."""
        return sum(device.count.faults for device in self.devices)

    @property
    def scored(self) -> bool:
        """True unless the epoch's validation is still due."""
        return self.batch < self.batches_per_epoch and not (self.spent and self.batch > 0)

    @property
    def spent(self) -> bool:
        """The budget of device passes is used up."""
        return self.plan.budget_passes is not None and self.device_passes >= self.plan.budget_passes

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
        facts: dict[str, Any] = {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "batches_per_epoch": self.batches_per_epoch,
            "sums": self.sums,
            "seconds": self.seconds,
            "best": {self.task.metric.name: -1.0 if self.best.score is None else self.best.score, "epoch": self.best.epoch},
            "optimizer": optimizer,
            "schedule": self.schedule.state(),
            "moves": moves,
            "scores": list(self.scores),
            "devices": [
                {
                    "snapshot": d.snapshot(),
                    "calls": d.count.calls,
                    "passes": d.count.passes,
                    "busy_s": d.count.busy_s,
                    "faults": d.count.faults,
                }
                for d in self.devices
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
            for device, saved in zip(self.devices, facts["devices"], strict=True):
                device.restore(saved["snapshot"])
                device.count.calls, device.count.passes = saved["calls"], saved["passes"]
                device.count.busy_s, device.count.faults = saved["busy_s"], saved.get("faults", 0)
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
        best, metric = facts["best"], self.task.metric
        score, best_epoch = _finite(best, metric.name, -math.inf), _whole(best, "epoch")
        last = epoch * self.batches_per_epoch + batch
        same = facts.get("batches_per_epoch") == self.batches_per_epoch  # else the user changed data or batch, and means it
        if step < epoch + batch or (same and (step > last or batch > self.batches_per_epoch)):
            raise ValueError(f"step {step} in epoch {epoch}, batch {batch}")
        if best_epoch > epoch or (score != -1 if best_epoch == 0 else metric.share and not 0 <= score <= 1):
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
        for saved in facts["devices"]:
            _finite(saved, "busy_s")
            for name in ("calls", "passes", "faults"):
                _whole({"faults": 0, **saved}, name)
            if not isinstance(saved["snapshot"], dict):
                raise ValueError("a device without its snapshot")
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


def train(training: Training) -> Iterator[TrainingStep | Epoch]:
    """Go on from where `training` is; yields after every committed step, and after every epoch's validation.

    Raises:
        Drifted: after the step whose look found what the sentinel cannot put right. Whatever the devices raise.
    """
    if training.sentinel is not None:
        training.sentinel.begin()
    while training.epoch < training.plan.epochs and not (training.batch == 0 and training.epoch > 0 and _over(training)):
        begin, device_s, before = time.perf_counter(), training.device_s, training.sums.get("examples", 0.0)
        yield from _one_epoch(training)
        examples = training.sums.get("examples", 0.0) - before
        yield _validated(training, begin, device_s, examples / (time.perf_counter() - begin))


def _over(training: Training) -> bool:
    return training.spent or training.stale


def _one_epoch(training: Training) -> Iterator[TrainingStep]:
    plan, seconds = training.plan, training.seconds
    mark = time.perf_counter()
    order = batches(training.data.train, plan.batch, plan.seed, training.epoch)
    for examples in islice(order, training.batch, None):
        if training.spent and training.batch > 0:
            return
        x, label = training.sent(examples.x, examples.y)
        mark = _spent(seconds, "data_s", mark)
        training.schedule.begin(training.step, plan.epochs * training.batches_per_epoch)
        shown = plan.augment(x, training.data.shape, plan.seed, training.step)
        cost = training.device_calls, training.device_passes
        with foreign(f"learner {type(training.learner).__name__}, step {training.step + 1}"):
            metrics = _learn_whole(training, shown, label)
        training.batch += 1
        training.step += 1
        if not training.moves.batches:
            training.schedule.moved()
        for key, value in metrics.items():
            training.sums[key] = training.sums.get(key, 0.0) + value * len(label)
        training.sums["examples"] = training.sums.get("examples", 0.0) + len(label)
        look = _looked(training, training.device_calls - cost[0], training.device_passes - cost[1])
        training.whole()
        yield TrainingStep(training.epoch + 1, training.step, len(label), metrics, look)
        if look is not None and look.fault is not None:
            raise look.fault
        mark = time.perf_counter()


def _looked(training: Training, calls: int, passes: int) -> Look | None:
    """Let the sentinel look after a step that took so many calls and passes."""
    if training.sentinel is None:
        return None
    mark = time.perf_counter()
    look = training.sentinel.after(training.step, calls, passes)
    _spent(training.seconds, "evaluate_s", mark)
    return look


def _learn_whole(training: Training, x: Tensor, label: Tensor) -> Mapping[str, float]:
    """The update of one batch, from its beginning again while a chip behind a wire loses its state in the middle of it."""
    if not any(isinstance(device.inner, ResilientArray) for device in training.devices):
        return _learn(training, x, label)
    net, learner, optimizer, moves = training.net, training.learner, training.optimizer, training.moves
    states = net.state_dict(), learner.state_dict(), optimizer.state_dict(), moves.state()
    before, rewind = deepcopy(states), _rewinding(training.tape)

    def back() -> None:
        weights, state, slots, gathered = deepcopy(before)
        net.load_state_dict(weights)
        learner.load_state_dict(state)
        optimizer.load_state_dict(slots)
        moves.restore(*gathered)
        rewind()

    return whole_batch(lambda: _learn(training, x, label), back)


def _rewinding(tape: Recording | None) -> Callable[[], None]:
    """Takes the tape back to where it stands now: of shots that have to be made again, the learner gets the second ones."""
    if tape is None:
        return lambda: None
    return partial(tape.cut, tape.place())


def _learn(training: Training, x: Tensor, label: Tensor) -> Mapping[str, float]:
    """One batch: a direction, a move of the optimiser; several of both for an Online learner. What the learner said last."""
    seconds, mark = training.seconds, time.perf_counter()
    metrics: Mapping[str, float] = {}
    for metrics in _updates(training, x, label):
        mark = _spent(seconds, "learner_s", mark)
        if "loss" not in metrics:
            raise ContractError(
                "a learner says what the loss of a step was", where=f"learner {type(training.learner).__name__}",
                got=", ".join(metrics) or "nothing", allowed='at least "loss"', outputs=MADE_SAFE,
            )  # fmt: skip
        if not math.isfinite(metrics["loss"]):
            raise _diverged(training.step, metrics["loss"])
        training.moves.add(len(label), last=training.batch + 1 == training.batches_per_epoch or training.spent)
        mark = _spent(seconds, "optimizer_s", mark)
    return metrics


def _updates(training: Training, x: Tensor, label: Tensor) -> Iterator[Mapping[str, float]]:
    """Fills `.grad` and yields, once a batch or, for a learner that learns while time goes on, more often."""
    learner, rng = training.learner, generator(training.plan.seed, training.step, "learner", x.device)
    if isinstance(learner, Online):
        yield from learner.updates(training.net, x, label, rng)
    else:
        yield learner.step(training.net, x, label, rng)


def _spent(seconds: dict[str, float], name: str, since: float) -> float:
    now = time.perf_counter()
    seconds[name] += now - since
    return now


def _diverged(step: int, loss: float, what: str = "training loss") -> RunError:
    return RunError(
        f"the {what} is not a finite number",
        where=f"step {step + 1}",
        got=str(loss),
        outputs="as after the last shot; they are made safe now",
        todo="lower [optimizer] lr or the feedback scale in the run's config.toml, then hil resume RUN --changed",
    )


def _validated(training: Training, begin: float, device_s: float, samples_per_s: float) -> Epoch:
    mark = time.perf_counter()
    fit = _fitted(training)
    readouts = settle(training) if fit is None else fit.facts
    if fit is None:
        score, _ = evaluate(training.net, training.learner, training.data.validation, training.tape, training.task)
    else:
        score = training.task.score(fit.outputs, training.data.validation.y.to(fit.outputs.device))
    _spent(training.seconds, "evaluate_s", mark)
    examples = training.sums.pop("examples", 1.0)
    means = {key: total / examples for key, total in training.sums.items()} | ({} if fit is None else dict(fit.train))
    means["lr"] = float(training.optimizer.param_groups[0]["lr"])  # of the last step
    training.sums = {}
    training.epoch += 1
    training.batch = 0
    metric = training.task.metric
    if not math.isfinite(score[metric.name]):
        raise _diverged(training.step, score[metric.name], f"{metric.title} of the validation split")
    training.scores.append(score[metric.name])
    best = metric.better(score[metric.name], training.best.score)
    if best:
        weights, state = _copied(training.net), _copied(training.learner)
        watched = {} if training.sentinel is None else training.sentinel.state()
        training.best = Best(score[metric.name], training.epoch, weights, state, watched)
    training.schedule.epoch_done(score[metric.name])
    training.whole()
    return Epoch(
        epoch=training.epoch,
        step=training.step,
        train=means,
        validation={**readouts, **score},
        best=best,
        wall_s=time.perf_counter() - begin,
        device_s=training.device_s - device_s,
        samples_per_s=samples_per_s,
    )


def _copied(module: Network | Learner) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def _fitted(training: Training) -> Fit | None:
    """Let a learner that fits its readout do so; None of any other."""
    learner = training.learner
    if not isinstance(learner, Fitting):
        return None
    with foreign(f"learner {type(learner).__name__}, fitting its readout"):
        return learner.fit(training.net, parts(training, training.data.validation))


def parts(training: Training, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield x and targets of a split in the batches of an evaluation, where the network is."""
    for x, target in zip(torch.split(split.x, EVALUATION_BATCH), torch.split(split.y, EVALUATION_BATCH), strict=True):
        yield training.sent(x, target)


def settle(training: Training) -> Mapping[str, float]:
    """Let a learner with several readouts choose one for the present weights; the accuracy of each, or nothing."""
    learner, split = training.learner, training.data.validation
    with foreign(f"learner {type(learner).__name__}, choosing its readout"):
        return learner.select(training.net, *training.sent(split.x, split.y)) if isinstance(learner, Selecting) else {}


@torch.no_grad()
def evaluate(
    net: Network, learner: Learner, split: Split, tape: Recording | None = None, task: Task | None = None
) -> tuple[dict[str, float], Tensor]:
    """Score through the device: loss and metrics of the task (None: of classes), and the outputs (examples, n)."""
    with foreign(f"learner {type(learner).__name__}, predicting {len(split)} examples"):
        parts = (sent(x, net.place) for x, _ in split.parts(EVALUATION_BATCH))
        scores = torch.cat([whole_batch(partial(learner.predict, net, x), _rewinding(tape)) for x in parts])
        return (task or as_task(scores.shape[1])).score(scores, split.y.to(scores.device)), scores
