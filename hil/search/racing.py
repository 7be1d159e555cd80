"""Successive halving within a generation: the jobs of a chunk that are worst after a rung are trained no further.

    after epochs_r:  of the k jobs of the chunk that still race, the best ceil(keep k) go on      (Jamieson & Talwalkar, 2016)

A rung goes on with the training as it is, so nothing is trained twice. The rivals of a job are those of its chunk: they share
its seed, and a chunk does not depend on who trains it or when, so the history does not either. A job that does not race is
trained to the end and takes no place from others. The outcome of one that was stopped is that of its last epoch: a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hil.search.jobs import Objective, Outcome


@dataclass(frozen=True, slots=True)
class Race:
    """The rungs of a race.

    Args:
        epochs: after which each rung is judged, rising.
        keep: the share of the rivals that go on, of each rung.
        by: what they are judged by: the merit, or the loss.
    """

    epochs: tuple[int, ...] = ()
    keep: tuple[float, ...] = ()
    by: Objective = field(default_factory=lambda: Objective("accuracy"))

    def stopped(self, epoch: int, racing: Sequence[Outcome]) -> list[int]:
        """Return the places of those that are stopped after `epoch`, counted from 1; none where no rung is.

        Args:
            epoch: that is done.
            racing: what came of the rivals so far, in the order of the jobs; who is first of two equals goes on.
        """
        if epoch not in self.epochs:
            return []
        going_on = math.ceil(self.keep[self.epochs.index(epoch)] * len(racing))
        ranked = sorted(range(len(racing)), key=lambda place: -self.by.value(racing[place], 0))
        return sorted(ranked[going_on:])


def stopped(outcome: Outcome, epoch: int) -> Outcome:
    """Return what came of a training that a race ended after `epoch`; one that diverged before stays as it is."""
    return outcome if outcome.died_at is not None else replace(outcome, steps=None, stopped_at=epoch)
