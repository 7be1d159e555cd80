"""A Device around one whose input port limits steps, and which does nothing about them itself: a shot is refused as a whole.

    |row[k] - row before[k]| <= max_step[k], slew_per_s[k] * row_s          see hil/port.py

Before the first shot the channels hold the rest of the port. After a fault nobody knows which row was sent last, or whether the
device went to rest: the next first row is then held against the extremes of all that is possible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hil.device import Device, Recoverable
from hil.errors import ContractError, OutOfRange
from hil.port import Port, each
from hil.slew import Held, Slew, slew_of
from hil.wrapper import Wrapper


class Stepped(Wrapper):
    """A Device that refuses a drive with a step that is too large, before anything is sent.

    It is not Streaming, whatever `inner` is: what the channels hold is known only once a shot is over.

    Args:
        inner: a static device whose port limits steps.

    Raises:
        ContractError: a rate is limited, and `inner` does not say how far its rows are apart.
    """

    def __init__(self, inner: Device) -> None:
        super().__init__(inner)
        self._port = inner.spec.inputs
        self._row_s = slew_of(inner).row_s
        self._held = Held(self._port, self._row_s)

    @property
    def inner(self) -> Device:
        """The device that is driven."""
        return self._inner

    @property
    def slew(self) -> Slew:
        """Steps of the drive: what steps too far is refused."""
        return Slew("refuses", self._row_s)

    def forward(self, x: Tensor) -> Tensor:
        """Ask the inner device. Raises: OutOfRange: a value or a step beyond the limits; nothing was sent."""
        self._held.check(self._port.check(x))
        try:
            answer = self._inner.forward(x)
        except OutOfRange:
            raise  # nothing was sent; a ContractError may come after the answer
        except BaseException:
            self._held.lost(x)
            raise
        self._held.sent(x)
        return answer

    def at_rest(self) -> None:
        """Note that the device was brought to rest."""
        self._held.at_rest()

    def snapshot(self) -> Mapping[str, object]:
        """Save a node whose state can be saved, with what its channels hold; {} for any other."""
        inner = super().snapshot()
        return {"inner": dict(inner), "held": self._held.rows.clone()} if inner else {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot. Raises: ContractError: it is none of this device."""
        inner, held = state.get("inner"), state.get("held")
        if not isinstance(inner, Mapping) or not isinstance(held, Tensor):
            raise ContractError("not a snapshot of a device that keeps its steps", where=self._port.name, got=str(state)[:80])
        super().restore(inner)
        self._held.hold(held.clone())


def stepped(device: Device) -> Device:
    """`device`, refusing steps that are too large; as it is if its port limits none, or it keeps them itself.

    Raises:
        ContractError: a device that recovers rung by rung must keep its steps itself, since a recovery moves its outputs.
    """
    if not device.spec.inputs.slews or slew_of(device).by != "nobody":
        return device
    if isinstance(device, Recoverable):
        raise ContractError(
            "a device with a recovery ladder keeps the steps of its drive itself", where=f"port {device.spec.inputs.name}",
            got='no slew = Slew("refuses") or Slew("ramps")', allowed="a driver that asks hil.slew.Held before it sends",
            todo="add them to the driver, or leave max_step and slew_per_s out of its port",
        )  # fmt: skip
    return Stepped(device)


def kept_steps(device: Device) -> Device:
    """Return `device`. Raises: ContractError: its port limits steps, and nobody keeps them."""
    if device.spec.inputs.slews and slew_of(device).by == "nobody":
        raise ContractError(
            "nobody keeps the steps of this device inside its limits", where=f"port {device.spec.inputs.name}",
            got=type(device).__name__, allowed="a device that refuses or ramps", outputs="unchanged; nothing was sent",
            todo="wrap it once, where it is made: device = hil.devices.stepped.stepped(device)",
        )  # fmt: skip
    return device


def bare(device: Device) -> Device:
    """Return what is driven: the inner device of one that is wrapped here."""
    return device.inner if isinstance(device, Stepped) else device


def approached(device: Device, rows: Tensor) -> tuple[Tensor, Tensor]:
    """A drive that goes through `rows`, in steps that are allowed, from rest and back to rest.

    Args:
        device: a static one, at rest.
        rows: (rows, size) or (rows, n), inside the limits.

    Returns:
        the drive, (more rows, size), and the places of `rows` in it, (rows,).
    """
    port, slew = device.spec.inputs, slew_of(device)
    limit = port.step_limit(slew.row_s) if port.slews and slew.by != "ramps" else None
    if limit is None or port.size is None:
        return rows, torch.arange(len(rows))
    most = torch.tensor(each(limit, port.size), dtype=torch.float64)
    rest = port.resting().to(rows).unsqueeze(0)
    stops = torch.cat([rest, rows, rest])
    parts, places, count = [], [], 0
    for start, stop in zip(stops[:-1].double(), stops[1:].double(), strict=True):
        steps = max(1, math.ceil(float(((stop - start).abs().cpu() / most).max()) * (1 - 1e-6)))
        share = torch.arange(1, steps + 1, dtype=torch.float64, device=rows.device).unsqueeze(1) / steps
        parts.append(torch.lerp(start, stop, share))
        count += steps
        places.append(count - 1)
    return torch.cat(parts).to(rows.dtype).clamp(*port.bounds(rows)), torch.tensor(places[:-1])


def around_rest(port: Port, share: Tensor, row_s: float | None = None) -> Tensor:
    """Shares (..., size), 0 to 1 -> values near the rest of a port, no two farther apart than a step may be."""
    limit, values = port.step_limit(row_s), port.within(share)
    if limit is None:
        return values
    rest, half = port.resting().to(values), 0.499 * torch.tensor(each(limit, port.size)).to(values)
    low, high = port.bounds(values)
    return torch.lerp(torch.maximum(low, rest - half), torch.minimum(high, rest + half), share)
