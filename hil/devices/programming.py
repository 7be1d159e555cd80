"""What a device has programmed on it: sent when it changes, in steps that its channels may make, and counted.

    p_n = held + n / N (p - held),  n = 1 .. N       N: the fewest steps with |p_n - p_(n-1)| <= max_step

All channels move together, so each stays between two settings that were asked for, and inside its limits. A device that ramps
by itself (hil/slew.py) is asked once. Before the first time the channels hold the rest of their port; after a fault nobody
knows what they hold, so it is programmed again, and a step that may be too large is refused.

Verified, where writes are not exact: all channels are read back, and those that are off are written once more, at most `tries`
times. Each write aims at p again, so it is inside the same limits.

    off_k = |held_k - p_k| > tolerance (high_k - low_k)

Source: Alibart et al., Nanotechnology 23, 075201 (2012), tuning by writes and reads in turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hil.device import Device, program, reads_back
from hil.errors import ContractError, NotAReading, OutOfRange
from hil.port import UNSENT, each
from hil.slew import Held, slew_of


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

    held: what it has programmed, (P,); None: nothing yet, or nobody knows.
    verify: how it is verified; None: it is not.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.verify: Verify | None = None
        self.held: Tensor | None = None
        self._at: Held | None = None  # of channels whose steps are kept here

    def to(self, params: Tensor) -> Spent:
        """Program `params` (P,), unless they are what is held, and verify them where that was asked for.

        Raises:
            OutOfRange: a level or a step beyond the limits; nothing was sent.
            ContractError: nothing can be programmed or read back, or a rate is limited that the device does not keep.
            NotAReading: what was read back is no number.
        """
        wanted = params.detach()
        if self.held is not None and torch.equal(wanted, self.held.to(wanted)):
            return Spent()
        before, self.held = self.held, None
        for levels in self._steps(wanted):
            self._send(levels)
        changed = wanted.numel() if before is None else int((wanted != before.to(wanted)).sum())
        spent = Spent(changed) if self.verify is None else self._verified(wanted, changed, self.verify)
        self.held = wanted.clone()
        return spent

    def holds(self, params: Tensor) -> None:
        """Note that the channels hold `params` (P,), as the state says that a twin was restored to: no step leads there."""
        port = self._device.spec.params
        if port is not None and port.slews:
            self._at = Held(port)
            self._at.hold(params)

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
            writes += missed
        return Spent(writes, reads, tries, missed)

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
