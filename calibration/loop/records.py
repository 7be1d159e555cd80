"""Sequences through a node that remembers, each from rest. Time is counted in symbols: a virtual node is driven for one.

Drive (sequences, symbols) in, readings alike out, both float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.sequence import Subject
from hil.device import reset
from hil.errors import ContractError
from hil.seeding import generator

NODE = "node_s"  # a setting of a twin: the duration of a symbol


class Records:
    """Sequences of one procedure.

    Args:
        subject: the node.
        name: of the procedure, for its draws.

    symbol_s: duration of a symbol, as the nominal twin says; None: nobody does.

    Raises:
        ContractError: the node does not remember.
    """

    def __init__(self, subject: Subject, name: str) -> None:
        spec = subject.device.spec
        if not spec.memory or spec.inputs.size is None:
            raise ContractError("these procedures are for a node with memory", where=spec.inputs.name, got="another one")
        self._subject, self.port, self.out, self.nodes = subject, spec.inputs, spec.outputs, spec.inputs.size
        self.rng = generator(subject.seed, 0, f"calibration {name}")
        known = {} if subject.nominal is None else subject.nominal.settings()
        self.symbol_s = known.get(NODE)

    def __call__(self, drive: Tensor) -> Tensor:
        """Play sequences (sequences, symbols); the last step is filled up with the rest, whose readings are thrown away.

        Raises:
            OutOfRange: before anything is sent. LinkError, InstrumentError, MeasurementError.
        """
        sequences, symbols = drive.shape
        filled = torch.cat([drive, torch.full((sequences, -symbols % self.nodes), self.rest)], 1)
        reset(self._subject.device)
        answer = self._subject.device.forward(self.steps(filled))
        return answer.transpose(0, 1).reshape(sequences, -1)[:, :symbols].to("cpu", torch.float64)

    def steps(self, drive: Tensor) -> Tensor:
        """Return sequences (sequences, symbols), a whole number of steps each, as a device takes them: (time, batch, nodes)."""
        return drive.float().view(len(drive), -1, self.nodes).transpose(0, 1).contiguous()

    @property
    def rest(self) -> float:
        """The drive at rest."""
        return float(self.port.resting()[0])

    def around_rest(self, share: float, *shape: int) -> Tensor:
        """Draw drives around the rest, evenly, by at most a share of the port's range, float64."""
        low, high = self.port.shared_low, self.port.shared_high
        half = 0.5 * share * (high - low)
        drawn = self.rest + half * (2 * torch.rand(shape, generator=self.rng, dtype=torch.float64) - 1)
        return drawn.clamp(low, high).float().double()

    def uniform(self, count: int) -> Tensor:
        """Draw `count` numbers in [0, 1), float64."""
        return torch.rand(count, generator=self.rng, dtype=torch.float64)
