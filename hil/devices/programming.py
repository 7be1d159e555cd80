"""What a device has programmed on it: sent when it changes, in steps that its channels may make, and counted.

    p_n = held + n / N (p - held),  n = 1 .. N       N: the fewest steps with |p_n - p_(n-1)| <= max_step

All channels move together, so each stays between two settings that were asked for, and inside its limits. A device that ramps
by itself (hil/slew.py) is asked once. Before the first time the channels hold the rest of their port; after a fault nobody
knows what they hold, so it is programmed again, and a step that may be too large is refused.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hil.device import Device, program
from hil.errors import ContractError, OutOfRange
from hil.port import UNSENT, each
from hil.slew import Held, slew_of


class Programming:
    """Programs a device whose spec has params.

    Args:
        device: what is programmed.

    held: what it has programmed, (P,); None: nothing yet, or nobody knows.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.held: Tensor | None = None
        self._at: Held | None = None  # of channels whose steps are kept here

    def to(self, params: Tensor) -> int:
        """Program `params` (P,), unless they are what is held; return how many channels changed.

        Raises:
            OutOfRange: a level or a step beyond the limits; nothing was sent.
            ContractError: nothing can be programmed, or a rate is limited that the device does not keep.
        """
        wanted = params.detach()
        if self.held is not None and torch.equal(wanted, self.held.to(wanted)):
            return 0
        before, self.held = self.held, None
        for levels in self._steps(wanted):
            self._send(levels)
        self.held = wanted.clone()
        return wanted.numel() if before is None else int((wanted != before.to(wanted)).sum())

    def lost(self) -> None:
        """Note that nobody knows what the device has programmed."""
        self.held = None

    def _steps(self, wanted: Tensor) -> list[Tensor]:
        port = self._device.spec.params
        if port is None or not port.slews or slew_of(self._device).by == "ramps":
            return [wanted]
        if port.slew_per_s is not None:
            raise ContractError(
                "a rate of what is programmed is limited, and nobody keeps it", where=f"port {port.name}",
                got=f"slew_per_s = {port.slew_per_s}", allowed='a device that says slew = Slew("ramps"), or max_step',
                outputs=UNSENT, todo="let the device go there in steps by itself, or limit the step in its port",
            )  # fmt: skip
        if self._at is None:
            self._at = Held(port)
        port.check(wanted)
        start, most = (
            self._at.rows[-1].double(),
            torch.tensor(each(port.step_limit() or math.inf, port.size), dtype=torch.float64),
        )
        way = wanted.detach().cpu().double() - start
        count = max(1, math.ceil(float((way.abs() / most).max()) * (1 - 1e-6)))
        shares = torch.arange(1, count + 1, dtype=torch.float64).unsqueeze(1) / count
        rows = (start + shares * way).to(wanted).clamp(*port.bounds(wanted))
        self._at.check(rows)
        return [*rows[:-1], wanted]

    def _send(self, levels: Tensor) -> None:
        try:
            program(self._device, levels)
        except OutOfRange:
            raise  # nothing was sent
        except BaseException:
            if self._at is not None:
                self._at.lost(levels)
            raise
        if self._at is not None:
            self._at.sent(levels)
