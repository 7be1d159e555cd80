"""Sequences that claim a label and are judged as wholes, by a goodness that is a mean over the steps behind the washout.

    x[t]  = [ label ; u[t] ]            every step claims the same: amplitude for one class, or amplitude / classes for each
    pre_1[t] = M u[t] + b + E^T label   the mask M of [network], and weights E of the label, drawn uniform from -1 to 1
    G     = mean over t of a goodness of step t

A sequence has few features a step, so the label gets a slot of its own in front of them, and none is covered.

Source of the mean over time: Hinton, arXiv:2212.13345 (2022), his recurrent network, which is shown a still image as a video
and chooses the label by the goodness of iterations 3 to 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.errors import UNTOUCHED, ConfigError, ContractError
from hil.learner import Nodes
from hil.learners.parts.played import Between, between_nodes
from hil.network import Network
from hil.task import Task


@dataclass(frozen=True)
class JudgedWholeSettings(Between):
    """What happens between two sequences; every step behind the washout counts.

    Args:
        between, rest_steps: as in Between.
    """

    def fits(self, task: Task, length: int) -> None:
        """Refuse targets a step.

        Args:
            task: what is learned.
            length: of a sequence, steps.

        Raises:
            ConfigError.
        """
        if task.steps:
            raise ConfigError(
                "this learner judges a sequence as a whole", where="[learner]", got="a target a step", outputs=UNTOUCHED,
                allowed=f"one class a sequence of {length} steps", todo='write use = "reservoir" in [learner]',
            )  # fmt: skip


class Labelled(nn.Linear):
    """A mask that takes a label besides: u (…, features) as before, or with the slot in front (…, classes + features).

    Args:
        mask: whose weights it has.
        label: E (classes, out_features).
    """

    def __init__(self, mask: nn.Linear, label: Tensor) -> None:
        super().__init__(mask.in_features, mask.out_features, mask.bias is not None)
        self.weight, self.bias = mask.weight, mask.bias
        self.label = nn.Parameter(label.to(mask.weight), mask.weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the nodes are sent, (…, out_features)."""
        sent = functional.linear(x[..., -self.in_features :], self.weight, self.bias)
        return sent if x.shape[-1] == self.in_features else sent + x[..., : -self.in_features] @ self.label


class JudgedWhole:
    """What such learners have in common."""

    nodes: ClassVar[Nodes] = "memory"
    sequences: ClassVar[str] = "whole"
    needs_classes: ClassVar[bool] = True

    @staticmethod
    def widened(
        synapses: Sequence[nn.Module], settings: JudgedWholeSettings, outputs: int, rng: torch.Generator
    ) -> Sequence[nn.Module]:
        """Return the synapses with a mask that takes a label.

        Args:
            synapses: of a network, the mask first.
            settings: not used.
            outputs: classes.
            rng: draws E.

        Raises:
            ContractError: they are not all linear, or the mask was made for other classes.
        """
        del settings
        first = synapses[0]
        if not all(isinstance(synapse, nn.Linear) for synapse in synapses):
            raise ContractError(
                "this learner trains linear synapses", where="network", got="another synapse", allowed="nn.Linear everywhere",
                todo='write use = "masks" in [network]',
            )  # fmt: skip
        assert isinstance(first, nn.Linear)  # looked at above
        if not isinstance(first, Labelled):
            return [Labelled(first, torch.rand(outputs, first.out_features, generator=rng) * 2 - 1), *synapses[1:]]
        if len(first.label) != outputs:
            raise ContractError(
                "the mask of this network was made for other classes", where="network, first layer", todo="make a new network",
                got=f"{len(first.label)}", allowed=f"{outputs}",
            )  # fmt: skip
        return synapses

    @classmethod
    def labelled(cls, net: Network, settings: JudgedWholeSettings, classes: int, rng: torch.Generator) -> None:
        """Let the mask of `net` take a label, if it does not yet.

        Args:
            net: whose nodes have memory.
            settings: not used.
            classes: labels.
            rng: draws E.

        Raises:
            ContractError: a node without memory, a hidden layer without a node, or as of `widened`.
        """
        between_nodes(net)
        first = cls.widened([layer.synapse for layer in net.stack], settings, classes, rng)[0]
        net.stack[0].synapse = first.to(net.place)


def slotted(x: Tensor, classes: int) -> Tensor:
    """(batch, time, features) -> (batch, time, classes + features), an empty slot in front.

    Raises:
        ContractError: no axis of time.
    """
    if x.ndim != 3:
        raise ContractError(
            "a node with memory is shown sequences", where="network", got=f"shape {tuple(x.shape)}",
            allowed="(batch, time, features)", todo="write sequence = true in [data]",
        )  # fmt: skip
    return torch.cat((x.new_zeros(*x.shape[:-1], classes), x), -1)
