"""A whole population trained at once: the first axis of every tensor counts candidates, one matrix product a layer for all.

    pre_l    = h_{l-1} W_l^T + b_l            W (candidates, out, in), h (candidates, batch, in); one minibatch for all
    h_l      = decode( node( encode( pre_l ) ) )
    e        = dL/do,   delta_l = ( e B_l^T ) * g( pre_l )           B and g of the candidate
    dW_l     = delta_l^T h_{l-1}

This is aDFA (hil/learners/adfa.py) in the loop of hil/training/loop.py: the same initial weights, order of examples, noise,
matrices and steps of the optimiser, so a candidate gives the numbers of an ordinary run to rounding. A candidate whose loss or
drive is not
finite, or whose drive is out of limits, goes on without being counted: its outcome says at which step it died.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hil.data.augment import Augment
from hil.data.dataset import Dataset, Split, batches
from hil.encoding import Decode, Encode
from hil.search.batched_functions import stacked
from hil.search.batched_twin import BatchedTwin
from hil.search.jobs import Job, Outcome
from hil.search.racing import Race, stopped
from hil.seeding import generator
from hil.task import LossName, Task, task_of
from hil.training.loop import EVALUATION_BATCH
from hil.training.schedule import Constant
from hil.twin import Twin

Groups = list[dict[str, Any]]
WHERE = "twin, population"


@dataclass(frozen=True)
class Course:
    """The common part of all candidates of a search.

    Args:
        data: train to learn from, validation for the score, test for the confirmation: the search's own, see splits.py.
        chain: seed -> the initial synapses, all linear.
        twin: the node.
        others: other devices, for robustness.
        optimizer: groups of parameters, each with its "lr" -> the optimiser; one that treats every number for itself.
        schedule: (optimiser, epochs) -> the schedule of its rates; one that depends on no score.
        target: the merit that ends the count of steps and passes; None: none.
        task: what is learned; None: what the data ask for.
        race: who is stopped early.
    """

    data: Dataset
    chain: Callable[[int], Sequence[nn.Linear]]
    twin: Twin
    encode: Encode
    decode: Decode
    optimizer: Callable[[Groups], Optimizer]
    schedule: Callable[[Optimizer, int], Constant]
    batch: int
    loss: LossName = "cross_entropy"
    augment: Augment = field(default_factory=Augment)
    others: tuple[Twin, ...] = ()
    target: float | None = None
    task: Task | None = None
    race: Race = field(default_factory=Race)

    @property
    def judged(self) -> Task:
        """The task, as `task` says or as the data ask for."""
        return self.task or task_of(self.data.train.y, self.data.classes)

    def scored(self, split: str) -> Split:
        """Return the split that "score" or "held" names."""
        return self.data.test if split == "held" else self.data.validation


class TwinPopulation:
    """A Trainer.

    Args:
        course: what the candidates share.
        device: of torch, where everything is computed.
    """

    def __init__(self, course: Course, device: str = "cpu") -> None:
        self._course, self._place = course, device

    def train(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Jobs of one seed, length and split are trained together; answers in the order of the jobs."""
        alike: dict[tuple[int, int, str], list[int]] = {}
        for number, job in enumerate(jobs):
            alike.setdefault((job.seed, job.epochs, job.split), []).append(number)
        found: dict[int, Outcome] = {}
        for numbers in alike.values():
            group = [jobs[number] for number in numbers]
            found |= zip(numbers, Batch(self._course, group, self._place).train(), strict=True)
        return [found[number] for number in range(len(jobs))]


class Batch:
    """Candidates that share seed, epochs and split, while they are trained.

    weights, biases: per layer, (candidates, out, in) and (candidates, out).
    going: the places in `jobs` of the candidates that are not stopped; the first axis of every tensor.
    """

    def __init__(self, course: Course, jobs: Sequence[Job], place: str) -> None:
        self.course, self.jobs, self.place = course, jobs, place
        self.seed, self.epochs, self.split = jobs[0].seed, jobs[0].epochs, jobs[0].split
        candidates, chain = len(jobs), course.chain(self.seed)
        self.weights = [_copies(synapse.weight, candidates, place) for synapse in chain]
        self.biases = [_copies(synapse.bias, candidates, place) for synapse in chain]
        self.gradients = [(torch.empty_like(w), torch.empty_like(b)) for w, b in zip(self.weights, self.biases, strict=True)]
        self.going, self.one_rate = list(range(candidates)), len({job.learned.lr for job in jobs}) == 1
        self.optimizer = course.optimizer(self._groups())
        self.schedule = course.schedule(self.optimizer, self.epochs)
        widths = [synapse.out_features for synapse in chain[:-1]]
        drawn = [
            job.learned.feedback.matrices(widths, course.judged.outputs, generator(self.seed, 0, "learner")) for job in jobs
        ]
        self.backward = [torch.stack(layer).transpose(1, 2).contiguous().to(place) for layer in zip(*drawn, strict=True)]
        self.g = stacked([job.learned.feedback.g for job in jobs], place)
        self.node = BatchedTwin(course.twin, self.seed)
        self.limits = course.twin.spec.inputs
        self.step = self.passes = 0
        self.died = torch.full((candidates,), -1, device=place)

    def train(self) -> list[Outcome]:
        """Train all to the end, or until a race stops them."""
        spent_s, marks = 0.0, []
        curves: list[list[float]] = [[] for _ in self.jobs]
        done: dict[int, Outcome] = {}
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "There is a performance drop", UserWarning
            )  # of some operations mapped over candidates
            for epoch in range(1, self.epochs + 1):
                begin = time.perf_counter()
                self._epoch(epoch - 1)
                self.schedule.epoch_done(math.nan)
                merits, losses = (found.tolist() for found in self.score(self.node, self.course.scored(self.split)))
                marks.append((self.step, self.passes))
                others = [self._elsewhere(other) for other in self.course.others] if epoch == self.epochs else []
                robust = torch.stack(others).mean(0).tolist() if others else [None] * len(self.going)
                spent_s += (time.perf_counter() - begin) / len(self.going)
                found = {}
                for place, (number, died) in enumerate(zip(self.going, self.died.tolist(), strict=True)):
                    curves[number].append(merits[place])
                    found[number] = outcome(
                        curves[number], died, robust[place], marks, self.course.target, spent_s, WHERE, losses[place]
                    )
                racing = [number for number in self.going if self.jobs[number].races] if epoch < self.epochs else []
                lost = {racing[place] for place in self.course.race.stopped(epoch, [found[number] for number in racing])}
                done |= {number: stopped(found[number], epoch) for number in lost}
                if lost:
                    self._keep([place for place, number in enumerate(self.going) if number not in lost])
        return [done.get(number) or found[number] for number in range(len(self.jobs))]

    def _keep(self, places: list[int]) -> None:
        """Go on with the candidates at these places alone."""
        index = torch.tensor(places, device=self.place)
        self.going = [self.going[place] for place in places]
        self.weights, self.biases = ([part[index] for part in parts] for parts in (self.weights, self.biases))
        self.gradients = [(torch.empty_like(w), torch.empty_like(b)) for w, b in zip(self.weights, self.biases, strict=True)]
        self.backward = [part[index] for part in self.backward]
        self.g = stacked([self.jobs[number].learned.feedback.g for number in self.going], self.place)
        self.died = self.died[index]
        self.node.keep(index)
        groups, state = self._groups(), self.optimizer.state
        old = self.optimizer.param_groups  # a schedule knows them by their places
        if self.one_rate:
            for before, after in zip(old[0]["params"], groups[0]["params"], strict=True):
                kept = state.pop(before, {})
                state[after] = {
                    name: value[index] if isinstance(value, Tensor) and value.shape == before.shape else value
                    for name, value in kept.items()
                }
            old[0]["params"] = groups[0]["params"]
            return
        fresh = dict(zip(self.going, groups, strict=True))
        for number, group in enumerate(old):
            params = fresh[number]["params"] if number in fresh else []
            for place, before in enumerate(group["params"]):
                kept = state.pop(before, {})
                if params:
                    state[params[place]] = kept
            group["params"] = params

    @torch.no_grad()
    def _epoch(self, epoch: int) -> None:
        course = self.course
        for x, label, _ in batches(course.data.train, course.batch, self.seed, epoch):
            shown = course.augment(x, course.data.shape, self.seed, self.step)
            self.schedule.begin(self.step, self.epochs * math.ceil(len(course.data.train) / course.batch))
            self._update(shown.to(self.place), label.to(self.place))
            self.schedule.moved()
            self.step += 1

    def _update(self, x: Tensor, label: Tensor) -> None:
        inputs, pre = self._forward(self.node, x)
        loss, error = self._judged(pre[-1], label)
        self._note(~torch.isfinite(loss))
        deltas = [torch.bmm(error, b).mul_(self.g(a)) for b, a in zip(self.backward, pre[:-1], strict=True)]
        for h, delta, (weight, bias) in zip(inputs, [*deltas, error], self.gradients, strict=True):
            if h.ndim == 2:  # the minibatch itself: one product for all candidates
                torch.mm(delta.transpose(1, 2).reshape(-1, len(h)), h, out=weight.view(-1, h.shape[1]))
            else:
                torch.bmm(delta.transpose(1, 2), h, out=weight)
            torch.sum(delta, 1, out=bias)
        self.optimizer.step()

    def _forward(self, node: BatchedTwin, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(what goes into each synapse, what comes out)."""
        inputs, pre = [], []
        h = x
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            inputs.append(h)
            if h.ndim == 2:
                flat = torch.addmm(bias.view(-1), h, weight.view(-1, h.shape[1]).t())
                pre.append(flat.view(len(h), *bias.shape).transpose(0, 1).contiguous())
            else:
                pre.append(torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2)))
            if number < len(self.weights) - 1:
                h = self._measured(node, pre[-1])
        return inputs, pre

    def _measured(self, node: BatchedTwin, pre: Tensor) -> Tensor:
        drive = self.course.encode(pre)
        least, most = self.limits.bounds(drive)
        if self.limits.per_channel:
            self._note(~((drive >= least) & (drive <= most)).flatten(1).all(1))  # NaN too
        else:
            low, high = torch.aminmax(drive.flatten(1), dim=1)
            self._note(~((low >= least) & (high <= most)))
        self.passes += drive[0].numel()
        return self.course.decode(node.forward(drive))

    def _note(self, bad: Tensor) -> None:
        self.died = torch.where((self.died < 0) & bad, self.step, self.died)

    def _judged(self, scores: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(loss (candidates,), dL/do) as Loss.judge of hil/task.py has them."""
        share = 1 / len(label)
        if label.is_floating_point():
            error = scores - label
            return error.square().sum((1, 2)).mul_(0.5 * share), error.mul_(share)
        index = label.view(1, -1, 1).expand(len(scores), -1, 1)
        one = torch.ones((), dtype=scores.dtype, device=scores.device).expand(index.shape)
        if self.course.loss == "mse":
            error = scores.scatter_add(2, index, -one)
            return error.square().sum((1, 2)).mul_(0.5 * share), error.mul_(share)
        logp = scores.log_softmax(2)
        loss = logp.gather(2, index).sum((1, 2)).mul_(-share)
        return loss, logp.exp_().scatter_add_(2, index, -one).mul_(share)

    @torch.no_grad()
    def score(self, node: BatchedTwin, split: Split) -> tuple[Tensor, Tensor]:
        """Merit and loss of the task, (candidates,) each, through `node`, in the pieces of hil/training/loop.py."""
        task = self.course.judged
        pieces = [self._forward(node, x.to(self.place))[1][-1] for x, _ in split.parts(EVALUATION_BATCH)]
        outputs, target = torch.cat(pieces, 1), split.y.to(self.place)
        losses = torch.stack([task.loss.of(each, target) for each in outputs])
        if task.metric.name == "accuracy":
            return outputs.argmax(2).eq(target).float().mean(1), losses
        values = [float(task.metric.of(each, target)) for each in outputs]
        merits = [0.0 if math.isnan(value) else task.metric.merit(value) for value in values]
        return torch.tensor(merits, device=self.place), losses

    def _elsewhere(self, other: Twin) -> Tensor:
        """Merit through another device; what dies there has not died at home."""
        died, passes = self.died, self.passes
        found, _ = self.score(BatchedTwin(other, self.seed), self.course.scored(self.split))
        lost = (self.died >= 0) & (died < 0)
        self.died, self.passes = died, passes
        return found.masked_fill(lost, 0.0)

    def _groups(self) -> Groups:
        """Make one group for all if the rates are equal, or one a candidate, its parameters views of the stacked tensors."""
        stacks = [pair for both in zip(self.weights, self.biases, strict=True) for pair in both]
        slopes = [part for both in self.gradients for part in both]
        groups: Groups = []
        for place, number in [(None, self.going[0])] if self.one_rate else list(enumerate(self.going)):
            params = []
            for stack, slope in zip(stacks, slopes, strict=True):
                params.append(nn.Parameter(stack if place is None else stack[place]))
                params[-1].grad = slope if place is None else slope[place]
            groups.append({"params": params, "lr": self.jobs[number].learned.lr})
        return groups


def _copies(values: Tensor, candidates: int, place: str) -> Tensor:
    return values.detach().to(place).unsqueeze(0).repeat(candidates, *[1] * values.ndim)


def outcome(
    curve: Sequence[float], died: int, robustness: float | None, marks: Sequence[tuple[int, int]], target: float | None,
    wall_s: float, where: str, loss: float | None = None,
) -> Outcome:  # fmt: skip
    """Sum up what a training came to.

    Args:
        curve: merit after each epoch.
        died: the step at which it diverged, or -1.
        robustness: mean merit on the other devices, or None.
        marks: (steps, passes) after each epoch.
        target: merit that passes and steps count to, or None.
        wall_s: its share of the time.
        where: who trained it.
        loss: after the last epoch.
    """
    if died >= 0:
        return Outcome(0.0, tuple(curve), marks[-1][1] if marks else 0, None, None, died, wall_s, where)
    reached = next((mark for mark, value in zip(marks, curve, strict=True) if target is not None and value >= target), None)
    steps, passes = reached or (None, marks[-1][1])
    if loss is not None and not math.isfinite(loss):
        loss = None
    return Outcome(curve[-1], tuple(curve), passes, steps, robustness, None, wall_s, where, loss)
