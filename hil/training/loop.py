"""The training loop is a generator: `for point in train(training)`. The caller saves, plots, recalibrates, stops.

Between two points nothing is half done: the network, the learner, the optimiser and the counters in `Training` belong to the
same committed step, and `Training.checkpoint()` holds all of it. Random numbers come from (seed, step, stream), the order of
examples from (seed, epoch), so a resumed run goes on with the numbers of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from hil.data.dataset import Split, batches
from hil.devices.meter import Metered, Wrapping
from hil.devices.resilient import ResilientArray, ResilientMemory, whole_batch
from hil.errors import ContractError, RunError
from hil.fitting import Fit, Fitting
from hil.foreign import MADE_SAFE, foreign
from hil.learner import Learner, Online, Selecting
from hil.network import Network
from hil.seeding import generator
from hil.sentinel import Look
from hil.task import Task, as_task
from hil.torch_device import sent
from hil.training.state import Best, Recording, Training

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class TrainingStep:
    """A committed step: its place, and what the learner said about it.

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
    """A finished epoch: means over its training steps, and the score on the validation split. Times in s."""

    epoch: int
    step: int
    train: Mapping[str, float]
    validation: Mapping[str, float]
    best: bool
    wall_s: float
    device_s: float
    samples_per_s: float


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
    if not any(map(_breaks_off, training.devices)):
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


def _breaks_off(device: Metered) -> bool:
    """True of a device that may lose its state in the middle of a batch, and say so."""
    inner = device.inner
    while isinstance(inner, Wrapping):
        inner = inner.inner
    return isinstance(inner, ResilientArray | ResilientMemory)


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
        training.net.bound()
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
        return whole_batch(
            lambda: learner.fit(training.net, parts(training, training.data.validation)), _rewinding(training.tape)
        )


def parts(training: Training, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield x and targets of a split in the batches of an evaluation, where the network is."""
    return (training.sent(x, target) for x, target in split.parts(EVALUATION_BATCH))


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
        return (task or as_task(scores.shape[-1])).score(scores, split.y.to(scores.device)), scores
