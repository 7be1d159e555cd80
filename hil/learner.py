"""The Learner contract: how a Trace becomes a direction.

A learner runs the network forwards as often as it likes, fills `.grad` of the synapses' parameters, and returns numbers to
report. It never steps an optimiser, never sees what answered, and draws every random number from the generator it is given.
Its own fixed or adaptive tensors (feedback matrices, running statistics) are buffers in `state_dict`, so that a checkpoint
holds them.

Its class is made by `build(net, settings, task, rng, model)`. `task` (hil/task.py) says what the targets are, how many outputs
they need and which loss is lowered. A class whose `build` calls that argument `classes` is given their number, and needs
classes: for other targets it is refused before anything is opened. So is one that says `needs_classes = True`, and
takes a task.

A network has as many outputs as the task. A learner whose class says `any_outputs = True` takes more (a code of a population, a
goodness), and makes one score a class of them in `predict`. One that fits weights in closed form is `Fitting` (hil/fitting.py).

A class may have `widened(synapses, settings, outputs, rng)`, which gives the synapses in place of those of [network].

A learner whose class says `sequences = True` takes sequences as they are, x (batch, time, features), with one target each,
and `sequences = "whole"` with one target each or a target a step, as its task says; one that says False refuses them. For all
others hil makes flat examples of them (hil/build/task.py). Settings of a "whole" one may refuse a task before anything is
opened: `fits(task, length)`, the length of a sequence in steps. `nodes` says what it drives: "static", "spiking", or "memory"
for analog nodes whose state lasts.

What is programmed on a device stands among the parameters of the network, as the weights of the synapses do. A learner whose
class says `programs` trains it: "losses", from losses at other parameters; "model", by a model (drive, levels) -> reading. Its
settings may say it in place of the class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from hil.network import Network, Trace

Nodes = Literal["static", "spiking", "memory"]
Programs = Literal["losses", "model"]


def drives(rule: Any, options: Any) -> Nodes:
    """Return the kind of nodes that a rule drives: what its class says, or else what its settings show.

    Args:
        rule: its class.
        options: its settings; a time axis among them is that of a spiking network.
    """
    timed = hasattr(options, "time_steps") or hasattr(options, "forward_steps")
    found: Nodes = getattr(rule, "nodes", "spiking" if timed else "static")
    return found


def programs(rule: Any, options: Any) -> Programs | None:
    """Return by what a rule trains what is programmed on a device; None: it does not.

    Args:
        rule: its class.
        options: its settings.
    """
    found: Programs | None = getattr(options, "programs", None) or getattr(rule, "programs", None)
    return found


def params_step(options: Any) -> float | None:
    """Return by how much a rule moves what is programmed on a device to learn from it; None: its settings do not say.

    Args:
        options: its settings; `params_size`, or else the `size` of all that it moves.
    """
    found: float | None = getattr(options, "params_size", None) or getattr(options, "size", None)
    return found


class Learner(Protocol):
    """A rule that turns a pass through the network into a direction for its weights."""

    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Train on one batch: fill `.grad` of every trained parameter; what stood there before is overwritten.

        Args:
            net: the network that is trained.
            x: (batch, features); of sequences (batch, time, features), see above.
            label: (batch,), int64; of numbers (batch, outputs), float32.
            rng: for all that it draws.

        Returns:
            at least "loss"; also "accuracy" and "overflow" (shares, 0 to 1) where they cost no extra pass.
        """

    def predict(self, net: Network, x: Tensor) -> Tensor:
        """Answer x: (batch, features) -> (batch, outputs); of classes scores, larger is likelier. Draws no random number."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs, by name: tensors and JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take a state back; what it returns is ignored."""


@runtime_checkable
class Selecting(Learner, Protocol):
    """A learner with several readouts. What it chose is in its state."""

    def select(self, net: Network, x: Tensor, label: Tensor) -> Mapping[str, float]:
        """Choose, on the validation split, the readout that `predict` uses from now on.

        Args:
            net: the network that is trained.
            x: (examples, features), all of them.
            label: (examples,).

        Returns:
            the accuracy of every readout, "accuracy_" and its name.
        """


@runtime_checkable
class Tracing(Learner, Protocol):
    """A learner that does not drive the devices as `Network.forward` does."""

    def trace(self, net: Network, x: Tensor) -> Trace:
        """Make one pass of x (batch, features) as `predict` makes it; pre is what was sent to the devices."""


@runtime_checkable
class Online(Learner, Protocol):
    """A learner that may want several moves of the optimiser a batch, while time goes on in the devices."""

    def updates(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Iterator[Mapping[str, float]]:
        """Train as `step` does, but let the optimiser move each time this yields; the last metrics are those of the batch."""
