"""The readout alone is fitted, in closed form, after one pass of the device over the training examples; no gradient at all.

    h_i      what enters the last synapse: the hidden layers are a fixed random feature map, read through the device
    W, b     ridge regression of the targets on h, from running sums; the penalty is chosen on the validation split

Each training and each validation example passes the device once. Another epoch measures all once more, and averages the noise
of the readings. A network like this is an extreme learning machine. With a node that has a memory it is a reservoir computer:
hil/learners/reservoir.py.

Source: Huang, Zhu & Siew, Neurocomputing 70, 489 (2006); the penalty: Hoerl & Kennard, Technometrics 12, 55 (1970).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from hil.fitting import Fit
from hil.learners.parts.loss import check_scores
from hil.learners.parts.recursive import Recursive
from hil.learners.parts.ridge_sums import PENALTIES, RidgeSums, readout
from hil.network import Network, Trace
from hil.settings import Positive, check
from hil.task import Loss, Task, as_task


@dataclass(frozen=True)
class RidgeSettings:
    """[learner] of an experiment.

    Args:
        penalties: that are tried, in units of the mean variance of a feature.
    """

    penalties: tuple[Positive, ...] = PENALTIES

    def __post_init__(self) -> None:
        check(self, "[learner]")


S = TypeVar("S", bound=RidgeSettings)


class Ridge(Generic[S]):
    """A readout in closed form. Its state are the sums.

    Args:
        features: width of what enters the last synapse.
        task: what is learned.
        settings: of an experiment.
    """

    Settings: ClassVar[type[RidgeSettings]] = RidgeSettings
    epochs: ClassVar[int] = 1  # where nothing else is asked for

    def __init__(self, features: int, task: Task, settings: S) -> None:
        self.task, self.settings = task, settings
        self.sums: RidgeSums | Recursive = RidgeSums(features, task.outputs)

    @classmethod
    def build(cls, net: Network, settings: S, task: Task | int, rng: torch.Generator, model: object | None = None) -> Self:
        """Build it for `net`, all of whose synapses are frozen; needs no model of the node.

        Raises:
            ContractError: the last synapse is not linear.
        """
        del rng, model
        net.requires_grad_(False)
        return cls(readout(net).in_features, as_task(task), settings)

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make one pass and add to the sums; "loss" (squared, of the readout as it is now) and "overflow"."""
        del rng  # nothing random
        trace = self.trace(net, x)
        outputs = self.answers(trace.outputs[-1])
        scores, target = self.task.scored(outputs, outputs.ndim == 3), self.task.targets(label)
        check_scores(scores, self.task.outputs)
        self.learn(self.answers(trace.inputs[-1]), label)
        return {"loss": Loss("mse").judge(scores, target).metrics["loss"], "overflow": net.overflow(trace)}

    def learn(self, states: Tensor, label: Tensor) -> None:
        """Add what enters the readout, and its targets, to the sums."""
        self.sums.add(states, label)

    def fit(self, net: Network, validation: Iterable[tuple[Tensor, Tensor]]) -> Fit:
        """Fit the last synapse, see `hil.fitting.Fitting`."""
        found = self.sums.fit(net, validation, self.task, self.settings.penalties, self.states)
        return Fit(found.outputs, {"penalty": found.penalty}, {"loss": found.loss})

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, outputs): the readout."""
        return self.answers(self.trace(net, x).outputs[-1])

    def states(self, net: Network, x: Tensor) -> Tensor:
        """Return what enters the readout, (batch, n)."""
        return self.answers(self.trace(net, x).inputs[-1])

    def trace(self, net: Network, x: Tensor) -> Trace:
        """Make one pass of x (batch, features)."""
        net.eval()
        return net.forward(x)

    def answers(self, values: Tensor) -> Tensor:
        """Return what of a pass answers the targets: a row an example."""
        return values

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums."""
        return self.sums.state()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take sums back."""
        self.sums.restore(state)
