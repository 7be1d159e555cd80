"""Sweeps through a node that is shared in time, and when each of them was made.

    t = that of the node                    where it is simulated behind instruments and says it
    t <- t + overhead + values x step       where it is a twin without instruments, as the nominal twin says
    t = clock                               else

Drive (n,) in, reading (n,) out, both float64, in the order in which the node got them.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import brentq
from torch import Tensor

from calibration.sequence import Subject
from hil.device import OwnTime
from hil.errors import ContractError
from hil.seeding import generator

OVERHEAD, STEP = "overhead_s", "step_s"  # settings of a twin: its time per call, and per value


class Shots:
    """Shots of one procedure.

    Args:
        name: of the procedure, for its draws. now_s: s since it began.
    """

    def __init__(self, subject: Subject, name: str) -> None:
        spec = subject.device.spec
        if spec.temporal:
            raise ContractError("these procedures are for a static node", where=spec.inputs.name, got="a temporal one")
        self._subject, self.port, self.out = subject, spec.inputs, spec.outputs
        self.rng = generator(subject.seed, 0, f"calibration {name}")
        known = {} if subject.nominal is None else subject.nominal.settings()
        self._first_s = self._own_s
        virtual = spec.provenance == "twin" and OVERHEAD in known and STEP in known
        self._pace = (known[OVERHEAD], known[STEP]) if virtual else None
        self._began_s = subject.clock()
        self._virtual_s = 0.0

    @property
    def now_s(self) -> float:
        """Seconds since the procedure began; simulated ones where the bench has a pace."""
        if self._first_s is not None and (own_s := self._own_s) is not None:
            return own_s - self._first_s
        return self._virtual_s if self._pace else self._subject.clock() - self._began_s

    @property
    def _own_s(self) -> float | None:
        device = self._subject.device
        return device.time_s if isinstance(device, OwnTime) else None

    def __call__(self, drive: Tensor) -> Tensor:
        """Play a sweep; a node of a fixed width gets it in rows, the last one filled up with its own last value.

        Raises:
            OutOfRange: before anything is sent. LinkError, InstrumentError, MeasurementError.
        """
        width = self.port.size or len(drive)
        filled = torch.cat([drive, drive[-1:].expand(-len(drive) % width)])
        answer = self._subject.device.forward(filled.to(torch.float32).view(-1, width))
        if self._pace:
            self._virtual_s += self._pace[0] + len(filled) * self._pace[1]
        return answer.reshape(-1)[: len(drive)].to("cpu", torch.float64)

    def levels(self, count: int) -> Tensor:
        """(count,) evenly over the port, its ends included, as the device gets them: float32 values."""
        return self._held(torch.linspace(self.port.shared_low, self.port.shared_high, count, dtype=torch.float64))

    def scattered(self, count: int) -> Tensor:
        """(count,) all over the port, no two alike, in random order: one at random in each of `count` equal parts."""
        share = (torch.arange(count, dtype=torch.float64) + self.uniform(count)) / count
        return self._held(self.shuffled(self.port.shared_low + (self.port.shared_high - self.port.shared_low) * share))

    def uniform(self, count: int) -> Tensor:
        """Draw `count` numbers in [0, 1), float64."""
        return torch.rand(count, generator=self.rng, dtype=torch.float64)

    def shuffled(self, values: Tensor) -> Tensor:
        """Return `values` in a random order."""
        return values[torch.randperm(len(values), generator=self.rng)]

    @property
    def rest(self) -> float:
        """0, or the limit nearest to it."""
        return min(max(0.0, self.port.shared_low), self.port.shared_high)

    def _held(self, drive: Tensor) -> Tensor:
        held: Tensor = drive.clamp(self.port.shared_low, self.port.shared_high).to(torch.float32).to(torch.float64)
        return held


def quantum(reading: Tensor) -> float:
    """The step between readings, 0 if they are not on a grid: readings of a converter come back again and again."""
    values = torch.unique(reading)
    if len(values) < 2 or len(values) > 0.5 * len(reading):
        return 0.0
    gaps = values.diff()
    apart = gaps[gaps > 1e-3 * float(gaps.median())]  # float32 may tell one code in two ways
    return float(apart.min())


def of_steps(total: float, grain: float) -> float:
    """Return how much the steps of a converter add to the variance of repeated readings, in the mean over many levels.

    v(s) = s^2 + 1/12 - sum_k exp( -4 pi^2 k^2 s^2 ) / ( 2 pi^2 k^2 )        in squares of a step; s: the noise in front of it

    The sum is the part of the steps' error that every repeat has: with noise of half a step and more none, so that 1/12 is
    added (Sheppard); without noise all of it (Widrow & Kollar, Quantization Noise, Cambridge 2008).

    Args:
        total: variance of the readings.
        grain: the step; 0: none is seen.
    """
    if not grain:
        return 0.0
    k = torch.arange(1, 400, dtype=torch.float64)

    def added(s: float) -> float:
        return 1 / 12 - float(((-4 * (math.pi * k * s) ** 2).exp() / (2 * (math.pi * k) ** 2)).sum())

    wanted = total / grain**2
    if wanted >= 1 + 1 / 12:
        return grain**2 / 12
    s = brentq(lambda s: s**2 + added(s) - max(wanted, added(0.0)), 0.0, 1.0)
    return grain**2 * added(s)
