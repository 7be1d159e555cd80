"""A reservoir: what a node with memory answers is read by a linear readout, fitted in closed form; nothing else is learned.

    r[t]     what the node answers in step t of a sequence: it depends on the input u[t] and on the past
    h[t]   = [ r_j[t - lag - late_j] ]          for all nodes j and all `lags`; late_j drawn from 0 to `late`
    y[t]   = W h[t] + b                         one target a step; or one a sequence: of the last h, or of its mean over time

The first synapse is the mask; the hidden layers are drawn once, and stay. All steps behind the washout count. The solver is

    "ridge"        ridge regression from running sums; the penalty is chosen on the validation split. With `forget` below 1,
                   sums fade from batch to batch: least squares in blocks, for a node that drifts.
    "recursive"    recursive least squares: the readout moves with every step of time, in the order of time, and `forget`
                   acts from step to step (hil/learners/parts/recursive.py)

Lags make a readout wider without more nodes, and give it a memory that the node has not; late nodes do so at the same width.

Sources: Jaeger and Haas, Science 304, 78 (2004); Appeltant et al., Nat. Commun. 2, 468 (2011), one node with delay; Sakemi,
Morino, Leleu and Aihara, Sci. Rep. 10, 21794 (2020), lags; Del Frate, Shirin and Sorrentino, Chaos 31, 121103 (2021), late
nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.errors import UNTOUCHED, ConfigError, ContractError
from hil.learner import Nodes
from hil.learners.parts.played import Playing, played, with_memory
from hil.learners.parts.recursive import Recursive
from hil.learners.parts.ridge_sums import RidgeSums, readout
from hil.learners.ridge import Ridge, RidgeSettings
from hil.network import Network, Trace
from hil.settings import Natural
from hil.synapses import LateLinear
from hil.task import Task, as_task


@dataclass(frozen=True)
class ReservoirSettings(Playing, RidgeSettings):
    """[learner] of an experiment.

    Args:
        between: the state of the node between two sequences: "reset", "rest" or "carry".
        rest_steps: steps at rest before a sequence, of "rest".
        answer: of data with one target a sequence: that of the "last" step, or the "mean" over the steps behind the washout;
            left out: "last".
        penalties: that are tried, in units of the mean variance of a state; of "recursive" the one that it begins with.
        forget: factor on what is known, before each batch; of "recursive" before each step. 1 forgets nothing.
        lags: steps back that the readout sees besides or in place of the present one, 0.
        late: each node is read so many steps late, drawn for it from 0 to this.
        solver: "ridge" or "recursive".
    """

    forget: Annotated[float, Field(gt=0, le=1)] = 1.0
    lags: Annotated[tuple[Natural, ...], Field(min_length=1)] = (0,)
    late: Natural = 0
    solver: Literal["ridge", "recursive"] = "ridge"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.lags)) < len(self.lags):
            raise ConfigError(
                "a lag stands twice", where="[learner] lags", got=str(list(self.lags)), allowed="different whole numbers",
                outputs=UNTOUCHED, todo="correct the list",
            )  # fmt: skip
        if self.solver == "recursive" and len(self.penalties) != 1:
            raise ConfigError(
                "recursive least squares begins with one penalty", where="[learner] penalties", got=f"{len(self.penalties)}",
                allowed="one", outputs=UNTOUCHED, todo="write penalties = [1e-6], or another one",
            )  # fmt: skip

    @property
    def oldest(self) -> int:
        """Steps back that the readout sees."""
        return max(self.lags) + self.late

    def fits(self, task: Task, length: int) -> None:
        """Refuse a readout that would see steps before the sequence. Arguments and errors as of Playing."""
        super().fits(task, length)
        last = not task.steps and self.answer != "mean"
        most = length - 1 if last else task.washout
        if self.oldest > most:
            raise ConfigError(
                "the readout would see steps before the sequence", where="[learner] lags", outputs=UNTOUCHED,
                got=f"{self.oldest} steps back", allowed=f"up to {most}, {'the length less one' if last else 'the washout'}",
                todo="make lags or late smaller" if last else f"write washout = {self.oldest} in [task], or more",
            )  # fmt: skip


class Reservoir(Ridge[ReservoirSettings]):
    """A readout in closed form over the states of a node with memory. Its state are the sums, or what the recursion knows.

    Args:
        features: width of what enters the last synapse.
        task: what is learned.
        settings: of an experiment.
        bias: the readout has one.
    """

    Settings: ClassVar[type[ReservoirSettings]] = ReservoirSettings
    nodes: ClassVar[Nodes] = "memory"
    sequences: ClassVar[str] = "whole"

    def __init__(self, features: int, task: Task, settings: ReservoirSettings, bias: bool = True) -> None:
        super().__init__(features, task, settings)
        if settings.solver == "recursive":
            self.sums = Recursive(features, task.outputs, bias, settings.penalties[0], settings.forget)

    @classmethod
    def build(
        cls, net: Network, settings: ReservoirSettings, task: Task | int, rng: torch.Generator, model: object | None = None
    ) -> Self:
        """Build it for `net`, all of whose synapses are frozen; needs no model of the node. With lags the readout gets wider.

        Raises:
            ContractError: a node without memory, or a last synapse that is not linear.
        """
        del model
        with_memory(net)
        asked = as_task(task)
        net.stack[-1].synapse = cls.widened([readout(net)], settings, asked.outputs, rng)[-1].to(net.place)
        last = readout(net)
        net.requires_grad_(False)
        return cls(last.in_features, asked, settings, last.bias is not None)

    @staticmethod
    def widened(
        synapses: Sequence[nn.Module], settings: ReservoirSettings, outputs: int, rng: torch.Generator
    ) -> Sequence[nn.Module]:
        """Return the synapses with a readout that sees what the settings ask for: the last, or a wider one of zeros.

        Raises:
            ContractError: it was made for other lags before.
        """
        del outputs
        last = synapses[-1]
        if isinstance(last, LateLinear):
            if last.lags == tuple(settings.lags) and int(last.late.max()) <= settings.late:
                return synapses
            raise ContractError(
                "the readout of this network sees other steps", where="network, last layer", allowed="the lags it was made for",
                got=f"lags {list(last.lags)}, late {int(last.late.max())}", todo="make a new network",
            )  # fmt: skip
        if not settings.oldest or not isinstance(last, nn.Linear):
            return synapses
        late = torch.randint(0, settings.late + 1, (last.in_features,), generator=rng)
        wide = LateLinear(last.in_features, last.out_features, settings.lags, late, last.bias is not None)
        for param in wide.parameters():
            nn.init.zeros_(param)
        return [*synapses[:-1], wide]

    def learn(self, states: Tensor, label: Tensor) -> None:
        """Add states and targets behind the washout."""
        if isinstance(self.sums, RidgeSums):
            self.sums.fade(self.settings.forget)
        behind = self.task.washout if self.task.steps else 0
        self.sums.add(states[:, behind:] if behind else states, label[:, behind:] if behind else label)

    def trace(self, net: Network, x: Tensor) -> Trace:
        """Play sequences x (batch, time, features): a Trace of (time, batch, n)."""
        net.eval()
        return played(net, x, self.settings)

    def answers(self, values: Tensor) -> Tensor:
        """(time, batch, n) -> (batch, time, n), the washout included; of one target a sequence (batch, n)."""
        return self.settings.answers(values.transpose(0, 1), self.task)
