"""What a learner believes of the neurons: enough to follow their membranes from currents it sent and spikes it measured.

    v[t] as in hil/neuron.py, from I sent and s measured
    H'(u) ~ a sigma(a u) ( 1 - sigma(a u) )      a = 4; only `spikes`, for learning on a model, uses this

What the chip says of its neurons is believed, unless [learner] says otherwise. A wrong lam or V misplaces v a little; because
each reset follows the spike that was measured, the error fades with lam and does not grow with time.

Source: Xiao et al., OTTT, NeurIPS 2022 (neuron, surrogate); Zhang et al., arXiv:2409.07776 (soft reset).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hil.errors import UNTOUCHED, ContractError
from hil.network import Network
from hil.neuron import Leak, NeuronModel
from hil.settings import Positive, check

SHARPNESS = 4.0


@dataclass(frozen=True)
class Belief:
    """Settings of a learner that follows the membranes.

    Args:
        leak: lam, kept of the membrane per step; None: as the chip says, or 0.5 where it says nothing.
        v_th: threshold, in the unit of the current; None: as the chip says, or 1.
        v_rest: level that the reset aims at; None: as the chip says, or 0.
    """

    leak: Leak | None = None
    v_th: Positive | None = None
    v_rest: float | None = None

    def __post_init__(self) -> None:
        check(self, "[learner]")
        if None not in (self.v_th, self.v_rest):
            self.over(NeuronModel())

    def over(self, neuron: NeuronModel) -> NeuronModel:
        """Return `neuron` with what is set here in its place. Raises: ConfigError: that makes no neuron."""
        found: dict[str, Any] = {"leak": self.leak, "v_th": self.v_th, "v_rest": self.v_rest}
        return replace(neuron, **{name: value for name, value in found.items() if value is not None})


def believed(net: Network, settings: Belief) -> NeuronModel:
    """Return the model of the neurons of `net`: what the chip says, with what `settings` says in its place.

    Raises:
        ContractError: the hidden layers have different neurons.
        ConfigError: values that make no neuron.
    """
    said = list(dict.fromkeys(told(net)))
    if len(said) > 1:
        raise ContractError(
            "the hidden layers have different neurons", where="network", got="; ".join(str(one.table()) for one in said),
            allowed="the same neurons in every layer", outputs=UNTOUCHED, todo="take them from one chip",
        )  # fmt: skip
    return settings.over(said[0] if said else NeuronModel())


def told(net: Network) -> list[NeuronModel]:
    """Return what the devices of `net` say of their neurons, layer by layer, as far as they say it."""
    found = [None if layer.device is None else layer.device.spec.neurons for layer in net.stack[:-1]]
    return [one for one in found if one is not None]


class Membrane:
    """The membranes of a layer, followed from what was sent and measured. All tensors (batch, n), 0 before the first step.

    Args:
        neuron: what is believed.
    """

    def __init__(self, neuron: NeuronModel) -> None:
        self.neuron = neuron
        self.v = self.fired = torch.zeros(())
        self._wait = torch.zeros(())

    def advance(self, current: Tensor, spikes: Tensor) -> Tensor:
        """Go on by a step of time: I[t] sent, s[t] measured or modelled. Return v[t], before its reset."""
        self.v = self.before(current)
        self.settle(spikes)
        return self.v

    def before(self, current: Tensor) -> Tensor:
        """Return v[t] of a current I[t], before its reset; the state stays."""
        neuron = self.neuron
        if self.v.ndim == 0:
            self.v = self.fired = self._wait = torch.zeros_like(current)
        if neuron.reset == "soft":
            held = torch.add(self.v, self.fired, alpha=-neuron.quantum)
        else:
            held = torch.addcmul(self.v, self.v, self.fired, value=-1).add_(self.fired, alpha=neuron.v_rest)
        return held.mul_(neuron.leak).add_(current * self.awake if neuron.refractory else current)

    def settle(self, spikes: Tensor) -> None:
        """Take the spikes s[t] of the step."""
        self.fired = spikes
        if self.neuron.refractory:
            self._wait = (self._wait - 1).clamp(min=0) + self.neuron.refractory * spikes.detach()

    @property
    def awake(self) -> Tensor:
        """1 where a neuron takes input and can fire, 0 while it is refractory."""
        return (self._wait <= 0).float()


def modelled(neuron: NeuronModel, currents: Tensor, sharpness: float = SHARPNESS) -> Tensor:
    """(time, batch, n) -> spikes from rest, differentiable through time, the reset included."""
    membrane, answer = Membrane(neuron), []
    for current in currents:
        membrane.v = membrane.before(current)
        spikes = fired(membrane.v - neuron.v_th, sharpness)
        spikes = spikes * membrane.awake if neuron.refractory else spikes
        membrane.settle(spikes)
        answer.append(spikes)
    return torch.stack(answer)


def bump(above: Tensor, sharpness: float = SHARPNESS) -> Tensor:
    """The surrogate of H' at `above` = v - v_th."""
    sigma = torch.sigmoid(above * sharpness)
    return torch.addcmul(sigma, sigma, sigma, value=-1).mul_(sharpness)


class _Fired(torch.autograd.Function):
    """H(u), with the slope of a sigmoid."""

    @staticmethod
    def forward(ctx: Any, above: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(above)
        ctx.sharpness = sharpness
        return (above >= 0).to(above.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return grad * bump(above, ctx.sharpness), None


def fired(above: Tensor, sharpness: float) -> Tensor:
    """Return H(above), with the slope of a sigmoid."""
    found: Tensor = _Fired.apply(above, sharpness)  # type: ignore[no-untyped-call]
    return found
