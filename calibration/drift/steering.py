"""A Device kept where it was: its drive moved to follow a bias that walks, its readings scaled back.

    drive'   = wrap( drive + offset )            into the inner device, never outside of its limits
    reading  = (reading' - bias) / gain          out of it

wrap: a value beyond a rail comes back by the node's period (2 V_pi of a modulator), which is the same physics, so a servo that
integrates never winds up; for the same reason the offset itself is kept within half a period. A node without a period has room
for the servo only where a margin at both rails was kept free: the port is narrower by it, and the offset never exceeds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from hil.device import Device, Limit, Spec, Streaming
from hil.errors import ContractError
from hil.wrapper import Wrapper, then

Follow = Callable[[float, float | None], None]


def unfollowed(offset: float, period: float | None) -> None:
    """The device adds nothing of its own to the drive."""


@dataclass(frozen=True, slots=True)
class Steering:
    """Corrections of drive and reading, with which the node looks as it did at first.

    Args:
        offset: in the unit of the drive.
        gain: factor that the node's readings have gained.
        bias: in the unit of the reading.
    """

    offset: float = 0.0
    gain: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.offset) and math.isfinite(self.bias) and 0 < self.gain < math.inf):
            raise ContractError("steering must be finite, its gain positive", where="steering", got=repr(self))


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

    def __init__(self, inner: Device, period: float | None = None, margin: float = 0.0, follow: Follow = unfollowed) -> None:
        port = inner.spec.inputs
        if inner.spec.temporal:
            raise ContractError("a temporal device cannot be steered", where=port.name, allowed="a static device")
        if period is not None and not 0 < period <= port.span:
            raise ContractError(
                "a period must fit into the limits", where=f"port {port.name}", got=f"{period:g} {port.unit}",
                allowed=f"above 0, up to {port.span:g} {port.unit}",
                todo="widen the limits, or give a margin instead",
            )  # fmt: skip
        if not 0 <= margin < 0.5 * port.span:
            raise ContractError(
                "a margin must leave some of the range", where=f"port {port.name}", got=f"{margin:g} {port.unit}",
                allowed=f"0 to below {0.5 * port.span:g} {port.unit}",
            )  # fmt: skip
        super().__init__(inner)
        self._limits, self._period, self._follow = port, period, follow
        self._margin = 0.0 if period is not None else margin
        self._port = port.narrowed(_plus(port.low, self._margin), _plus(port.high, -self._margin)) if self._margin else port
        self._steering = Steering()

    @property
    def spec(self) -> Spec:
        """The inner device's, with the drive's limits narrowed by the margin."""
        return replace(self._inner.spec, inputs=self._port)

    @property
    def period(self) -> float | None:
        """Period of the node in the unit of the drive, or None."""
        return self._period

    @property
    def steering(self) -> Steering:
        """The corrections that are in use now."""
        return self._steering

    def reaches(self, offset: float) -> bool:
        """True if the drive can be moved so far."""
        return self._period is not None or abs(offset) <= self._margin

    def steer(self, steering: Steering) -> None:
        """Use other corrections from the next shot on.

        Raises:
            ContractError: the node has no period, and the margin is smaller than the offset.
        """
        if not self.reaches(steering.offset):
            unit = self._port.unit
            raise ContractError(
                "the drive cannot be moved so far", where=f"port {self._port.name}", got=f"{steering.offset:g} {unit}",
                allowed=f"{self._margin:g} {unit} either way, the margin of a node without a period", outputs="unchanged",
                todo="give a larger [sentinel] margin, or the period if the node has one",
            )  # fmt: skip
        if self._period is not None:
            turns = round(steering.offset / self._period)
            steering = replace(steering, offset=steering.offset - turns * self._period)
        if steering.offset != self._steering.offset:
            self._follow(steering.offset, self._period)
        self._steering = steering

    def retune(self, period: float) -> None:
        """The period of this specimen, instead of the one that was said; kept inside of the limits."""
        self._period = min(period, self._limits.span)
        self.steer(self._steering)

    def forward(self, x: Tensor) -> Tensor:
        """Move the drive, ask the inner device, and scale its readings back."""
        return self._read(self._inner.forward(self._moved(x)))

    def _moved(self, x: Tensor) -> Tensor:
        """The drive that is sent; refuses what is out of the port's limits, NaN included."""
        self._port.check(x)
        offset = self._steering.offset
        if not offset:
            return x
        moved = x + offset
        low, high = self._limits.bounds(moved)
        if self._period is not None:
            moved = moved - (moved > high) * self._period
            moved = moved + (moved < low) * self._period
        return moved.clamp(low, high)  # takes off rounding, no more

    def _read(self, answer: Tensor) -> Tensor:
        gain, bias = self._steering.gain, self._steering.bias
        return answer if gain == 1.0 and bias == 0.0 else (answer - bias) * (1.0 / gain)

    def snapshot(self) -> Mapping[str, object]:
        """Save a node whose state can be saved, with the steering; {} for any other: the sentinel keeps its steering."""
        inner = super().snapshot()
        return {"inner": dict(inner), "steering": asdict(self._steering)} if inner else {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot, steering included.

        Raises:
            ContractError: it is none of a steered device.
        """
        inner, steering = state.get("inner"), state.get("steering")
        if not isinstance(inner, Mapping) or not isinstance(steering, Mapping):
            raise ContractError("not a snapshot of a steered device", where=self._port.name, got=str(state)[:80])
        super().restore(inner)
        self.steer(Steering(**steering))


class SteeredStream(Steered):
    """The same around a Streaming device."""

    def __init__(self, inner: Streaming, period: float | None = None, margin: float = 0.0, follow: Follow = unfollowed) -> None:
        super().__init__(inner, period, margin, follow)
        self._stream = inner

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Move the drive and submit it; the readings are scaled back when they come."""
        steering = self._steering
        answer = self._stream.submit(self._moved(x))
        if steering.gain == 1.0 and steering.bias == 0.0:
            return answer
        return then(answer, lambda found: (found - steering.bias) * (1.0 / steering.gain))


def _plus(limit: Limit, margin: float) -> Limit:
    return tuple(one + margin for one in limit) if isinstance(limit, tuple) else limit + margin


def steered(device: Device, period: float | None = None, margin: float = 0.0, follow: Follow = unfollowed) -> Steered:
    """`device`, steered; still Streaming if it was."""
    if isinstance(device, Streaming):
        return SteeredStream(device, period, margin, follow)
    return Steered(device, period, margin, follow)
