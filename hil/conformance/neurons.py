"""Noiseless integrate-and-fire neurons, cut from a chip, for trying learners of spiking networks.

v[t] = leak ( v[t-1] - (v_th - v_rest) s[t-1] ) + I[t]        s[t] = H( v[t] - v_th ), minus H( -v[t] - v_th ) in a couple
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hil.device import ArraySpec, Port, Spec

LIMIT = 64.0


@dataclass
class Sent:
    """Counts what was sent.

    Args:
        values: currents that reached any array of a chip.
    """

    values: int = 0


class Neurons:
    """Integrate-and-fire neurons without noise, an array of them.

    Args:
        size: how many.
        couples: ternary.
        leak: of the membrane, kept per step.
        v_th: threshold.
        v_rest: level that the reset aims at.
        sent: counts.
        detached: False lets a graph through, which nobody may take.
    """

    def __init__(
        self, size: int, couples: bool, leak: float, v_th: float, v_rest: float, sent: Sent, detached: bool
    ) -> None:  # fmt: skip
        self._size, self._couples, self._detached = size, couples, detached
        self._leak, self._v_th, self._v_rest = leak, v_th, v_rest
        self._sent = sent
        self._state: tuple[Tensor, Tensor] | None = None

    @cached_property
    def spec(self) -> Spec:
        """Currents in, spikes out, no parameters; temporal."""
        low = -1.0 if self._couples else 0.0
        return Spec(
            Port("current", -LIMIT, LIMIT, "1", self._size), Port("spikes", low, 1, "1", self._size),
            temporal=True, provenance="twin",
        )  # fmt: skip

    def reset(self) -> None:
        """Membranes at rest."""
        self._state = None

    def forward(self, x: Tensor) -> Tensor:
        """Answer currents (time, batch, size) with spikes of the same shape."""
        self.spec.inputs.check(x)
        self._sent.values += x.numel()
        v, s = (torch.zeros_like(x[0]), torch.zeros_like(x[0])) if self._state is None else self._state
        spikes = []
        for current in x:
            v = self._leak * (v - (self._v_th - self._v_rest) * s) + current
            s = (v >= self._v_th).to(x.dtype)
            if self._couples:
                s = s - (v <= -self._v_th).to(x.dtype)
            spikes.append(s)
        self._state = v, s
        answer = torch.stack(spikes)
        return answer if self._detached else answer.requires_grad_(True)

    def close(self) -> None:
        """Do nothing: there is no output to make safe."""


class NeuronChip:
    """Arrays of neurons with a threshold of 1 and a reset to -1; without leak unless an array asks for it."""

    def __init__(self, detached: bool = True, leak: float = 1.0) -> None:
        self.sent = Sent()
        self._detached, self._leak = detached, leak

    def array(self, spec: ArraySpec) -> Neurons:
        """The next array."""
        design = {"leak": self._leak, "v_th": 1.0, "v_rest": -1.0, **spec.design}
        return Neurons(spec.size, spec.couples, sent=self.sent, detached=self._detached, **design)

    def close(self) -> None:
        """Do nothing: there is no output to make safe."""
