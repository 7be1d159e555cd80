"""Physical local learning of sequences: nodes with memory are fixed transforms in time between layers that learn by themselves.

    pre_1[t] = M u[t] + b + amplitude E c              the mask M, and one of its own for the label c that is claimed: both stay
    z_k[t]   = A_k P(h_k)[t] + c_k,   h_{k+1} = z_k    P(h)[t]: measured, by all of h up to t
    G_k      = mean_t cos( phi(z_k[t]), r_k )          r_k a fixed random direction
    L_k      = mean softplus( -theta ( G_k(positive) - G_k(negative) ) )
    predict:   the label of most sum_k G_k; one pass of the sequence for each class

Only A_k and c_k are trained. What the node did in the past is in P(h), and no gradient passes through it, so the rule is exact:
nothing of its memory has to be known, and nothing is dropped.

Source: Momeni et al., Science 382, 1297 (2023), of static nodes. The mean over time, and the mask of the label, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.errors import UNTOUCHED, ConfigError, ContractError
from hil.learner import Nodes
from hil.learners.adfa import Model
from hil.learners.parts.label_slot import wrong_labels
from hil.learners.parts.opened import OpenedSynapse
from hil.learners.parts.played import Between, played, with_memory
from hil.learners.phyll import Phi
from hil.network import Network, Trace
from hil.settings import Positive
from hil.synapses import channels_of
from hil.task import Task


@dataclass(frozen=True)
class PhyLLMemorySettings(Between):
    """[learner] of an experiment.

    Args:
        between: the state of the node between two sequences: "reset", "rest" or "carry".
        rest_steps: steps at rest before a sequence, of "rest".
        theta: of the contrast.
        phi: "abs" (waves) or "relu".
        amplitude: of the label at the first node, in units of a pre-activation.
    """

    theta: Positive = 4.0
    phi: Phi = "abs"
    amplitude: float = 1.0

    def fits(self, task: Task, length: int) -> None:
        """Refuse targets a step, and a washout: the goodness of a sequence is a mean over all its steps.

        Args:
            task: what is learned.
            length: of a sequence, steps.

        Raises:
            ConfigError.
        """
        if task.steps or task.washout:
            raise ConfigError(
                "this learner judges a sequence as a whole", where="[learner] phyll_memory", outputs=UNTOUCHED,
                got="a target a step" if task.steps else f"washout = {task.washout}",
                allowed=f"one class a sequence, all its {length} steps",
                todo='write use = "reservoir" in [learner]' if task.steps else "leave washout out",
            )  # fmt: skip


class Labelled(nn.Linear):
    """A mask that takes a label besides: u (..., features), or u and the claimed share of each class (..., features + classes).

    Args:
        mask: whose weights it has.
        label: E (classes, out_features).
    """

    label: Tensor

    def __init__(self, mask: nn.Linear, label: Tensor) -> None:
        super().__init__(mask.in_features, mask.out_features, mask.bias is not None)
        self.weight, self.bias = mask.weight, mask.bias
        self.register_buffer("label", label, persistent=False)  # it is in the state of the learner

    def forward(self, x: Tensor) -> Tensor:
        """(batch, features) or (batch, features + classes) -> (batch, out_features)."""
        sent = functional.linear(x[..., : self.in_features], self.weight, self.bias)
        return sent if x.shape[-1] == self.in_features else sent + x[..., self.in_features :] @ self.label


class PhyLLMemory(nn.Module):
    """Physical local learning over nodes with memory: every layer behind one is trained for itself.

    Args:
        widths: of the answers of all synapses, the mask first.
        classes: labels.
        rng: draws the mask of the label and the directions.
        settings: as in an experiment.

    State: `label`, and the directions `direction1`, ...
    """

    Settings: ClassVar[type[PhyLLMemorySettings]] = PhyLLMemorySettings
    any_outputs: ClassVar[bool] = True  # its scores are a goodness of every class, however wide the last layer is
    nodes: ClassVar[Nodes] = "memory"
    sequences: ClassVar[str] = "whole"
    label: Tensor

    def __init__(self, widths: Sequence[int], classes: int, rng: torch.Generator, settings: PhyLLMemorySettings) -> None:
        super().__init__()
        self.classes, self.settings, self.trained = classes, settings, range(1, len(widths))
        self.register_buffer("label", torch.rand(classes, widths[0], generator=rng) * 2 - 1)
        for number in self.trained:
            drawn = torch.randn(widths[number], generator=rng)
            self.register_buffer(f"direction{number}", drawn / drawn.norm())

    @classmethod
    def build(
        cls, net: Network, settings: PhyLLMemorySettings, classes: int, rng: torch.Generator, model: Model | None = None
    ) -> PhyLLMemory:
        """Build it for `net`, whose first synapse is the mask; needs no model of the nodes.

        Raises:
            ContractError: a node without memory, synapses that are not linear, or a hidden layer without a node.
        """
        del model
        with_memory(net)
        plain = [layer for layer in net.stack if isinstance(layer.synapse, nn.Linear)]
        bare = [number for number, layer in enumerate(net.stack[:-1]) if layer.device is None]
        if len(plain) < len(net.stack) or bare:
            raise ContractError(
                "this learner trains linear synapses between nodes", where="network", got="another synapse, or no node",
                allowed="nn.Linear everywhere, a node behind each but the last", todo='write use = "masks" in [network]',
            )  # fmt: skip
        made = cls([channels_of(layer.synapse) for layer in net.stack], classes, rng, settings)
        first = net.stack[0]
        assert isinstance(first.synapse, nn.Linear)  # looked at above
        first.synapse = Labelled(first.synapse, made.label).to(net.place).requires_grad_(False)
        return made

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Play positives and negatives, then train every layer on its own; fills every `.grad`.

        Args:
            net: the network.
            x: sequences (batch, time, features).
            label: (batch,).
            rng: draws the wrong labels.

        Returns:
            "loss" (mean over layers), "accuracy" (share of sequences whose summed goodness prefers the true label to the wrong
            one), "overflow", "gap_layer1", ...: G of positives above negatives.
        """
        net.train()
        net.zero_grad(set_to_none=True)
        wrong = wrong_labels(label, self.classes, rng)
        trace = self._claiming(net, torch.cat([x, x]), functional.one_hot(torch.cat([label, wrong]), self.classes))
        losses, metrics, total = [], {}, torch.zeros(len(x), device=x.device)
        for number in self.trained:
            opened = OpenedSynapse(net.stack[number].synapse, trace.inputs[number].flatten(0, 1))
            with torch.enable_grad():
                z = trace.pre[number].detach().requires_grad_(True)
                gap = torch.sub(*self._goodness(number, z).chunk(2))
                loss = functional.softplus(-self.settings.theta * gap).mean()
            opened.pull(torch.autograd.grad(loss, z)[0].flatten(0, 1))
            losses.append(float(loss))
            metrics[f"gap_layer{number}"] = float(gap.mean())
            total += gap.detach()
        means = {"loss": sum(losses) / len(losses), "accuracy": float((total > 0).float().mean())}
        return {**means, "overflow": net.overflow(trace), **metrics}

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, time, features) -> (batch, classes): summed goodness with every label claimed; `classes` passes each."""
        net.eval()
        every = torch.eye(self.classes, device=x.device).repeat(len(x), 1)
        trace = self._claiming(net, x.repeat_interleave(self.classes, 0), every)
        goodness = sum((self._goodness(number, trace.pre[number]) for number in self.trained), torch.zeros((), device=x.device))
        return goodness.view(len(x), self.classes)

    @torch.no_grad()
    def trace(self, net: Network, x: Tensor) -> Trace:
        """Play x with no label claimed: a Trace of (time, batch, n)."""
        net.eval()
        return self._claiming(net, x, torch.full((len(x), self.classes), 1 / self.classes, device=x.device))

    def _claiming(self, net: Network, x: Tensor, claimed: Tensor) -> Trace:
        """Play x (batch, time, features) with shares of the classes claimed, (batch, classes)."""
        said = (self.settings.amplitude * claimed.to(x)).unsqueeze(1).expand(-1, x.shape[1], -1)
        return played(net, torch.cat((x, said), 2), self.settings)

    def _goodness(self, number: int, z: Tensor) -> Tensor:
        """(time, batch, n) -> (batch,), -1 to 1."""
        y = z.abs() if self.settings.phi == "abs" else z.clamp(min=0)
        cosine: Tensor = (y @ self.get_buffer(f"direction{number}")) / (y.square().sum(2) + 1e-12).sqrt()
        return cosine.mean(0)
