"""Data sheet of a twin's parameters, and which of them only a bench knows: the seam between a twin and its calibration.

A twin that can be fitted says of each free parameter between which values it lies and how far specimens stray; a calibration
finds this specimen's value without knowing the class of the twin, and a virtual bench hides one by the same table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from hil.device import Spec
from hil.errors import ContractError

State = tuple[Tensor, ...]


class Twin(Protocol):
    """The physics of a node: an nn.Module with this shape; see sim_devices/twin.py. `spec.provenance` is "twin"."""

    @property
    def spec(self) -> Spec:
        """Ports, kind and provenance of the node."""

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """The state before anything was driven. Drift may start at random; it is drawn from `rng`."""

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """Drive x in the unit of `spec.inputs`, (batch, n_in) or (time, batch, n_in) -> reading, and the state after it."""

    def ideal(self, x: Tensor) -> Tensor:
        """The noiseless, settled response at rest, differentiable in x: what a model of the node would predict."""


@runtime_checkable
class Parametric(Protocol):
    """A twin that says what it answers with anything programmed on it, so that this can be trained by its slope."""

    def settled(self, x: Tensor, params: Tensor) -> Tensor:
        """Noiseless, settled response, differentiable in both.

        Args:
            x: as of `respond`.
            params: (P,) in the unit of `spec.params`.
        """


@runtime_checkable
class Writing(Protocol):
    """A twin whose channels hold something else than what they were asked to hold; all of it is in its state."""

    def write(self, state: State, params: Tensor, which: Tensor | None, rng: torch.Generator) -> State:
        """Return the state after a write of some channels; `state` itself if none is written.

        Args:
            state: as of `respond`, for any batch.
            params: (P,) in the unit of `spec.params`.
            which: (P,) bool, the channels that are written; None: those that were asked for another level before.
            rng: of the chance in a write.
        """

    def held(self, state: State, rng: torch.Generator) -> Tensor:
        """Return what the channels hold (P,), as it is read back."""


@runtime_checkable
class Periodic(Protocol):
    """A twin that answers alike to drives one period apart."""

    @property
    def period(self) -> float:
        """Period in the unit of `spec.inputs`."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A physical parameter of which a specimen has its own value.

    Args:
        low, high: between which it lies, in the parameter's unit; a fit that ends at one of them is not trusted.
        spread: standard deviation between specimens, in the same unit; what a fit may lean on where the data say nothing.
        unit: SI, "V", "rad", "dB".
        period: values so far apart are the same physics; None: none are.
        seen: the noiseless response depends on it. False: noise alone does.
    """

    low: float
    high: float
    spread: float
    unit: str = "1"
    period: float | None = None
    seen: bool = True

    def __post_init__(self) -> None:
        if not (self.low < self.high and 0 < self.spread < math.inf):
            raise ContractError(
                "limits or spread make no sense", where="unknown", got=f"{self.low} to {self.high}, spread {self.spread}",
                allowed="low below high, spread above 0",
            )  # fmt: skip

    @classmethod
    def about(cls, value: float, factor: float, share: float, unit: str = "1", seen: bool = True) -> Unknown:
        """Return an unknown that lies within a factor of what is believed, which may be of any size.

        Args:
            value: believed, above 0.
            factor: between the limits and `value`, above 1.
            share: the spread over `value`.
            unit: of `value`.
            seen: as of Unknown.

        >>> Unknown.about(3.5, 3.5, 0.5, "V")
        Unknown(low=1.0, high=12.25, spread=1.75, unit='V', period=None, seen=True)
        """
        return cls(value / factor, value * factor, share * value, unit, seen=seen)


@runtime_checkable
class Fittable(Protocol):
    """A twin whose parameters can be found from outside."""

    def settings(self) -> Mapping[str, float]:
        """The keyword arguments that make this twin again."""

    def unknowns(self) -> Mapping[str, Unknown]:
        """Return the parameters that a specimen has its own value of, by their names in `settings()`."""

    def remade(self, settings: Mapping[str, float]) -> Self:
        """A twin of the same kind with these settings instead of its own; those not given stay."""

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless, settled response, in the unit of the output port; differentiable in x."""


@runtime_checkable
class Noisy(Protocol):
    """A twin that says how much its readings scatter."""

    def noise_at(self, x: Tensor) -> Tensor:
        """Standard deviation of one settled reading at the drive x, same shape, in the unit of the output port."""
