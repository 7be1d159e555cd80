"""SPIDE: implicit differentiation at equilibrium by spikes alone, forwards and backwards, with local updates.

    a, m        stage 1, T_F steps: rates of the forward neurons; m_i = 1 where 0 < a_i < 1
    g           dL/da_{N-1}, from the readout of a_{N-1}; a constant current S g into the last ternary couples
    beta        stage 2, T_B steps: rates of the couples over transposed synapses, spikes gated by m / V
    dL/dF_i     = vjp of F_i at a_{i-1} with  beta_i m_i / (V S_i);    F_x at x, F_N at a_{N-1} with layer 0's

Nothing is differentiated through time or through a device; a layer keeps two rates. The couples round instead of truncating
(modified reset: threshold half of the quantum). F_N, the network's feedback, is left out in a feed-forward structure.

Of a sequence, F_x sees x[t] at every step, and its update the mean of x[t]. Without leak the rates at equilibrium follow that
mean, so sequences that differ in their order alone are not told apart.

Scale: a couple counts at most one spike a step and resolves 1/T_B, so S_i lifts the rates of layer i into that range. "auto"
keeps  sum beta^2 / sum |beta|,  the typical rate of what matters, near `target`, layer by layer; a number is one S for all.
Our reading, where the paper sets S by hand for each data set; S_i are buffers of the state.

Source: Xiao et al., Neural Networks (2023), arXiv:2302.00232.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.device import ArraySpec
from hil.encoding import Encode
from hil.errors import ConfigError, ContractError
from hil.learners.adfa import Model
from hil.learners.parts.equilibrium import Linearised, Settled, adjoint, mean_currents, measured_quantum, settle
from hil.learners.parts.loss import check_scores
from hil.learners.parts.shown import Shown
from hil.network import Layer, Network, Trace, accumulate
from hil.neuron import Leak
from hil.settings import Count, Positive, check
from hil.task import Loss, LossName

HASTE = 0.25  # share of a wrong scale, in its logarithm, that one step corrects
LARGEST_SCALE = 1e8


@dataclass(frozen=True)
class SPIDESettings:
    """[learner] of an experiment.

    Args:
        forward_steps, backward_steps: T_F and T_B.
        scale: S; "auto" follows the measured rates.
        target: of "auto".
        quantum: V of the forward neurons, v_th - v_rest; None: measured before the first step.
        leak: of the forward neurons; below 1, give the quantum too.
        modified_reset: of the couples.
        loss: "cross_entropy" or "mse".
    """

    forward_steps: Count = 30
    backward_steps: Count = 50
    scale: Annotated[float, Field(gt=0, le=LARGEST_SCALE)] | Literal["auto"] = "auto"
    target: Annotated[float, Field(gt=0, lt=1)] = 0.2
    quantum: Positive | None = None
    leak: Leak = 1.0
    modified_reset: bool = True
    loss: LossName = "cross_entropy"

    def __post_init__(self) -> None:
        check(self, "[learner]")
        if self.leak != 1 and self.quantum is None:
            raise ConfigError(
                "leak makes no sense", where="[learner] leak", got=f"{self.leak}", allowed="1, unless quantum is given"
            )


class SPIDE(nn.Module):
    """Training of spiking networks at equilibrium, with the same neurons for both stages.

    Args:
        quanta: V of each, in units of the pre-activation.
        couples: a ternary array, quantum 1, for each hidden layer.
        classes: labels.
        settings: as in an experiment.

    State: the quanta, as measured, and the scales.
    """

    Settings: ClassVar[type[SPIDESettings]] = SPIDESettings
    sequences: ClassVar[bool] = True
    quanta: Tensor
    scales: Tensor

    def __init__(self, couples: Sequence[Layer], quanta: Sequence[float], classes: int, settings: SPIDESettings) -> None:
        super().__init__()
        self.settings, self.classes, self.loss = settings, classes, Loss(settings.loss)
        self._couples = tuple(couples)
        self.register_buffer("quanta", torch.tensor(quanta))
        by_hand = 0.0 if settings.scale == "auto" else float(settings.scale)
        self.register_buffer("scales", torch.full((len(couples),), by_hand))  # 0: not known before the first step

    @classmethod
    def build(
        cls, net: Network, settings: SPIDESettings, classes: int, rng: torch.Generator, model: Model | None = None
    ) -> SPIDE:
        """Build it for `net`: cut its couples from the chip of the network; needs no model of the neurons.

        Raises:
            ContractError: no chip, a hidden layer without neurons, or a synapse that ties the examples of a batch together.
        """
        del rng, model
        hidden = _checked(net)
        v_th, v_rest = (0.5, -0.5) if settings.modified_reset else (1.0, 0.0)
        couples = []
        for layer in hidden:
            assert net.chip is not None  # checked
            assert layer.device is not None
            size = layer.device.spec.outputs.size or 1
            array = net.chip.array(ArraySpec(size, couples=True, v_th=v_th, v_rest=v_rest, leak=1.0))
            couples.append(Layer(nn.Identity(), array, Encode.onto(array.spec.inputs, overflow="clip")))
        quanta = [(settings.quantum or measured_quantum(layer)) / _gain(layer) for layer in hidden]
        return cls(couples, quanta, classes, settings)

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Run both stages, then overwrite every `.grad`.

        Returns:
            "loss", "accuracy", "overflow"; "rate_forward", "rate_backward" (spikes per neuron and step, over all layers), and
            for each layer "rate_forward_layer0", "rate_backward_layer0", "open_layer0" (share of m = 1), "scale_layer0";
            "saturated": share of open couples that fired at every step, whose rate is too small for their current;
            "feedback_share": of a network with feedback, rms of the mean current that comes back over rms of all into layer 0.
        """
        del rng  # nothing random
        net.train()
        settings, hidden = self.settings, net.stack[:-1]
        settled = self._settle(net, x)
        readout = Linearised(net.stack[-1].synapse, settled.rates[-1])
        scores = net.stack[-1].synapse(settled.rates[-1])
        check_scores(scores, self.classes)
        error, metrics = self.loss.judge(scores, label)
        gradient = readout.transposed(error).mul_(len(x))  # of each example's own loss
        self._first_scale(gradient)
        masks = [((a > 0) & (a < 1)).to(a.dtype) for a in settled.rates]
        slopes = [mask / quantum for mask, quantum in zip(masks, self.quanta.tolist(), strict=True)]
        scales = self.scales.tolist()
        gates = [slope * (scales[number - 1] / scales[number]) for number, slope in enumerate(slopes)]
        links = [None if net.feedback is None else Linearised(net.feedback, settled.rates[-1])]
        links += [Linearised(la.synapse, a) for la, a in zip(hidden[1:], settled.rates[:-1], strict=True)]
        found = adjoint(self._couples, links, gates, gradient * scales[-1], settings.backward_steps)

        deltas = [
            (slope * beta).mul_(1 / (scale * len(x)))
            for slope, beta, scale in zip(slopes, found.rates, scales, strict=True)
        ]  # fmt: skip
        net.zero_grad(set_to_none=True)
        entered = self._entered(x)
        accumulate(hidden[0].synapse, entered, deltas[0])
        for link, delta in zip(links, deltas, strict=True):
            if link is not None:
                link.pull(delta)
        readout.pull(error)
        opened = [beta * mask for beta, mask in zip(found.rates, masks, strict=True)]
        if settings.scale == "auto":
            self._follow(opened)
        returned = {} if settled.feedback_share is None else {"feedback_share": settled.feedback_share}
        told = _report(settled, found.firing, masks, opened, scales)
        return {**metrics, "overflow": settled.overflow, **told, **returned}

    def _settle(self, net: Network, x: Tensor) -> Settled:
        return settle(net, x, self.settings.forward_steps, self.settings.leak)

    def _entered(self, x: Tensor) -> Tensor:
        """The mean input, (batch, features), its steps weighing as those of the rates."""
        return Shown(x, self.settings.forward_steps).mean(self.settings.leak)

    def _first_scale(self, gradient: Tensor) -> None:
        if not bool(self.scales.any()):
            self.scales.fill_(self.settings.target / float(_typical(gradient))).clamp_(max=LARGEST_SCALE)

    def _follow(self, rates: Sequence[Tensor]) -> None:
        """Move every scale towards the one that would have given the target."""
        typical = torch.stack([_typical(beta) for beta in rates]).to(self.scales.device)
        self.scales.mul_((self.settings.target / typical).clamp(0.5, 2.0).pow(HASTE)).clamp_(max=LARGEST_SCALE)

    @torch.no_grad()
    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, classes): the readout of the rates of stage 1."""
        net.eval()
        scores: Tensor = net.stack[-1].synapse(self._settle(net, x).rates[-1])
        return scores

    @torch.no_grad()
    def trace(self, net: Network, x: Tensor) -> Trace:
        """Stage 1: `inputs` and `outputs` are rates, `pre` mean currents."""
        net.eval()
        settled = self._settle(net, x)
        scores = net.stack[-1].synapse(settled.rates[-1])
        entered = self._entered(x)
        return Trace((entered, *settled.rates), (*mean_currents(net, entered, settled.rates), scores), (*settled.rates, scores))


def _typical(values: Tensor) -> Tensor:
    """Mean magnitude, weighted by itself; not 0."""
    return (values.square().sum() / values.abs().sum().clamp(min=1e-12)).clamp(min=1e-9)


def _report(
    settled: Settled, firing: Sequence[Tensor], masks: Sequence[Tensor], opened: Sequence[Tensor], scales: Sequence[float]
) -> dict[str, float]:
    forward = [float(a.mean()) for a in settled.rates]
    backward = [float(rate) for rate in firing]
    sizes = [mask.numel() for mask in masks]
    full = sum(float((beta.abs() >= 1).sum()) for beta in opened)
    metrics = {
        "rate_forward": _mean(forward, sizes),
        "rate_backward": _mean(backward, sizes),
        "saturated": full / max(1.0, sum(float(mask.sum()) for mask in masks)),
    }
    for number, mask in enumerate(masks):
        metrics[f"rate_forward_layer{number}"] = forward[number]
        metrics[f"rate_backward_layer{number}"] = backward[number]
        metrics[f"open_layer{number}"] = float(mask.mean())
        metrics[f"scale_layer{number}"] = scales[number]
    return metrics


def _gain(layer: Layer) -> float:
    gain = 1.0 if layer.encode is None else layer.encode.gain
    if isinstance(gain, tuple):
        raise ContractError(
            "SPIDE takes one gain for all neurons", where="[encode] gain", got=f"{len(gain)} numbers", allowed="one number"
        )
    return gain


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def _checked(net: Network) -> tuple[Layer, ...]:
    hidden = net.stack[:-1]
    kinds = {type(module).__name__ for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    faults = (
        (net.chip is None or not net.temporal, "no chip that couples can be cut from", 'chip = "lif" in [device]'),
        (not hidden or any(la.device is None for la in hidden), "a hidden layer without neurons", "neurons in every one"),
        (bool(kinds), f"{', '.join(kinds)} between the neurons", 'norm = "none" in [network]'),
    )
    for wrong, got, allowed in faults:
        if wrong:
            raise ContractError("SPIDE cannot train this network", where="[learner]", got=got, allowed=allowed)
    return hidden
