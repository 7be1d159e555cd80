"""A reservoir: what a node with memory answers is read by a linear readout, fitted in closed form; nothing else is learned.

    r[t]     what the node answers in step t of a sequence: it depends on the input u[t] and on the past
    y[t]   = W r[t] + b            W, b: ridge regression over all steps behind the washout, from running sums

The first synapse is the mask; the hidden layers are drawn once, and stay. The penalty is chosen on the validation split. With
`forget` below 1, sums fade from batch to batch: least squares in blocks, for a node that drifts.

Sources: Jaeger and Haas, Science 304, 78 (2004); Appeltant et al., Nat. Commun. 2, 468 (2011), one node with delay; Hoerl and
Kennard, Technometrics 12, 55 (1970), the penalty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hil.fitting import Fit
from hil.learner import Nodes
from hil.learners.parts.played import Between, played, with_memory
from hil.learners.parts.ridge_sums import PENALTIES, RidgeSums, readout, wanted
from hil.network import Network, Trace
from hil.settings import Positive
from hil.task import Task, as_task


@dataclass(frozen=True)
class ReservoirSettings(Between):
    """[learner] of an experiment.

    Args:
        between: the state of the node between two sequences: "reset", "rest" or "carry".
        rest_steps: steps at rest before a sequence, of "rest".
        penalties: that are tried, in units of the mean variance of a state.
        forget: factor on what is known, before each batch; 1 forgets nothing.
    """

    penalties: tuple[Positive, ...] = PENALTIES
    forget: Annotated[float, Field(gt=0, le=1)] = 1.0


class Reservoir:
    """A readout in closed form over the states of a node with memory. Its state are the sums.

    Args:
        features: width of what enters the last synapse.
        task: what is learned.
        settings: of an experiment.
    """

    Settings: ClassVar[type[ReservoirSettings]] = ReservoirSettings
    epochs: ClassVar[int] = 1  # where nothing else is asked for
    nodes: ClassVar[Nodes] = "memory"
    sequences: ClassVar[str] = "steps"

    def __init__(self, features: int, task: Task, settings: ReservoirSettings) -> None:
        self.task, self.settings, self.sums = task, settings, RidgeSums(features, task.outputs)

    @classmethod
    def build(
        cls, net: Network, settings: ReservoirSettings, task: Task | int, rng: torch.Generator, model: object | None = None
    ) -> Reservoir:
        """Build it for `net`, all of whose synapses are frozen; needs no model of the node.

        Raises:
            ContractError: a node without memory, or a last synapse that is not linear.
        """
        del rng, model
        with_memory(net)
        net.requires_grad_(False)
        return cls(readout(net).in_features, as_task(task), settings)

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Play sequences x (batch, time, features), and add their states to the sums.

        Args:
            net: the network.
            x: the sequences.
            label: targets (batch, time, k), or of classes (batch, time).
            rng: not used; nothing is random.

        Returns:
            "loss" (squared, of the readout as it is now, behind the washout) and "overflow".
        """
        del rng
        trace = self.trace(net, x)
        states, target = (self.task.scored(part) for part in (trace.inputs[-1].transpose(0, 1), label))
        outputs = self.task.scored(trace.outputs[-1].transpose(0, 1))
        self.sums.fade(self.settings.forget)
        self.sums.add(states, target)
        error = outputs - wanted(target, self.task.outputs)
        return {"loss": 0.5 * float(error.square().sum(1).mean()), "overflow": net.overflow(trace)}

    def fit(self, net: Network, validation: Iterable[tuple[Tensor, Tensor]]) -> Fit:
        """Fit the last synapse, see `hil.fitting.Fitting`."""
        found = self.sums.fit(net, validation, self.task, self.settings.penalties, self.states)
        return Fit(found.outputs, {"penalty": found.penalty}, {"loss": found.loss})

    def states(self, net: Network, x: Tensor) -> Tensor:
        """Return what enters the readout, (batch, time, n)."""
        return self.trace(net, x).inputs[-1].transpose(0, 1)

    def trace(self, net: Network, x: Tensor) -> Trace:
        """Play sequences x (batch, time, features): a Trace of (time, batch, n)."""
        net.eval()
        return played(net, x, self.settings)

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, time, features) -> (batch, time, outputs), the washout included."""
        return self.trace(net, x).outputs[-1].transpose(0, 1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums."""
        return self.sums.state()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take sums back."""
        self.sums.restore(state)
