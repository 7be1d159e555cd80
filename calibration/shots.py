"""Sweeps through a node that is shared in time, and when each of them was made.

    t <- t + overhead + values x step       where the node is a twin, whose time is its own, as the nominal twin says
    t = clock                               else

Drive (n,) in, reading (n,) out, both float64, in the order in which the node got them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.sequence import Subject
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
        virtual = spec.provenance == "twin" and OVERHEAD in known and STEP in known
        self._pace = (known[OVERHEAD], known[STEP]) if virtual else None
        self._began_s = subject.clock()
        self._virtual_s = 0.0

    @property
    def now_s(self) -> float:
        """Seconds since the procedure began; simulated ones where the bench has a pace."""
        return self._virtual_s if self._pace else self._subject.clock() - self._began_s

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
