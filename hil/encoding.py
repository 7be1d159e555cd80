"""Range is a decision, made in one place: from the numbers of the host to the units of a node and back.

    drive   = offset + gain * pre          Encode, then the policy for what lies outside [low, high]
    output  = (reading - zero) / scale     Decode

Policies: "refuse" raises, "clip" saturates (and is counted), "fold" maps into one period of a periodic node, which changes
nothing physically: a Mach-Zehnder modulator has the period 2 V_pi.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hil.device import Port
from hil.errors import ContractError

Overflow = Literal["refuse", "clip", "fold"]


@dataclass(frozen=True, slots=True)
class Encode:
    """Pre-activation (dimensionless) -> drive (unit of the port).

    Args:
        low, high: the limits of the port it drives.
        gain: unit of the port per unit of pre-activation.
        offset: drive at pre-activation 0, for example the bias point.
        overflow: what happens to a drive outside the limits.
        period: needed by "fold"; must fit in high - low.
    """

    low: float
    high: float
    gain: float = 1.0
    offset: float = 0.0
    overflow: Overflow = "refuse"
    period: float | None = None

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ContractError("limits are the wrong way round", where="encoding", got=f"{self.low} to {self.high}")
        if not (math.isfinite(self.gain) and math.isfinite(self.offset)):
            raise ContractError(
                "gain and offset must be finite", where="encoding", got=f"gain {self.gain}, offset {self.offset}",
                todo="correct [encode]",
            )  # fmt: skip
        if self.overflow == "fold" and not (self.period and 0 < self.period <= self.high - self.low):
            raise ContractError(
                "a folding encoding needs a period that fits into the port",
                where="encoding",
                got=f"period {self.period}",
                allowed=f"above 0, up to {self.high - self.low:g}",
                todo="give the node's period (2 V_pi for a Mach-Zehnder), widen the limits, or choose overflow = 'clip'",
            )

    @classmethod
    def onto(cls, port: Port, gain: float = 1.0, offset: float = 0.0, overflow: Overflow = "refuse",
             period: float | None = None) -> Encode:  # fmt: skip
        """An encoding for `port`, its limits taken over."""
        return cls(port.low, port.high, gain, offset, overflow, period)

    def __call__(self, pre: Tensor) -> Tensor:
        """(..., n) -> (..., n). NaN passes unchanged, to be refused by the port."""
        drive = pre if self.gain == 1.0 else pre * self.gain
        if self.offset:
            drive = drive + self.offset
        if self.overflow == "clip":
            return drive.clamp(self.low, self.high)
        if self.overflow == "fold" and self.period is not None:
            middle = 0.5 * (self.low + self.high)
            half = 0.5 * self.period
            return (drive - (middle - half)).remainder(self.period).add(middle - half).clamp(self.low, self.high)
        return drive

    def overflowing(self, pre: Tensor) -> int:
        """Count the values of `pre` that need the policy; the loop reports them as a share, per epoch."""
        if self.gain == 0.0:
            return 0
        edges = sorted(((self.low - self.offset) / self.gain, (self.high - self.offset) / self.gain))
        if pre.numel() == 0:
            return 0
        low, high = torch.stack(torch.aminmax(pre)).tolist()
        if low >= edges[0] and high <= edges[1]:
            return 0  # the usual case, in one pass and one transfer
        return int(((pre < edges[0]) | (pre > edges[1])).sum())


@dataclass(frozen=True, slots=True)
class Decode:
    """Reading (unit of the port) -> output (dimensionless): (reading - zero) / scale."""

    zero: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale == 0 or self.scale != self.scale:
            raise ContractError("the scale of a reading cannot be 0 or NaN", where="decoding", got=str(self.scale))

    def __call__(self, reading: Tensor) -> Tensor:
        """Decode a reading of any shape; the output has the same shape."""
        if self.zero == 0.0 and self.scale == 1.0:
            return reading
        return (reading - self.zero) * (1.0 / self.scale)
