"""The ports of a node with memory that is driven and read in V, and the way of a reading: noise, a converter, its range.

    reading = noise-free reading + noise n       n normal; then rounded to `bits`, within the range of the converter

The converter takes a share MARGIN of the full scale beyond what the node can answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hil.device import Port, Spec
from hil.errors import ContractError
from sim_devices.twin import State, converted

MARGIN = 0.25


@dataclass(frozen=True, slots=True)
class Detection:
    """Drive and reading of a node with memory, which answers each channel that it is sent.

    Args:
        name: of the node, for its ports and for messages.
        nodes: channels.
        low_v, high_v: limits of the drive.
        least_v, most_v: between which the readings lie without noise.
        noise_v: standard deviation of a reading.
        bits: of the converter; 0: it does not round.
    """

    name: str
    nodes: int
    low_v: float
    high_v: float
    least_v: float
    most_v: float
    noise_v: float = 0.0
    bits: int = 0

    @property
    def spec(self) -> Spec:
        """The ports: a drive in V and a reading in V for each channel; no parameters."""
        beyond = MARGIN * max(abs(self.least_v), abs(self.most_v))
        return Spec(
            inputs=Port(f"{self.name} drive", self.low_v, self.high_v, "V", size=self.nodes),
            outputs=Port(f"{self.name} reading", self.least_v - beyond, self.most_v + beyond, "V", size=self.nodes),
            temporal=True,
            provenance="twin",
        )

    def goes_on(self, state: State, x: Tensor) -> None:
        """Raises: ContractError: x has no axis of time, or is another batch than the state is of."""
        if x.ndim != 3 or len(state[0]) != x.shape[1]:
            raise ContractError(
                f"a {self.name} goes on from the sequences it is in the middle of", where=self.name,
                got=f"shape {tuple(x.shape)}", allowed=f"(time, {len(state[0])}, {self.nodes})",
                outputs="unchanged; nothing was sent", todo="reset the device before another batch of sequences",
            )  # fmt: skip

    def read(self, reading: Tensor, rng: torch.Generator) -> Tensor:
        """Return what comes out of the converter for noise-free readings in V, same shape."""
        if self.noise_v:
            reading = noisy(reading, self.noise_v, rng)
        return converted(reading, self.spec.outputs, self.bits)


def noisy(values: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Return `values` with normal noise of that standard deviation."""
    return torch.add(values, torch.randn(values.shape, generator=rng, device=values.device, dtype=values.dtype), alpha=sigma)
