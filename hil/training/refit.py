"""`readout = "ridge"` of a learner: once training is over, the last synapse of the best weights is fitted in closed form.

One more pass of the training and of the validation split. It is kept only if the metric on the validation split says that it is
better than the readout that was trained.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from hil.foreign import foreign
from hil.learners.parts.ridge_sums import RidgeSums, hidden, readout
from hil.network import Network
from hil.training.loop import parts
from hil.training.state import Training


@runtime_checkable
class Stateful(Protocol):
    """A learner of nodes with memory."""

    def states(self, net: Network, x: Tensor) -> Tensor:
        """Return what enters the readout, (batch, time, n); of one target a sequence (batch, n)."""


def refit(training: Training) -> dict[str, Any]:
    """Fit the readout behind the best weights, which become the fitted ones if they are better.

    Returns:
        the penalty, both scores on the validation split, and whether the fitted readout was kept.
    """
    net, task, best = training.net, training.task, training.best
    features = training.learner.states if isinstance(training.learner, Stateful) else hidden
    net.load_state_dict(best.tensors)
    with foreign("fitting the readout"):
        sums = RidgeSums(readout(net).in_features, task.outputs)
        for x, target in parts(training, training.data.train):
            states = features(net, x)
            sums.add(task.scored(states, states.ndim == 3), task.targets(target))
        found = sums.fit(net, parts(training, training.data.validation), task, features=features)
    score = task.score(found.outputs, training.data.validation.y.cpu())[task.metric.name]
    kept = task.metric.better(score, best.score)
    if kept:
        tensors = {key: value.detach().clone() for key, value in net.state_dict().items()}
        training.best = dataclasses.replace(best, score=score, tensors=tensors)
    net.load_state_dict(training.best.tensors)
    return {"penalty": found.penalty, "fitted": score, "trained": best.score, "kept": kept}
