"""Traffic to the devices: passes, bits, firing rates; counted from outside, whatever the learner does.

    bits = 16 sent + 16 read          an analog node: 16 bits a value, as the drivers send codes and read words
    bits = 16 sent +  1 read          a spiking node: one bit a neuron and time step; 2 for ternary couples

These are the bits that the experiment needs, not those of a wire: headers, retries and float32 currents are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from hil.device import Spec
from hil.devices.meter import Metered
from hil.port import each

CONVERTER_BITS = 16


@dataclass
class Traffic:
    """The traffic of one device: calls, values sent and read, and how many of those read were not 0."""

    calls: int = 0
    sent: int = 0
    read: int = 0
    fired: int = 0

    def add(self, drive: Tensor, answer: Tensor) -> None:
        """Count a shot: its values (any shape), and how many answers are not 0."""
        self.calls += 1
        self.sent += drive.numel()
        self.read += answer.numel()
        self.fired += int(answer.count_nonzero())

    def bits(self, spec: Spec) -> int:
        """Moved to and from a device of this kind."""
        return self.sent * CONVERTER_BITS + self.read * read_bits(spec)

    def firing_rate(self, spec: Spec) -> float | None:
        """Spikes per neuron and time step; None for a static node, or if it was not asked."""
        return self.fired / self.read if spec.temporal and not spec.memory and self.read else None


def read_bits(spec: Spec) -> int:
    """Bits that one value read from such a device carries."""
    if not spec.temporal or spec.memory:
        return CONVERTER_BITS
    return 2 if min(each(spec.outputs.low, None)) < 0 else 1


@contextmanager
def watched(devices: Sequence[Metered]) -> Iterator[list[Traffic]]:
    """Traffic of each device while the context is open; what they count goes on as ever."""
    seen = [Traffic() for _ in devices]
    try:
        for device, traffic in zip(devices, seen, strict=True):
            device.watch = traffic.add
        yield seen
    finally:
        for device in devices:
            device.watch = None
