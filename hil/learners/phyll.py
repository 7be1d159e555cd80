"""Physical local learning: fixed physical transforms between digital layers, every layer trained on its own contrast.

    z_k    = A_k [ P(h_k) ; h_k ] + c_k,   h_{k+1} = z_k        P(h): measured; by a BesideLinear; or A_k P(h_k) + c_k
    G_k    = cos( phi(z_k), r_k )                               r_k a fixed random direction
    L_k    = mean softplus( -theta ( G_k(positive) - G_k(negative) ) )
    dG/dphi = ( r - G phi / |phi| ) / |phi|,  |r| = 1           predict: the label of most sum_k G_k

Only A_k and c_k are trained. `inner_steps` uses one measurement n times: the layer's weights go n steps down their own loss at
`inner_rate`, on the host, and the way they went, divided by the rate, is the gradient given to the optimiser (with n = 1 the
plain one).  The published program steps Adam inside; this form, which leaves the optimiser to the caller, is our reading.

Source: Momeni et al., Science 382, 1297 (2023), arXiv:2304.11042.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.errors import ContractError
from hil.learners.adfa import Model
from hil.learners.forward_forward import refuse_temporal
from hil.learners.parts.label_slot import candidates, check_slot, claiming, neutral, wrong_labels
from hil.learners.parts.opened import OpenedSynapse
from hil.network import Network, Trace
from hil.settings import Count, Positive, check
from hil.synapses import BesideLinear, channels_of, length_normalised

Phi = Literal["abs", "relu"]


@dataclass(frozen=True)
class PhyLLSettings:
    """[learner] of an experiment.

    Args:
        theta: of the contrast.
        phi: "abs" (waves) or "relu".
        amplitude: of the label in the input.
        normalise: the example, label included, has root mean square 1.
        inner_steps, inner_rate: digital steps per measurement, and their rate.
    """

    theta: Positive = 4.0
    phi: Phi = "abs"
    amplitude: float = 1.0
    normalise: bool = True
    inner_steps: Count = 1
    inner_rate: Positive = 0.1

    def __post_init__(self) -> None:
        check(self, "[learner]")


class PhyLL(nn.Module):
    """Physical local learning: every layer is trained for itself, on the cosine with a random direction.

    Args:
        widths: of the answers of all synapses, 0 for one without weights.
        classes: labels.
        rng: draws the directions.
        settings: as in an experiment.

    The directions are the buffers `direction0`, ... of the state.
    """

    Settings: ClassVar[type[PhyLLSettings]] = PhyLLSettings
    any_outputs: ClassVar[bool] = True  # its scores are a goodness of every class, however wide the last layer is

    def __init__(self, widths: Sequence[int], classes: int, rng: torch.Generator, settings: PhyLLSettings) -> None:
        super().__init__()
        self.classes, self.settings = classes, settings
        self.trained = tuple(number for number, width in enumerate(widths) if width)
        for number in self.trained:
            drawn = torch.randn(widths[number], generator=rng)
            self.register_buffer(f"direction{number}", drawn / drawn.norm())

    @classmethod
    def build(
        cls, net: Network, settings: PhyLLSettings, classes: int, rng: torch.Generator, model: Model | None = None
    ) -> PhyLL:
        """Build it for `net`, of static nodes; needs no model of them.

        Raises:
            ContractError: a temporal network, or nothing to train.
        """
        del model
        refuse_temporal(net)
        widths = [channels_of(layer.synapse) for layer in net.stack]
        if isinstance(net.stack[0].synapse, BesideLinear):
            raise ContractError("the first synapse has no device before it", where="network", got="BesideLinear")
        if not any(widths):
            raise ContractError("no layer has weights", where="network", todo="put an nn.Linear behind a device")
        return cls(widths, classes, rng, settings)

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Positives and negatives in one pass, then every layer on its own; fills every `.grad`.

        Returns:
            "loss" (mean over layers), "accuracy" (share of examples whose summed goodness prefers the true label to the wrong
            one), "overflow", "gap_layer1", ...: G of positives above negatives.
        """
        check_slot(x, self.classes)
        net.train()
        net.zero_grad(set_to_none=True)
        wrong = wrong_labels(label, self.classes, rng)
        amplitude = self.settings.amplitude
        both = torch.cat([claiming(x, label, self.classes, amplitude), claiming(x, wrong, self.classes, amplitude)])
        trace = self._pass(net, both)
        losses, metrics, total = [], {}, torch.zeros(len(x), device=x.device)
        for number in self.trained:
            gap = torch.sub(*self._goodness(number, trace.pre[number]).chunk(2))
            losses.append(float(functional.softplus(-self.settings.theta * gap).mean()))
            metrics[f"gap_layer{number}"] = float(gap.mean())
            total += gap
            self._descend(number, net.stack[number].synapse, trace.inputs[number])
        means = {"loss": sum(losses) / len(losses), "accuracy": float((total > 0).float().mean())}
        return {**means, "overflow": net.overflow(trace), **metrics}

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, classes): summed goodness with every label claimed; `classes` passes an example."""
        check_slot(x, self.classes)
        net.eval()
        trace = self._pass(net, candidates(x, self.classes, self.settings.amplitude))
        goodness = torch.stack([self._goodness(number, trace.pre[number]) for number in self.trained])
        return goodness.sum(0).view(len(x), self.classes)

    @torch.no_grad()
    def trace(self, net: Network, x: Tensor) -> Trace:
        """Make one pass of x, with no label claimed."""
        net.eval()
        return self._pass(net, neutral(x, self.classes, self.settings.amplitude))

    def _pass(self, net: Network, x: Tensor) -> Trace:
        """Do what `Network.forward` does, but a synapse may also read what its device was sent."""
        inputs: list[Tensor] = []
        pre: list[Tensor] = []
        outputs: list[Tensor] = []
        h = length_normalised(x) if self.settings.normalise else x
        for layer in net.stack:
            beside = isinstance(layer.synapse, BesideLinear)
            inputs.append(torch.cat([h, pre[-1]], 1) if beside else h)
            pre.append(layer.synapse(inputs[-1]))
            h = layer.measure(pre[-1])
            outputs.append(h)
        return Trace(tuple(inputs), tuple(pre), tuple(outputs))

    def _phi(self, z: Tensor) -> Tensor:
        return z.abs() if self.settings.phi == "abs" else z.clamp(min=0)

    def _goodness(self, number: int, z: Tensor) -> Tensor:
        """(batch, n) -> (batch,), -1 to 1."""
        y = self._phi(z)
        cosine: Tensor = (y @ self.get_buffer(f"direction{number}")) / (_length(y) + 1e-8).squeeze(1)
        return cosine

    def _delta(self, number: int, z: Tensor) -> Tensor:
        """dL/dz (2 batch, n), positives first."""
        y, r = self._phi(z), self.get_buffer(f"direction{number}")
        length = _length(y) + 1e-8
        goodness = self._goodness(number, z).unsqueeze(1)
        theta, gap = self.settings.theta, torch.sub(*goodness.chunk(2))
        slope = torch.sigmoid(-theta * gap) * (theta / len(gap))
        return torch.cat([-slope, slope]) * (r - goodness * y / length) / length * z.sign() * (y > 0)

    def _descend(self, number: int, synapse: nn.Module, inputs: Tensor) -> None:
        """Fill `.grad` of one synapse: the sum of the gradients along its inner steps. The weights end as they were."""
        params = [param for param in synapse.parameters() if param.requires_grad]
        before = [param.detach().clone() for param in params] if self.settings.inner_steps > 1 else []
        total = [torch.zeros_like(param) for param in params]
        for _ in range(self.settings.inner_steps):
            opened = OpenedSynapse(synapse, inputs)
            synapse.zero_grad(set_to_none=True)
            opened.pull(self._delta(number, opened.pre))
            for param, summed in zip(params, total, strict=True):
                if param.grad is not None:
                    summed += param.grad
            _set(params, [start - self.settings.inner_rate * summed for start, summed in zip(before, total, strict=False)])
        _set(params, before)
        for param, summed in zip(params, total, strict=True):
            param.grad = summed


def _length(y: Tensor) -> Tensor:
    """(batch, n) -> (batch, 1)."""
    return y.square().sum(1, keepdim=True).sqrt()


def _set(params: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Overwrite `params`; no values: leave them."""
    for param, value in zip(params, values, strict=bool(values)):
        param.copy_(value)
