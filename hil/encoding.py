"""Range is a decision, made in one place: from the numbers of the host to the units of a node and back.

    drive   = offset + gain * pre          Encode, then the policy for what lies outside [low, high]
    output  = (reading - zero) / scale     Decode

    level   = low + (high - low) (1 + param) / 2     Levels: a parameter from -1 to 1 -> what is programmed

Policies: "refuse" raises, "clip" saturates (and is counted), "fold" maps into one period of a periodic node, which changes
nothing physically: a Mach-Zehnder modulator has the period 2 V_pi. gain, offset, period and limits may be one for each channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from hil.errors import ContractError
from hil.port import Limit, Port, each, limit_tensor

Overflow = Literal["refuse", "clip", "fold"]
ROUNDED = 1 + 1e-12  # 0.6 - -1.2 is a little less than 1.8


@dataclass(frozen=True, slots=True)
class Encode:
    """Pre-activation (dimensionless) -> drive (unit of the port).

    Every number is one for all channels, or a tuple of one for each; channel k is then treated by its own numbers. Of a layer
    that is m times as wide as the device, column j belongs to channel j mod K.

    Args:
        low, high: the limits of the port it drives.
        gain: unit of the port per unit of pre-activation.
        offset: drive at pre-activation 0, for example the bias point.
        overflow: what happens to a drive outside the limits.
        period: needed by "fold"; must fit in high - low.
    """

    low: Limit
    high: Limit
    gain: Limit = 1.0
    offset: Limit = 0.0
    overflow: Overflow = "refuse"
    period: Limit | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "gain", "offset", "period"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(map(float, value)))
        counts = {len(value) for value in self._numbers if isinstance(value, tuple)}
        if len(counts) > 1:
            raise ContractError(
                "one number for each channel, as many as there are channels", where="encoding",
                got=" and ".join(f"{count} numbers" for count in sorted(counts)), todo="correct [encode]",
            )  # fmt: skip
        rows = zip(*(each(value, max(counts, default=1)) for value in self._numbers), strict=True)
        for channel, numbers in enumerate(rows, 1):
            self._check(f"encoding, channel {channel}" if counts else "encoding", *numbers)

    @property
    def _numbers(self) -> tuple[Limit, ...]:
        return self.low, self.high, self.gain, self.offset, 0.0 if self.period is None else self.period

    def _check(self, where: str, low: float, high: float, gain: float, offset: float, period: float) -> None:
        """Raises: ContractError: the numbers of one channel make no sense."""
        if not low <= high:
            raise ContractError("limits are the wrong way round", where=where, got=f"{low} to {high}")
        if not (math.isfinite(gain) and math.isfinite(offset)):
            raise ContractError(
                "gain and offset must be finite", where=where, got=f"gain {gain}, offset {offset}", todo="correct [encode]"
            )
        if self.overflow == "fold" and not 0 < period <= (high - low) * ROUNDED:
            raise ContractError(
                "folding needs a period that is not longer than the range of the port",
                where=where,
                got=f"period {None if self.period is None else period}",
                allowed=f"above 0, up to {high - low:g}",
                todo="give the node's period (2 V_pi for a Mach-Zehnder), widen the limits, or choose overflow = 'clip'",
            )

    @classmethod
    def onto(cls, port: Port, gain: Limit = 1.0, offset: Limit = 0.0, overflow: Overflow = "refuse",
             period: Limit | None = None) -> Encode:  # fmt: skip
        """An encoding for `port`, its limits taken over. Raises: ContractError: numbers for other channels than it has."""
        for name, value in (("gain", gain), ("offset", offset), ("period", period)):
            if isinstance(value, tuple | list) and len(value) != port.size:
                raise ContractError(
                    "one number for each channel, as many as there are channels", where=f"encoding of port {port.name}",
                    got=f"{name} of {len(value)} numbers", todo="correct [encode]",
                    allowed=f"{port.size} numbers, or one for all" if port.size else "one number: this node takes any width",
                )  # fmt: skip
        return cls(port.low, port.high, gain, offset, overflow, period)

    def __call__(self, pre: Tensor) -> Tensor:
        """(..., n) -> (..., n). NaN passes unchanged, to be refused by the port."""
        drive = pre if self.gain == 1.0 else pre * self.slope(pre)
        if self.offset != 0.0:
            drive = drive + factor(self.offset, pre)
        if self.overflow == "clip":
            return self._clipped(drive)
        if self.overflow == "fold" and self.period is not None:
            start = factor(_mapped(_fold_start, self.low, self.high, self.period), pre)
            return self._clipped((drive - start).remainder(factor(self.period, pre)).add(start))
        return drive

    def _clipped(self, drive: Tensor) -> Tensor:
        if isinstance(self.low, tuple) or isinstance(self.high, tuple):
            return drive.clamp(_along(self.low, drive), _along(self.high, drive))
        return drive.clamp(self.low, self.high)

    def slope(self, like: Tensor) -> float | Tensor:
        """Return the derivative of the drive: the gain, a number, or (n,) for channels of its own, as `like` is."""
        return factor(self.gain, like)

    def overflowing(self, pre: Tensor) -> int:
        """Count the values of `pre` (..., n) that need the policy; the loop reports them as a share, per epoch."""
        if pre.numel() == 0 or self.gain == 0.0:
            return 0
        least, most = (_mapped(edge, self.low, self.high, self.gain, self.offset) for edge in (_least_pre, _most_pre))
        if isinstance(least, tuple) or isinstance(most, tuple):
            return int(((pre < _along(least, pre)) | (pre > _along(most, pre))).sum())
        low, high = torch.stack(torch.aminmax(pre)).tolist()
        if low >= least and high <= most:
            return 0  # the usual case, in one pass and one transfer
        return int(((pre < least) | (pre > most)).sum())


def factor(number: Limit, like: Tensor) -> float | Tensor:
    """Return one number as it is; one for each channel as a tensor (n,) that is multiplied with `like` (..., n).

    Raises:
        ContractError: `like` has another number of channels, and no multiple of it.
    """
    return _along(number, like) if isinstance(number, tuple) else number


def _along(limit: Limit, like: Tensor) -> Tensor:
    """A limit as `like` (..., n) is, () or (n,): that of channel j mod K in column j. Raises: ContractError: as `factor`."""
    count = len(limit) if isinstance(limit, tuple) else 1
    if count > 1 and (like.ndim == 0 or like.shape[-1] % count):
        raise ContractError(
            "wrong number of channels", where="encoding", got=f"shape {tuple(like.shape)}", allowed=f"(..., {count})",
            todo="make the layer as wide as the device, or a multiple of it",
        )  # fmt: skip
    found = limit_tensor(limit, like)
    return found if count == 1 or like.shape[-1] == count else found.repeat(like.shape[-1] // count)


@lru_cache(maxsize=256)
def _mapped(of: Callable[..., float], *numbers: Limit) -> Limit:
    """Return `of` these numbers, of each channel where one of them is for each."""
    counts = [len(number) for number in numbers if isinstance(number, tuple)]
    if not counts:
        return of(*numbers)
    return tuple(of(*row) for row in zip(*(each(number, counts[0]) for number in numbers), strict=True))


def _fold_start(low: float, high: float, period: float) -> float:
    return 0.5 * (low + high) - 0.5 * period


def _least_pre(low: float, high: float, gain: float, offset: float) -> float:
    """The pre-activation at the one limit, _most_pre at the other; infinite where none moves the drive."""
    return -math.inf if gain == 0.0 else min((low - offset) / gain, (high - offset) / gain)


def _most_pre(low: float, high: float, gain: float, offset: float) -> float:
    return math.inf if gain == 0.0 else max((low - offset) / gain, (high - offset) / gain)


@dataclass(frozen=True, slots=True)
class Decode:
    """Reading (unit of the port) -> output (dimensionless): (reading - zero) / scale."""

    zero: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale == 0 or self.scale != self.scale:
            raise ContractError("the scale of a reading cannot be 0 or NaN", where="decoding", got=str(self.scale))

    @classmethod
    def of(cls, port: Port) -> Decode:
        """Fill -1 to 1 with the range of a port: of a node that has no transfer curve to be measured."""
        return cls(0.5 * (port.shared_low + port.shared_high), 0.5 * (port.shared_high - port.shared_low))

    def __call__(self, reading: Tensor) -> Tensor:
        """Decode a reading of any shape; the output has the same shape."""
        if self.zero == 0.0 and self.scale == 1.0:
            return reading
        return (reading - self.zero) * (1.0 / self.scale)

    def inverse(self, output: Tensor) -> Tensor:
        """Return the reading that an output comes from; same shape."""
        return output * self.scale + self.zero


@dataclass(frozen=True, slots=True)
class Levels:
    """Parameters (-1 to 1) -> what is programmed (unit of `spec.params`): the range of each channel, in equal steps.

    The slope is that of the line, whatever the steps; a parameter beyond -1 or 1 counts as these, with the slope 0.

    Args:
        low, high: of each channel, (P,), as a tuple.
        bits: of the converter that sets them: 2^bits levels from low to high; 0: any level.
        slew_per_s: largest rate of a channel, one for all or one for each, which hil/devices/programming.py keeps; None: any
            that the port allows.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    bits: int = 0
    slew_per_s: Limit | None = None

    @classmethod
    def onto(
        cls, port: Port, low: Limit | None = None, high: Limit | None = None, bits: int = 0, slew_per_s: Limit | None = None
    ) -> Levels:
        """Levels that fill the range of `port`, or a narrower one.

        Args:
            port: `spec.params` of a device.
            low: a narrower limit, in its unit; None: its own.
            high: likewise.
            bits: as of the class.
            slew_per_s: as of the class.

        Raises:
            OutOfRange: they would widen those of the port. ContractError: not as many as there are channels, or no rate.
        """
        kept = port.narrowed(port.low if low is None else low, port.high if high is None else high)
        rate = None if slew_per_s is None else replace(kept, slew_per_s=slew_per_s).slew_per_s  # checked there
        return cls(each(kept.low, port.size), each(kept.high, port.size), bits, rate)

    def __call__(self, params: Tensor) -> Tensor:
        """(P,) parameters -> (P,) levels. NaN passes unchanged, to be refused by the port."""
        low, high = limit_tensor(self.low, params), limit_tensor(self.high, params)
        share = (params.clamp(-1, 1) + 1) / 2
        if self.bits:
            most = 2**self.bits - 1
            share = share + ((share * most).round() / most - share).detach()
        return torch.lerp(low, high, share).clamp(low, high)
