"""An example shown to a spiking network for T steps, chunk after chunk: one that stays, or a sequence of frames.

    pre_1[t] = synapse_1( x[t] )           evaluated once if x does not change
    pre_l[t] = synapse_l( s_{l-1}[t] )     l > 1
    I_l = encode_l( pre_l );  s_l = device_l( I_l ), measured
    rate     = 1/T sum_t s_{L-1}[t];  scores = synapse_L( rate )      for a linear readout: the mean of its outputs over time

At any time a chunk of steps is held, so memory does not grow with T.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hil.device import plain
from hil.errors import ContractError
from hil.learners.parts.shown import Shown, over_time
from hil.network import Layer, Network, Trace


class Chunk(NamedTuple):
    """Consecutive time steps of a pass; a tensor (steps, batch, n) per hidden layer.

    Args:
        pre: the pre-activations.
        drives: what was sent.
        spikes: what was measured.
    """

    pre: tuple[Tensor, ...]
    drives: tuple[Tensor, ...]
    spikes: tuple[Tensor, ...]


def chunks(
    net: Network, x: Tensor, time_steps: int, chunk: int = 1, *, masks: Sequence[Tensor] = (), changing: bool = False
) -> Iterator[Chunk]:
    """Reset the arrays and run them, and yield what they answer, some steps at a time.

    Args:
        net: the network.
        x: (batch, features), or (batch, frames, features) of sequences.
        time_steps: T.
        chunk: steps held at a time.
        masks: per hidden layer a factor on what its spikes send on, (batch, n); empty: none.
        changing: the weights may change between two chunks, so the first synapse is evaluated for each.
    """
    if not net.temporal:
        raise ContractError("a spiking learner needs spiking devices", where="network", allowed="temporal devices",
                            todo='give [device] a chip, for example chip = "lif"')  # fmt: skip
    net.reset()
    shown, first = Shown(x, time_steps), torch.empty(0)
    for start in range(0, time_steps, chunk):
        count = min(chunk, time_steps - start)
        if changing or shown.changes or not start:
            first = shown.currents(net.stack[0].synapse, start, count)
        pre = first[:count]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for number, layer in enumerate(net.stack[:-1]):
            if number:
                pre = over_time(layer.synapse, masked(found[-1][2], masks, number - 1))
            found.append((pre, *_asked(layer, pre)))
        yield Chunk(*(tuple(part) for part in zip(*found, strict=True)))
        del found, pre  # given back before as much is taken again


def _asked(layer: Layer, pre: Tensor) -> tuple[Tensor, Tensor]:
    if layer.device is None or layer.encode is None:
        raise ContractError("a hidden layer has no neurons", where="network", allowed="a device behind every hidden synapse")
    drive = layer.encode(pre)
    return drive, layer.decode(plain(layer.device.forward(drive), layer.device.spec.outputs.name, pre.device))


@torch.no_grad()
def rates(net: Network, x: Tensor, time_steps: int, chunk: int, leak: float = 1.0) -> Tensor:
    """Return the rates of the last array, (batch, n): spikes per step, weighed down by `leak` a step into the past."""
    total, weight = torch.zeros(()), 0.0
    for part in chunks(net, x, time_steps, chunk):
        for spikes in part.spikes[-1]:
            total, weight = total * leak + spikes, weight * leak + 1
    return total / weight


@torch.no_grad()
def traced(net: Network, x: Tensor, time_steps: int, chunk: int, leak: float = 1.0) -> Trace:
    """Make one pass as `predict` does; pre of the hidden layers for all steps, (time, batch, n), x and outputs as means."""
    parts = list(chunks(net, x, time_steps, chunk))
    hidden = range(len(net.stack) - 1)
    pre = [torch.cat([part.pre[layer] for part in parts]) for layer in hidden]
    weights = leak ** torch.arange(time_steps - 1, -1, -1, dtype=x.dtype, device=x.device)
    share = (weights / weights.sum()).view(-1, 1, 1)
    spikes = [(torch.cat([part.spikes[layer] for part in parts]) * share).sum(0) for layer in hidden]
    scores = net.stack[-1].synapse(spikes[-1])
    return Trace((Shown(x, time_steps).mean(leak), *spikes), (*pre, scores), (*spikes, scores))


def dropout_masks(widths: Sequence[int], batch: int, share: float, rng: torch.Generator, like: Tensor) -> list[Tensor]:
    """Per hidden layer (batch, n): 0 for a `share` of the neurons, 1 / (1 - share) for the others; empty if share is 0."""
    if not share:
        return []
    keep = 1 - share
    return [
        (torch.rand(batch, n, generator=rng, device=like.device) < keep).to(like.dtype).div_(keep) for n in widths
    ]  # held for all steps: a neuron that is out is out for the example


def masked(values: Tensor, masks: Sequence[Tensor], layer: int) -> Tensor:
    """Return what is left of the values of a hidden layer, (batch, n) or (steps, batch, n)."""
    return values * masks[layer] if masks else values


class Overflow:
    """The share of pre-activations outside the range of their devices, 0 to 1."""

    def __init__(self, net: Network) -> None:
        self._net, self._over, self._total = net, 0, 0

    def add(self, part: Chunk) -> None:
        """Count the currents of a chunk, and those beyond the range."""
        for layer, pre in zip(self._net.stack[:-1], part.pre, strict=True):
            if layer.encode is not None:
                self._over += layer.encode.overflowing(pre[0] if pre.stride(0) == 0 else pre) * _repeats(pre)
                self._total += pre.numel()

    @property
    def share(self) -> float:
        """Share of the currents beyond the range, 0 to 1."""
        return self._over / max(1, self._total)


def _repeats(pre: Tensor) -> int:
    return len(pre) if pre.stride(0) == 0 else 1
