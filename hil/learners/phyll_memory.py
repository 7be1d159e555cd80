"""Physical local learning of sequences: nodes with memory are fixed transforms in time between layers that learn by themselves.

    pre_1[t] = M u[t] + b + E^T label                  the mask M, and one of its own for the label that is claimed: both stay
    z_k[t]   = A_k P(h_k)[t] + c_k,   h_{k+1} = z_k    P(h)[t]: measured, by all of h up to t
    G_k      = mean over t > washout of cos( phi(z_k[t]), r_k )          r_k a fixed random direction
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

from hil.learners.adfa import Model
from hil.learners.parts.judged_whole import JudgedWhole, JudgedWholeSettings, slotted
from hil.learners.parts.label_slot import candidates, claiming, neutral, wrong_labels
from hil.learners.parts.opened import OpenedSynapse
from hil.learners.parts.played import played
from hil.learners.phyll import Phi
from hil.network import Network, Trace
from hil.settings import Positive
from hil.synapses import channels_of
from hil.task import Task, as_task


@dataclass(frozen=True)
class PhyLLMemorySettings(JudgedWholeSettings):
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


class PhyLLMemory(JudgedWhole, nn.Module):
    """Physical local learning over nodes with memory: every layer behind one is trained for itself.

    Args:
        widths: of the answers of all synapses, the mask first.
        task: what is learned.
        rng: draws the directions.
        settings: as in an experiment.

    The directions are the buffers `direction1`, ... of the state.
    """

    Settings: ClassVar[type[PhyLLMemorySettings]] = PhyLLMemorySettings
    any_outputs: ClassVar[bool] = True  # its scores are a goodness of every class, however wide the last layer is

    def __init__(self, widths: Sequence[int], task: Task, rng: torch.Generator, settings: PhyLLMemorySettings) -> None:
        super().__init__()
        self.classes, self.washout, self.settings = task.outputs, task.washout, settings
        self.trained = range(1, len(widths))
        for number in self.trained:
            drawn = torch.randn(widths[number], generator=rng)
            self.register_buffer(f"direction{number}", drawn / drawn.norm())

    @classmethod
    def build(
        cls, net: Network, settings: PhyLLMemorySettings, task: Task | int, rng: torch.Generator, model: Model | None = None
    ) -> PhyLLMemory:
        """Build it for `net`, whose first synapse is the mask; needs no model of the nodes.

        Raises:
            ContractError: a node without memory, a hidden layer without one, or synapses that are not linear.
        """
        del model
        asked = as_task(task)
        cls.labelled(net, settings, asked.outputs, rng)
        net.stack[0].synapse.requires_grad_(False)
        return cls([channels_of(layer.synapse) for layer in net.stack], asked, rng, settings)

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
        slot = slotted(x, self.classes)
        both = [claiming(slot, said, self.classes, self.settings.amplitude) for said in (label, wrong)]
        trace = played(net, torch.cat(both), self.settings)
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
        every = candidates(slotted(x, self.classes), self.classes, self.settings.amplitude)
        trace = played(net, every, self.settings)
        goodness = sum((self._goodness(number, trace.pre[number]) for number in self.trained), torch.zeros((), device=x.device))
        return goodness.view(len(x), self.classes)

    @torch.no_grad()
    def trace(self, net: Network, x: Tensor) -> Trace:
        """Play x with no label claimed: a Trace of (time, batch, n)."""
        net.eval()
        return played(net, neutral(slotted(x, self.classes), self.classes, self.settings.amplitude), self.settings)

    def _goodness(self, number: int, z: Tensor) -> Tensor:
        """(time, batch, n) -> (batch,), -1 to 1."""
        y = z.abs() if self.settings.phi == "abs" else z.clamp(min=0)
        cosine: Tensor = (y @ self.get_buffer(f"direction{number}")) / (y.square().sum(2) + 1e-12).sqrt()
        return cosine[self.washout :].mean(0)
