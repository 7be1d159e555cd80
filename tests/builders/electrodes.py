"""A dopant network of seven electrodes, two of which bear less, as labs have them; it ends a test that overdrives it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import hil

LOW, HIGH = (-1.2,) * 5 + (-0.7,) * 2, (0.6,) * 5 + (0.3,) * 2
GATES = hil.Port("gates", LOW, HIGH, "V", size=7)
CURRENT = hil.Port("current", -10.0, 10.0, "nA", size=7)
SHARPER = np.float32(1.0) + np.finfo(np.float32).eps


class Electrodes:
    """Two functions for hil.from_functions; written: every row, in V."""

    def __init__(self, gates: hil.Port = GATES, most: float = np.inf) -> None:
        self.gates, self.most = gates, most
        self.low, self.high = (np.asarray(limit, np.float32) for limit in (LOW, HIGH))
        self.held = np.zeros(7, np.float32)
        self.written: list[np.ndarray] = []

    def write(self, values: np.ndarray) -> None:
        """Hold these voltages; never those that would break it."""
        assert values.shape == (7,)
        assert values.dtype == np.float32
        assert ((values >= self.low) & (values <= self.high)).all(), f"this breaks an electrode: {values}"
        assert (np.abs(values - self.held) <= self.most * SHARPER + 1e-6).all(), f"this steps too far: {values - self.held}"
        self.held = values
        self.written.append(values)

    def read(self) -> np.ndarray:
        """Return the answer of each, which mixes its neighbours in."""
        return np.tanh(self.held * 2.0) + 0.1 * np.roll(self.held, 1)

    def safe(self) -> None:
        """Go to rest."""
        self.held = np.zeros(7, np.float32)

    def device(self, **more: Any) -> Any:
        """Return the Device."""
        return hil.from_functions(self.write, self.read, self.gates, CURRENT, self.safe, **more)


class ElectrodesTwin(nn.Module):
    """The same without its neighbours, as a twin: y = tanh(2 x), noise on the reading."""

    def __init__(self, *, noise_v: float = 1e-3, step_v: float | None = None, narrow_v: tuple[float, ...] = LOW) -> None:
        super().__init__()
        self.noise_v, self.gates = noise_v, dataclasses.replace(GATES.narrowed(narrow_v, HIGH), max_step=step_v)

    @property
    def spec(self) -> hil.Spec:
        """Ports."""
        return hil.Spec(self.gates, CURRENT, provenance="twin")

    def ideal(self, x: Tensor) -> Tensor:
        """Return the reading without noise."""
        return torch.tanh(2 * x)

    def rest(self, batch: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """No memory."""
        return ()

    def respond(self, state: Any, params: Any, x: Tensor, rng: torch.Generator) -> tuple[Tensor, Any]:
        """Return the reading, and no state."""
        return self.ideal(x) + self.noise_v * torch.randn(x.shape, generator=rng, device=x.device), state
