"""What a device has programmed on it: sent when it changes, in steps that its channels may make, and counted.

    p_n = held + n / N (p - held),  n = 1 .. N       N: the fewest steps with |p_n - p_(n-1)| <= max_step, slew_per_s T

Where a rate is limited, T or more passes between two steps: that between rows of the device, or 10 ms. So in any time t no
channel moves farther than slew_per_s (t + T). All channels move together, so each stays between two settings that were asked
for, and inside its limits. A device that ramps by itself (hil/slew.py) is asked once, unless a rate of its parameters is asked
for besides (hil/encoding.py, Levels). Before the first time the channels hold the rest of their port; after a fault nobody
knows what they hold, so it is programmed again, and a step that may be too large is refused.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hil.device import Device, program
from hil.errors import ContractError, OutOfRange
from hil.port import Limit, Port, each
from hil.slew import Held, slew_of

STEP_S = 10e-3  # between two steps, of a device that does not say how far its rows are apart


class Programming:
    """Programs a device whose spec has params.

    Args:
        device: what is programmed.
        clock: seconds from any origin.
        sleep: waits so many seconds.

    held: what it has programmed, (P,); None: nothing yet, or nobody knows.
    changes: how often each channel changed, (P,); None: nothing was programmed yet.
    """

    def __init__(
        self, device: Device, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._device, self._clock, self._sleep = device, clock, sleep
        self.held: Tensor | None = None
        self.changes: Tensor | None = None
        self._rate: Limit | None = None
        self._at: Held | None = None  # of channels whose steps are kept here
        self._sent_s = -math.inf

    def slow(self, rate: Limit | None) -> None:
        """Keep a rate besides what the port limits.

        Args:
            rate: of all channels, or of each, in the unit of the port per s; None: none.

        Raises:
            ContractError: steps are kept here already, at another rate.
        """
        if self._at is not None and rate != self._rate:
            raise ContractError("a rate is set before anything is programmed", where="programming", got=f"{rate}")
        self._rate = rate

    def to(self, params: Tensor) -> int:
        """Program `params` (P,), unless they are what is held; return how many channels changed.

        Raises:
            OutOfRange: a level or a step beyond the limits; nothing was sent.
            ContractError: nothing can be programmed.
        """
        wanted = params.detach()
        if self.held is not None and torch.equal(wanted, self.held.to(wanted)):
            return 0
        before, self.held = self.held, None
        for levels in self._steps(wanted):
            self._send(levels)
        self.held = wanted.clone()
        changed = torch.ones(wanted.numel(), dtype=torch.bool) if before is None else (wanted != before.to(wanted)).cpu()
        self.changes = changed.long() if self.changes is None else self.changes + changed
        return int(changed.sum())

    def lost(self) -> None:
        """Note that nobody knows what the device has programmed."""
        self.held = None

    def _steps(self, wanted: Tensor) -> list[Tensor]:
        port = self._kept()
        if port is None:
            return [wanted]
        if self._at is None:
            self._at = Held(port, self._step_s)
        port.check(wanted)
        start, most = (
            self._at.rows[-1].double(),
            torch.tensor(each(port.step_limit(self._step_s) or math.inf, port.size), dtype=torch.float64),
        )
        way = wanted.detach().cpu().double() - start
        count = max(1, math.ceil(float((way.abs() / most).max()) * (1 - 1e-6)))
        shares = torch.arange(1, count + 1, dtype=torch.float64).unsqueeze(1) / count
        rows = (start + shares * way).to(wanted).clamp(*port.bounds(wanted))
        self._at.check(rows)
        return [*rows[:-1], wanted]

    def _kept(self) -> Port | None:
        """The port with the limits that are kept here; None: the device is asked once."""
        port = self._device.spec.params
        if port is None:
            return None
        kept = replace(port, max_step=None, slew_per_s=None) if slew_of(self._device).by == "ramps" else port
        if self._rate is not None:
            pairs = zip(each(kept.slew_per_s or math.inf, port.size), each(self._rate, port.size), strict=True)
            kept = replace(kept, slew_per_s=tuple(min(pair) for pair in pairs))
        return kept if kept.slews else None

    @property
    def _step_s(self) -> float:
        return slew_of(self._device).row_s or STEP_S

    def _send(self, levels: Tensor) -> None:
        if self._at is not None:
            self._pace()
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

    def _pace(self) -> None:
        """Wait until a step may follow the one before, where a rate is limited."""
        port = self._kept()
        if port is not None and port.slew_per_s is not None:
            wait_s = self._sent_s + self._step_s - self._clock()
            if wait_s > 0:
                self._sleep(wait_s)
            self._sent_s = self._clock()
