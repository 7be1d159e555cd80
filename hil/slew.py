"""Limits on the steps of a drive: who keeps them, and what the channels hold meanwhile.

A Port with `max_step` or `slew_per_s` limits the step from row to row, and from what the channels hold to the first row of a
shot. A Port is a value, so what they hold is kept beside it: by `Held`, in a driver that checks its own steps, or in the
wrapper of hil/devices/stepped.py around one that does not. A driver that goes to a row in small steps says `Slew("ramps")`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hil.port import Port


@dataclass(frozen=True, slots=True)
class Slew:
    """A device's statement about the steps of its drive, as its attribute `slew`.

    Args:
        by: "refuses": it raises OutOfRange itself, before anything is sent; "ramps": it goes to each row in steps that are
            allowed, so none is refused for its distance; "nobody": it does neither, and is wrapped where it is opened.
        row_s: least time between two rows, in s; None: not known. Needed by `slew_per_s` of its port.
    """

    by: Literal["refuses", "ramps", "nobody"] = "nobody"
    row_s: float | None = None


NO_SLEW = Slew()
"""Of a device that says nothing about its steps."""


def slew_of(device: Any) -> Slew:
    """Return what `device` says of its steps; one that says nothing does nothing about them."""
    found = getattr(device, "slew", None)
    return found if isinstance(found, Slew) else NO_SLEW


class Held:
    """The levels that the channels of a port hold, so that the step to the first row of a shot is checked too.

    A driver asks `check` before it sends, calls `sent` afterwards, and `lost` where a fault leaves it unknown what was sent.

    Args:
        port: of the drive.
        row_s: time between rows, in s; None: not known.
    """

    def __init__(self, port: Port, row_s: float | None = None) -> None:
        if port.slews:
            port.step_limit(row_s)  # refused now, not at the first shot
        self._port, self._row_s = port, row_s
        self._held = port.resting().unsqueeze(0)

    @property
    def rows(self) -> Tensor:
        """(k, size): what the channels hold; several rows between which it may be, after a fault."""
        return self._held

    def hold(self, rows: Tensor) -> None:
        """Note what the channels hold, (k, size), as `rows` of another Held gave it."""
        self._held = self._rows(rows).clone()

    def check(self, values: Tensor) -> Tensor:
        """Return `values` unchanged. Raises: as `Port.check_steps`."""
        return self._port.check_steps(values, self._held, self._row_s)

    def sent(self, values: Tensor) -> None:
        """Note the last row of `values`, which the channels hold now."""
        if self._port.slews and values.numel():
            self._held = self._rows(values)[-1:].clone()

    def lost(self, values: Tensor) -> None:
        """Note that some of `values` may have been sent, or that the channels may be at rest."""
        if self._port.slews:
            low, high = torch.aminmax(torch.cat([self._held, self._rows(values), self._port.resting().unsqueeze(0)]), dim=0)
            self._held = torch.stack([low, high])

    def at_rest(self) -> None:
        """Note that the channels are at rest."""
        self._held = self._port.resting().unsqueeze(0)

    def _rows(self, values: Tensor) -> Tensor:
        return values.detach().to("cpu", torch.float32).reshape(-1, self._port.size or 1)
