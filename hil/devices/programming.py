"""What a device has programmed on it: sent when it changes, in steps that its channels may make, and counted.

    p_n = held + n / N (p - held),  n = 1 .. N       N: the fewest steps with |p_n - p_(n-1)| <= max_step, slew_per_s T

Where a rate is limited, T or more passes between two steps: that between rows of the device, or 10 ms. So in any time t no
channel moves farther than slew_per_s (t + T). All channels move together, so each stays between two settings that were asked
for, and inside its limits. A device that ramps by itself (hil/slew.py) is asked once, unless a rate of its parameters is asked
for besides (hil/encoding.py, Levels). Before the first time the channels hold the rest of their port; after a fault nobody
knows what they hold, so it is programmed again, and a step that may be too large is refused.

Verified, where writes are not exact: all channels are read back, and those that are off are written once more, at most `tries`
times. Each write aims at p again, so it is inside the same limits.

    off_k = |held_k - p_k| > tolerance (high_k - low_k)

Source: Alibart et al., Nanotechnology 23, 075201 (2012), tuning by writes and reads in turn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hil.device import Device, program, reads_back
from hil.errors import ContractError, NotAReading, OutOfRange
from hil.port import Limit, Port, each
from hil.slew import Held, slew_of

STEP_S = 10e-3  # between two steps, of a device that does not say how far its rows are apart


@dataclass(frozen=True, slots=True)
class Verify:
    """How what was programmed is verified.

    Args:
        tolerance: how far a channel may be off, as a share of its range.
        tries: how often those that are off are written once more.
    """

    tolerance: float
    tries: int


@dataclass(frozen=True, slots=True)
class Spent:
    """The cost of programming something once.

    Args:
        writes: channels that were written: those that changed, and those that were written once more.
        reads: channels that were read back.
        tries: times that channels were written once more, after each of which the device settles.
        missed: channels that were off after the last try.
    """

    writes: int = 0
    reads: int = 0
    tries: int = 0
    missed: int = 0


class Programming:
    """Programs a device whose spec has params.

    Args:
        device: what is programmed.
        clock: seconds from any origin.
        sleep: waits so many seconds.

    held: what it has programmed, (P,); None: nothing yet, or nobody knows.
    written: how often each channel was written, (P,); None: nothing was programmed yet.
    verify: how it is verified; None: it is not.
    """

    def __init__(
        self, device: Device, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._device, self._clock, self._sleep = device, clock, sleep
        self.verify: Verify | None = None
        self.held: Tensor | None = None
        self.written: Tensor | None = None
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

    def to(self, params: Tensor) -> Spent:
        """Program `params` (P,), unless they are what is held, and verify them where that was asked for.

        Raises:
            OutOfRange: a level or a step beyond the limits; nothing was sent.
            ContractError: nothing can be programmed or read back.
            NotAReading: what was read back is no number.
        """
        wanted = params.detach()
        if self.held is not None and torch.equal(wanted, self.held.to(wanted)):
            return Spent()
        before, self.held = self.held, None
        for levels in self._steps(wanted):
            self._send(levels)
        changed = torch.ones_like(wanted, dtype=torch.bool) if before is None else wanted != before.to(wanted)
        self._count(changed)
        writes = int(changed.sum())
        spent = Spent(writes) if self.verify is None else self._verified(wanted, writes, self.verify)
        self.held = wanted.clone()
        return spent

    def holds(self, params: Tensor) -> None:
        """Note that the channels hold `params` (P,), as the state says that a twin was restored to: no step leads there."""
        port = self._kept()
        if port is not None:
            self._at = Held(port, self._step_s)
            self._at.hold(params)

    def _count(self, channels: Tensor) -> None:
        """Count one write of each of `channels`, (P,) bool."""
        self.written = channels.long().cpu() if self.written is None else self.written + channels.cpu()

    def _verified(self, wanted: Tensor, writes: int, policy: Verify) -> Spent:
        """Write channels once more while they are off. Args: writes: channels that were written before."""
        device, port = reads_back(self._device), self._device.spec.params
        assert port is not None  # it was programmed
        low, high = port.bounds(wanted)
        allowed = (policy.tolerance * (high - low)).expand_as(wanted)
        reads = 0
        for tries in range(policy.tries + 1):
            found = device.held().to(wanted)
            reads += wanted.numel()
            if found.shape != wanted.shape or not bool(torch.isfinite(found).all()):
                raise NotAReading(
                    "what was read back is no level", where=f"port {port.name}", got=f"shape {tuple(found.shape)}",
                    allowed=f"{wanted.numel()} finite numbers", todo="see what held() of the device returns",
                )  # fmt: skip
            off = (found - wanted).abs() > allowed
            missed = int(off.sum())
            if not missed or tries == policy.tries:
                break
            device.rewrite(wanted, off)
            self._count(off)
            writes += missed
        return Spent(writes, reads, tries, missed)

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
