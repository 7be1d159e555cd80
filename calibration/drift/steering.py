"""A Device kept where it was: its drive moved to follow a bias that walks, its readings scaled back.

    drive'   = wrap( drive + offset )            into the inner device, never outside of its limits
    reading  = (reading' - bias) / gain          out of it

wrap: a value beyond a rail comes back by the node's period (2 V_pi of a modulator), which is the same physics, so a servo that
integrates never winds up; for the same reason the offset itself is kept within half a period. A node without a period has room
for the servo only where a margin at both rails was kept free: the port is narrower by it, and the offset never exceeds it.
Offset, period and margin are one number, or one for each input channel; gain and bias one, or one for each output channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from hil.device import Device, Limit, Port, Spec, Streaming
from hil.errors import ContractError
from hil.port import each, limit_tensor
from hil.wrapper import Wrapper, then

Follow = Callable[[Limit, Limit | None], None]


def unfollowed(offset: Limit, period: Limit | None) -> None:
    """The device adds nothing of its own to the drive."""


@dataclass(frozen=True, slots=True)
class Steering:
    """Corrections of drive and reading, with which the node looks as it did at first.

    Args:
        offset: in the unit of the drive; one, or one for each input channel.
        gain: factor that the node's readings have gained; one, or one for each output channel.
        bias: in the unit of the reading, in the same way.
    """

    offset: Limit = 0.0
    gain: Limit = 1.0
    bias: Limit = 0.0

    def __post_init__(self) -> None:
        finite = all(math.isfinite(number) for number in (*each(self.offset, 1), *each(self.bias, 1)))
        if not (finite and all(0 < gain < math.inf for gain in each(self.gain, 1))):
            raise ContractError("steering must be finite, its gain positive", where="steering", got=repr(self))

    def table(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {name: plain(value) for name, value in asdict(self).items()}

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Steering:
        """The inverse of `table`. Raises: TypeError, ValueError: it is not one."""
        return cls(**{name: limit(value) for name, value in table.items()})


class Steered(Wrapper):
    """A device whose drive is moved along with the node's drift, and whose readings are scaled back.

    Args:
        inner: a static device.
        period: of the node in the unit of the drive, or None.
        margin: free at both rails if None.
        follow: told (offset, period) of every move, for levels that the device adds by itself; see hil.device.Following.

    Raises:
        ContractError: a temporal device, a period that does not fit into the limits, a margin that leaves nothing.
    """

    def __init__(self, inner: Device, period: Limit | None = None, margin: float = 0.0, follow: Follow = unfollowed) -> None:
        port = inner.spec.inputs
        if inner.spec.temporal:
            raise ContractError("a temporal device cannot be steered", where=port.name, allowed="a static device")
        self._limits = port
        spans, periods = self._spans, each(period, port.size) if period is not None else ()
        if len(periods) not in (0, len(spans)):
            raise ContractError("a period for each channel is needed, or one for all", where=f"port {port.name}",
                                got=f"{len(periods)} periods", allowed=f"{len(spans)}")  # fmt: skip
        for number, (one, span) in enumerate(zip(periods, spans, strict=False), 1):
            if not 0 < one <= span:
                raise ContractError(
                    "a period must fit into the limits", where=_channel(port, number), got=f"{one:g} {port.unit}",
                    allowed=f"above 0, up to {span:g} {port.unit}",
                    todo="widen the limits, or give a margin instead",
                )  # fmt: skip
        for number, span in enumerate(spans, 1):
            if not 0 <= margin < 0.5 * span:
                raise ContractError(
                    "a margin must leave some of the range", where=_channel(port, number), got=f"{margin:g} {port.unit}",
                    allowed=f"0 to below {0.5 * span:g} {port.unit}",
                )  # fmt: skip
        super().__init__(inner)
        self._period, self._follow = period, follow
        self._margin = 0.0 if period is not None else margin
        self._port = port.narrowed(_plus(port.low, self._margin), _plus(port.high, -self._margin)) if self._margin else port
        self._steering = Steering()

    @property
    def spec(self) -> Spec:
        """The inner device's, with the drive's limits narrowed by the margin."""
        return replace(self._inner.spec, inputs=self._port)

    @property
    def period(self) -> Limit | None:
        """Period of the node in the unit of the drive, one or one for each channel, or None."""
        return self._period

    @property
    def _spans(self) -> tuple[float, ...]:
        """The range of each channel."""
        port = self._limits
        return tuple(high - low for low, high in zip(each(port.low, port.size), each(port.high, port.size), strict=True))

    @property
    def steering(self) -> Steering:
        """The corrections that are in use now."""
        return self._steering

    def reaches(self, offset: Limit) -> bool:
        """True if the drive can be moved so far."""
        return self._period is not None or all(abs(one) <= self._margin for one in each(offset, 1))

    def steer(self, steering: Steering) -> None:
        """Use other corrections from the next shot on.

        Raises:
            ContractError: the node has no period, and the margin is smaller than the offset.
        """
        if not self.reaches(steering.offset):
            unit = self._port.unit
            raise ContractError(
                "the drive cannot be moved so far", where=f"port {self._port.name}", got=f"{steering.offset} {unit}",
                allowed=f"{self._margin:g} {unit} either way, the margin of a node without a period", outputs="unchanged",
                todo="give a larger [sentinel] margin, or the period if the node has one",
            )  # fmt: skip
        if self._period is not None:
            steering = replace(steering, offset=_combined(lambda o, p: o - round(o / p) * p, steering.offset, self._period))
        size = self._limits.size
        if each(steering.offset, size) != each(self._steering.offset, size):
            self._follow(steering.offset, self._period)
        self._steering = steering

    def retune(self, period: Limit) -> None:
        """The period of this specimen, instead of the one that was said; kept inside of the limits."""
        spans = self._spans
        self._period = _combined(min, period, spans if isinstance(period, tuple) else min(spans))
        self.steer(self._steering)

    def forward(self, x: Tensor) -> Tensor:
        """Move the drive, ask the inner device, and scale its readings back."""
        return self._read(self._inner.forward(self._moved(x)))

    def _moved(self, x: Tensor) -> Tensor:
        """The drive that is sent; refuses what is out of the port's limits, NaN included."""
        self._port.check(x)
        offset = self._steering.offset
        if not any(each(offset, 1)):
            return x
        moved = x + _factor(offset, x)
        low, high = self._limits.bounds(moved)
        if self._period is not None:
            period = _factor(self._period, moved)
            moved = moved - (moved > high) * period
            moved = moved + (moved < low) * period
        return moved.clamp(low, high)  # takes off rounding, no more

    def _read(self, answer: Tensor) -> Tensor:
        return _read_back(answer, self._steering)

    def snapshot(self) -> Mapping[str, object]:
        """Save a node whose state can be saved, with the steering; {} for any other: the sentinel keeps its steering."""
        inner = super().snapshot()
        return {"inner": dict(inner), "steering": self._steering.table()} if inner else {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot, steering included.

        Raises:
            ContractError: it is none of a steered device.
        """
        inner, steering = state.get("inner"), state.get("steering")
        if not isinstance(inner, Mapping) or not isinstance(steering, Mapping):
            raise ContractError("not a snapshot of a steered device", where=self._port.name, got=str(state)[:80])
        super().restore(inner)
        self.steer(Steering.read(steering))


class SteeredStream(Steered):
    """The same around a Streaming device."""

    def __init__(self, inner: Streaming, period: Limit | None = None, margin: float = 0.0, follow: Follow = unfollowed) -> None:
        super().__init__(inner, period, margin, follow)
        self._stream = inner

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Move the drive and submit it; the readings are scaled back when they come."""
        steering = self._steering
        answer = self._stream.submit(self._moved(x))
        if steering.gain == 1.0 and steering.bias == 0.0:
            return answer
        return then(answer, lambda found: _read_back(found, steering))


def limit(value: Any) -> Limit:
    """A number, or one for each channel, of a JSON value. Raises: TypeError, ValueError: neither."""
    return tuple(float(one) for one in value) if isinstance(value, list | tuple) else float(value)


def plain(value: Limit) -> float | list[float]:
    """The JSON value of a number, or of one for each channel."""
    return list(value) if isinstance(value, tuple) else value


def _read_back(answer: Tensor, steering: Steering) -> Tensor:
    gain, bias = steering.gain, steering.bias
    if gain == 1.0 and bias == 0.0:
        return answer
    back = tuple(1.0 / one for one in gain) if isinstance(gain, tuple) else 1.0 / gain
    return (answer - _factor(bias, answer)) * _factor(back, answer)


def _factor(value: Limit, like: Tensor) -> float | Tensor:
    """A number as it is, one for each channel as a tensor."""
    return limit_tensor(value, like) if isinstance(value, tuple) else value


def _combined(made: Callable[[float, float], float], a: Limit, b: Limit) -> Limit:
    """`made` of two numbers, or of those of each channel."""
    if not isinstance(a, tuple) and not isinstance(b, tuple):
        return made(a, b)
    size = len(a) if isinstance(a, tuple) else len(b) if isinstance(b, tuple) else 1
    return tuple(made(one, other) for one, other in zip(each(a, size), each(b, size), strict=True))


def _channel(port: Port, number: int) -> str:
    return f"port {port.name}" + (f", channel {number}" if port.per_channel else "")


def _plus(limit: Limit, margin: float) -> Limit:
    return tuple(one + margin for one in limit) if isinstance(limit, tuple) else limit + margin


def steered(device: Device, period: Limit | None = None, margin: float = 0.0, follow: Follow = unfollowed) -> Steered:
    """`device`, steered; still Streaming if it was."""
    if isinstance(device, Streaming):
        return SteeredStream(device, period, margin, follow)
    return Steered(device, period, margin, follow)
