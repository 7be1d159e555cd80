"""Candidates trained each by the ordinary loop on the ordinary built experiment, one at a time: any learner, any device.

The device may be a twin or a bench. A candidate whose loss is not finite, or whose drive the device refuses, is an outcome, the
worst; a fault of the bench is none, and is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from hil.errors import Interrupted, OutOfRange, RunError
from hil.network import Network
from hil.search.batched_trainer import outcome
from hil.search.evaluator import Stop
from hil.search.jobs import Job, Outcome
from hil.search.racing import Race, stopped
from hil.training.loop import Epoch, evaluate, train
from hil.training.refit import refit
from hil.training.state import Training


@dataclass(frozen=True)
class Candidate:
    """The networks that one job trains and tries.

    Args:
        training: at step 0.
        others: the same synapses in front of other devices, for robustness.
        where: who answers.
    """

    training: Training
    others: tuple[Network, ...] = ()
    where: str = "twin"


class OneByOne:
    """A Trainer.

    Args:
        make: builds what a job asks for, and closes it.
        target: as in Course.
        stop: asked after every step; its answer, unless "", ends the training there, and a resume begins the candidate
            anew.
        race: who is stopped early.
    """

    def __init__(
        self,
        make: Callable[[Job], AbstractContextManager[Candidate]],
        target: float | None = None,
        stop: Stop = lambda: "",
        race: Race = Race(),  # noqa: B008 (a value that does not change)
    ) -> None:
        self._make, self._target, self._stop, self._race = make, target, stop, race

    def train(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Train the jobs by the ordinary loop: one after another, or rivals of a race side by side, rung by rung."""
        done = {number: _finished(self._trained(job)) for number, job in enumerate(jobs) if not job.races}
        rivals = {number: self._trained(job) for number, job in enumerate(jobs) if job.races}
        try:
            done |= self._raced(rivals)
        finally:
            for training in rivals.values():
                training.close()
        return [done[number] for number in range(len(jobs))]

    def _raced(self, rivals: Mapping[int, Generator[Outcome, None, Outcome]]) -> dict[int, Outcome]:
        racing, found, ended, epoch = list(rivals), {}, set[int](), 0
        while any(number not in ended for number in racing):
            epoch += 1
            for number in racing:
                if number not in ended:
                    try:
                        found[number] = next(rivals[number])
                    except StopIteration as end:
                        found[number] = end.value
                        ended.add(number)
            if len(ended) == len(rivals):
                break
            lost = {racing[place] for place in self._race.stopped(epoch, [found[number] for number in racing])}
            for number in lost:
                rivals[number].close()
                found[number] = stopped(found[number], epoch)
            racing = [number for number in racing if number not in lost]
        return found

    def _trained(self, job: Job) -> Generator[Outcome, None, Outcome]:
        """Train a job; gives what came of it so far after every epoch but the last, and returns what came of it at the end."""
        begin = time.perf_counter()
        with self._make(job) as made:
            training = made.training
            curve: list[float] = []
            marks: list[tuple[int, int]] = []
            died, robustness, loss = -1, None, None
            try:
                for point in train(training):
                    if self._stop():
                        raise Interrupted(f"stopped by {self._stop()} in the middle of a candidate", where=job.key)
                    if isinstance(point, Epoch):
                        curve.append(_merit(training, point.validation))
                        loss = point.validation["loss"]
                        marks.append((training.step, training.device_passes))
                        if len(curve) < job.epochs:
                            seconds = time.perf_counter() - begin
                            yield outcome(curve, died, None, marks, self._target, seconds, made.where, loss)
                if training.refit:
                    loss = None  # that of the readout before its fit
                    curve[-1] = max(curve[-1], training.task.metric.merit(refit(training)["fitted"]))
                    marks[-1] = (training.step, training.device_passes)
            except OutOfRange:  # refused before anything was sent
                died = training.step
            except RunError:  # the loop's word for a loss that is not finite
                died = training.step
            if died < 0 and made.others:
                found = [_elsewhere(net, training) for net in made.others]
                robustness = sum(found) / len(found)
            seconds = time.perf_counter() - begin
            return outcome(curve, died, robustness, marks, self._target, seconds, made.where, loss)


def _finished(training: Generator[Outcome, None, Outcome]) -> Outcome:
    while True:
        try:
            next(training)
        except StopIteration as end:
            found: Outcome = end.value
            return found


def _merit(training: Training, score: Mapping[str, float]) -> float:
    metric = training.task.metric
    return metric.merit(score[metric.name])


def _elsewhere(net: Network, training: Training) -> float:
    """Through another device; 0 if it refuses what the network sends."""
    try:
        return _merit(training, evaluate(net, training.learner, training.data.validation, task=training.task)[0])
    except OutOfRange:
        return 0.0
