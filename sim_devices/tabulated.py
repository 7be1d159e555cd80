"""A node of which nothing is known but a measured curve: points (drive, reading), and a smooth line through them.

    u    = ( x - x_k ) / h_k                                       x between the points x_k and x_k+1, h_k apart
    y(x) = (1 + 2u)(1 - u)^2 y_k + u (1 - u)^2 h_k m_k + u^2 (3 - 2u) y_k+1 + u^2 (u - 1) h_k m_k+1
    m_k  = slope at point k of the parabola through it and its two neighbours; at an end, of the chord

once continuously differentiable, and exact at the points. White noise on the reading; no memory, no drift.

Source: cubic Hermite interpolation with three-point slopes, de Boor, A Practical Guide to Splines, ch. IV.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.errors import ConfigError
from hil.units import quantity
from sim_devices.twin import State


class Tabulated(nn.Module):
    """A node shared in time, each value for itself.

    Args:
        drive: of the points, rising, in `drive_unit`; its ends are the limits.
        reading: at these, in `reading_unit`.
        noise: standard deviation of a reading, in `reading_unit`.
        drive_unit, reading_unit: of the ports, as "V".
    """

    x: Tensor
    y: Tensor
    slopes: Tensor

    def __init__(
        self,
        *,
        drive: Sequence[float | str],
        reading: Sequence[float | str],
        noise: float = 0.0,
        drive_unit: str = "V",
        reading_unit: str = "V",
    ) -> None:
        super().__init__()
        try:
            x = torch.tensor([quantity(v, drive_unit, "drive") for v in drive], dtype=torch.float64)
            y = torch.tensor([quantity(v, reading_unit, "reading") for v in reading], dtype=torch.float64)
        except ConfigError as error:
            raise ConfigError(
                "not a curve", where="Tabulated", got=f"{error.where} {error.got}", allowed=error.allowed, todo=error.todo
            ) from error
        if len(x) < 3 or len(x) != len(y) or not bool((x.diff() > 0).all()):
            raise ConfigError(
                "not a curve", where="Tabulated", got=f"{len(x)} drives, {len(y)} readings",
                allowed="three points or more, as many readings as drives, drives rising",
            )  # fmt: skip
        if not 0 <= noise < float("inf"):
            raise ConfigError("noise makes no sense", where="Tabulated", got=f"{noise}", allowed="0 or more")
        self.noise, self.drive_unit, self.reading_unit = noise, drive_unit, reading_unit
        for name, values in (("x", x), ("y", y), ("slopes", _slopes(x, y))):
            self.register_buffer(name, values, persistent=False)
        self._spec = self._ports()

    @property
    def spec(self) -> Spec:
        """The ports: one drive and one reading in the units of the table."""
        return self._spec

    def _ports(self) -> Spec:
        dense = self.ideal(torch.linspace(float(self.x[0]), float(self.x[-1]), 32 * len(self.x), dtype=torch.float64))
        low, high = float(dense.min()), float(dense.max())
        margin = 0.25 * (high - low) + 8 * self.noise
        return Spec(
            inputs=Port("curve drive", float(self.x[0]), float(self.x[-1]), self.drive_unit),
            outputs=Port("curve reading", low - margin, high + margin, self.reading_unit),
            provenance="twin",
        )

    def settings(self) -> dict[str, Any]:
        """The keyword arguments that make this twin again."""
        return {
            "drive": self.x.tolist(), "reading": self.y.tolist(), "noise": self.noise,
            "drive_unit": self.drive_unit, "reading_unit": self.reading_unit,
        }  # fmt: skip

    def remade(self, settings: Mapping[str, Any]) -> Self:
        """The same kind with these settings instead of its own."""
        return type(self)(**{**self.settings(), **settings})

    def sampled(self, step_s: float) -> Self:
        """The same curve: it knows no time."""
        del step_s
        return self

    def ideal(self, x: Tensor) -> Tensor:
        """The noiseless curve, differentiable; beyond its ends its last cubic goes on, where the port lets nothing through."""
        points, y, slopes = (values.to(x) for values in (self.x, self.y, self.slopes))
        right = torch.searchsorted(points, x.detach().contiguous()).clamp(1, len(points) - 1)
        left = right - 1
        step = points[right] - points[left]
        u = (x - points[left]) / step
        v = 1 - u
        ends = (1 + 2 * u) * v * v * y[left] + u * u * (3 - 2 * u) * y[right]
        return ends + step * (u * v * v * slopes[left] - u * u * v * slopes[right])

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return no state: nothing is remembered."""
        return ()

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, n) drive -> (batch, n) reading."""
        del params  # nothing can be programmed
        reading = self.ideal(x)
        if self.noise:
            reading = reading + self.noise * torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
        return reading, state


def _slopes(x: Tensor, y: Tensor) -> Tensor:
    step, chord = x.diff(), y.diff() / x.diff()
    inner = (step[1:] * chord[:-1] + step[:-1] * chord[1:]) / (step[1:] + step[:-1])
    return torch.cat([chord[:1], inner, chord[-1:]])
