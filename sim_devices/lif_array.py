"""An array of spiking neurons, integrate-and-fire with or without leak, and the ternary couples of two such neurons.

    v[t] = lam ( v[t-1] - V s[t-1] ) + I[t]        soft reset, V = v_th - v_rest
    v[t] = lam ( v_rest if s[t-1] else v[t-1] ) + I[t]        hard reset
    s[t] = H( v[t] - v_th ),  H(0) = 1             lam = 1 - 1/tau; lam = 1 is a neuron without leak
    s[t] = H( v[t] - v_th ) - H( -v[t] - v_th' )   a couple: spikes -1, 0, +1

v starts at 0, the level to which the leak pulls. v_rest = -v_th makes the threshold half of the reset quantum V, so that the
spike count rounds the input instead of truncating it. After a spike the neuron is blind and silent for `refractory` steps;
reset and leak go on. Membrane noise is added to I, step by step.

Fabrication, drawn once per array: v_th_i = v_th (1 + a n_i), 1/tau_i = (1 + b n'_i)/tau, n standard normal cut at 3. The
quantum follows the neuron's own threshold. A couple has two thresholds and one shared reset, that of its positive neuron.

Source: Zhang et al., arXiv 2409.07776 (LIF with soft reset); Xiao et al., SPIDE, arXiv 2302.00232 (modified reset, couples);
Gerstner & Kistler, Spiking Neuron Models, ch. 4 (hard reset, refractory time).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.errors import ConfigError, ContractError
from hil.neuron import NeuronModel, Reset
from hil.seeding import generator
from sim_devices.twin import State

Surrogate = Literal["arctan", "sigmoid"]
SHARPNESS = {"arctan": 2.0, "sigmoid": 4.0}
CUT = 3.0  # standard deviations; neurons further out do not leave the fab


@dataclass(frozen=True, slots=True)
class Neuron:
    """A neuron as designed, and how far fabrication strays from it.

    Args:
        leak: lam, kept per step; 1 is a neuron without leak.
        v_th, v_rest: threshold, and the level that the reset aims at.
        reset: soft subtracts V = v_th - v_rest, hard sets v_rest.
        refractory: steps without input or spike after a spike.
        threshold_mismatch, leak_mismatch: relative standard deviations between neurons.
        noise: standard deviation added to the membrane in each step.
        limit: largest input current, either sign.
    """

    leak: float = 0.5
    v_th: float = 1.0
    v_rest: float = 0.0
    reset: Reset = "soft"
    refractory: int = 0
    threshold_mismatch: float = 0.0
    leak_mismatch: float = 0.0
    noise: float = 0.0
    limit: float = 64.0

    def __post_init__(self) -> None:
        largest = 0.9 / CUT
        rules = (
            ("leak", self.leak, 0 < self.leak <= 1, "above 0, up to 1"),
            ("v_th", self.v_th, 0 < self.v_th < math.inf, "above 0"),
            ("v_rest", self.v_rest, -math.inf < self.v_rest < self.lowest_threshold(self.v_th), "below every threshold"),
            ("reset", self.reset, self.reset in ("soft", "hard"), '"soft" or "hard"'),
            ("refractory", self.refractory, 0 <= self.refractory < 2**15, "0 to 32767 steps"),
            ("threshold_mismatch", self.threshold_mismatch, 0 <= self.threshold_mismatch <= largest, f"0 to {largest:g}"),
            ("leak_mismatch", self.leak_mismatch, 0 <= self.leak_mismatch <= largest, f"0 to {largest:g}"),
            ("noise", self.noise, 0 <= self.noise < math.inf, "0 or more"),
            ("limit", self.limit, 0 < self.limit < math.inf, "above 0"),
        )
        for name, value, good, allowed in rules:
            if not good:
                raise ConfigError(f"{name} makes no sense", where="spiking neuron", got=f"{value}", allowed=allowed)

    def lowest_threshold(self, v_th: float) -> float:
        """The lowest that fabrication can make of `v_th`."""
        return v_th * (1 - CUT * self.threshold_mismatch)


class LifArray(nn.Module):
    """Neurons side by side; currents (time, batch, size) in, spikes (time, batch, size) out, float32.

    State: (membrane before the reset, last spikes, steps of silence left). Thresholds (size,) can be programmed. The rows
    of a batch are independent experiments on the same neurons.

    Args:
        size: neurons, or couples.
        neuron: the design.
        couples: ternary.
        seed: of the fabrication.
    """

    threshold_factor: Tensor
    twin_factor: Tensor
    leaks: Tensor

    def __init__(self, size: int, neuron: Neuron | None = None, *, couples: bool = False, seed: int = 0) -> None:
        super().__init__()
        neuron = neuron or Neuron()
        if size < 1:
            raise ConfigError("an array needs neurons", where="spiking array", got=f"size {size}", allowed="1 or more")
        if couples and neuron.reset == "hard":
            raise ConfigError("couples have a soft reset", where="spiking array", got='reset = "hard"', allowed='"soft"')
        self.size, self.neuron, self.couples, self.seed = size, neuron, couples, seed
        spread = neuron.threshold_mismatch
        self.register_buffer("threshold_factor", 1 + spread * _stray(size, seed, "threshold"))
        self.register_buffer("twin_factor", 1 + spread * _stray(size, seed, "threshold of the negative neuron"))
        rate = (1 - neuron.leak) * (1 + neuron.leak_mismatch * _stray(size, seed, "leak"))
        self.register_buffer("leaks", (1 - rate).clamp(0, 1))

    @property
    def spec(self) -> Spec:
        """Currents in, spikes out, thresholds as parameters; temporal."""
        limit, low = self.neuron.limit, -1.0 if self.couples else 0.0
        return Spec(
            inputs=Port("membrane current", -limit, limit, "1", self.size),
            outputs=Port("spikes", low, 1.0, "1", self.size),
            params=self._threshold_port(),
            temporal=True,
            provenance="twin",
            neurons=self._model(),
        )

    def _model(self) -> NeuronModel:
        one = self.neuron
        return NeuronModel(one.leak, one.v_th, one.v_rest, one.reset, one.refractory)

    def _threshold_port(self) -> Port:
        """Return the port of the thresholds: every neuron's must stay above 0 and above v_rest."""
        share = 1 - CUT * self.neuron.threshold_mismatch
        low = max(0.0, self.neuron.v_rest / share) + 1e-3 * (self.neuron.v_th - self.neuron.v_rest)
        return Port("thresholds", min(low, self.neuron.v_th), max(self.neuron.limit, self.neuron.v_th), "1", self.size)

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return the state at rest: membranes at 0, no spike yet, nobody silenced; (batch, 0) where nobody ever is."""
        membrane = torch.zeros(batch, self.size, device=rng.device)
        silent = membrane.new_zeros(batch, self.size if self.neuron.refractory else 0)
        return membrane, torch.zeros_like(membrane), silent

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """Currents (time, batch, size) -> spikes of the same shape, and the state after the last step."""
        spikes, _, state = self.run(state, params, x, lambda step: rng)
        return spikes, state

    @torch.no_grad()
    def run(
        self, state: State, params: Tensor | None, x: Tensor, rng: Callable[[int], torch.Generator]
    ) -> tuple[Tensor, Tensor, State]:
        """Respond, and return the membranes v[t] before the reset too: (spikes, membranes, state).

        Each operation rounds once, so the bits do not depend on how time or batch are cut into calls.

        Args:
            state: as of `rest`, or of an earlier call.
            params: thresholds (size,), or None for the nominal ones.
            x: currents (time, batch, size).
            rng: for each step of x, the generator of its noise.
        """
        self._check(state, x)
        v, s, wait = state
        if not len(x):
            return torch.empty_like(x), torch.empty_like(x), state
        v_th, v_low = self._thresholds(params)
        alike = not self.neuron.threshold_mismatch and params is None
        quantum, above, below = (_scalar_if(alike, one) for one in (v_th - self.neuron.v_rest, v_th, -v_low))
        leak, lossless = _scalar_if(not self.neuron.leak_mismatch, self.leaks), self.neuron.leak == 1
        spikes, membranes, held, other = torch.empty_like(x), torch.empty_like(x), torch.empty_like(v), torch.empty_like(v)
        awake = torch.empty_like(v)
        for t, current in enumerate(x):
            if self.neuron.noise:
                normal = torch.randn(current.shape, generator=rng(t), device=x.device, dtype=x.dtype)
                current = normal.mul_(self.neuron.noise).add_(current)
            if self.neuron.refractory:
                torch.le(wait, 0, out=awake)  # as a factor, 0 or 1: twice as fast as a mask
                current = current * awake
            self._after_reset(v, s, quantum, held)
            if not lossless:
                held.mul_(leak)
            v = torch.add(held, current, out=membranes[t])
            s = torch.ge(v, above, out=spikes[t])
            if self.couples:
                s.sub_(torch.le(v, below, out=other))
            if self.neuron.refractory:
                s.mul_(awake)
                wait = (wait - 1).clamp_(min=0).addcmul_(s, s, value=self.neuron.refractory)
        return spikes, membranes, (v.clone(), s.clone(), wait)

    def ideal(self, x: Tensor) -> Tensor:
        """The noiseless response from rest, with the arctan surrogate."""
        return self.surrogate(x)

    def surrogate(
        self,
        x: Tensor,
        sg: Surrogate = "arctan",
        sharpness: float | None = None,
        params: Tensor | None = None,
        detach_reset: bool = False,
    ) -> Tensor:
        """Spikes of `respond` from rest without noise, differentiable through time with a surrogate for H' (and in `params`).

            arctan    H'(u) ~ a/2 / (1 + (pi a u / 2)^2)          a = 2
            sigmoid   H'(u) ~ a sigma(a u) (1 - sigma(a u))       a = 4

        Args:
            x: currents (time, batch, size).
            sg: which surrogate.
            sharpness: a.
            params: thresholds (size,), or None for the nominal ones.
            detach_reset: no gradient through the reset. Source: Fang et al., ICCV 2021 (arctan); Xiao et al., OTTT, NeurIPS
                2022 (sigmoid).
        """
        slope = SHARPNESS[sg] if sharpness is None else sharpness
        v_th, v_low = self._thresholds(params)
        v = torch.zeros_like(x[0])
        s = wait = torch.zeros_like(v)
        answer = []
        for current in x:
            fired = s.detach() if detach_reset else s
            if self.neuron.reset == "soft":
                v = (v - (v_th - self.neuron.v_rest) * fired) * self.leaks
            else:
                v = (v * (1 - fired) + self.neuron.v_rest * fired) * self.leaks
            v = v + current.masked_fill(wait > 0, 0.0)
            s = _spike(v, v_th, slope, sg)
            if self.couples:
                s = s - _spike(-v, v_low, slope, sg)
            if self.neuron.refractory:
                s = s.masked_fill(wait > 0, 0.0)
                wait = (wait - 1).clamp(min=0).masked_fill(s.detach() != 0, self.neuron.refractory)
            answer.append(s)
        return torch.stack(answer)

    def _thresholds(self, params: Tensor | None) -> tuple[Tensor, Tensor]:
        """(v_th of every neuron, v_th' of the negative neuron of every couple)."""
        design = self.neuron.v_th if params is None else params
        return self.threshold_factor * design, self.twin_factor * design

    def _after_reset(self, v: Tensor, s: Tensor, quantum: Tensor, out: Tensor) -> Tensor:
        if self.neuron.reset == "soft":
            return torch.addcmul(v, s, quantum, value=-1, out=out)  # quantum * s is exact: s is -1, 0 or 1
        return torch.addcmul(v, v, s, value=-1, out=out).add_(s, alpha=self.neuron.v_rest)

    def _check(self, state: State, x: Tensor) -> None:
        rows = state[0].shape
        if x.ndim != 3 or x.shape[1:] != rows:
            raise ContractError(
                "the currents do not fit the state of the array", where="spiking array", got=f"shape {tuple(x.shape)}",
                allowed=f"(time, {', '.join(map(str, rows))})", outputs="unchanged",
                todo="give (time, batch, size), and call reset() before the batch size changes",
            )  # fmt: skip


class _Spike(torch.autograd.Function):
    """H(v - v_th), with the slope of a smooth step."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, v_th: Tensor, slope: float, sg: Surrogate) -> Tensor:
        ctx.save_for_backward(v, v_th)
        ctx.slope, ctx.sg = slope, sg
        return (v >= v_th).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        v, v_th = ctx.saved_tensors
        scaled = (v - v_th) * ctx.slope
        if ctx.sg == "arctan":
            bump = 0.5 / (1 + (0.5 * math.pi * scaled) ** 2)
        else:
            bump = torch.sigmoid(scaled) * torch.sigmoid(-scaled)
        push = grad * bump * ctx.slope
        return push, -push.flatten(0, -2).sum(0), None, None


def _spike(v: Tensor, v_th: Tensor, slope: float, sg: Surrogate) -> Tensor:
    fired: Tensor = _Spike.apply(v, v_th, slope, sg)  # type: ignore[no-untyped-call]
    return fired


def _scalar_if(alike: bool, values: Tensor) -> Tensor:
    """Return one number if all are alike by design: an array without mismatch need not read a vector."""
    return values[0] if alike else values


def _stray(size: int, seed: int, what: str) -> Tensor:
    """Standard normal, cut, one a neuron."""
    return torch.randn(size, generator=generator(seed, 0, what)).clamp_(-CUT, CUT)
