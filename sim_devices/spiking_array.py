"""An array of spiking neurons as a Device, and the chip that arrays are cut from.

    forward(x)   currents (time, batch, size) -> spikes; goes on from the state that the last call left, until reset()
    monitor()    the membranes v[t], before the reset, of the last call

Noise of time step k, counted over the life of the array, comes from the generator (seed, k, "noise"): one call over T steps and
T calls over one step give the same bits, also after a resume.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from hil.device import ArraySpec, Provenance
from hil.errors import ContractError
from hil.seeding import generator, key
from sim_devices.lif_array import LifArray, Neuron
from sim_devices.simulated import Simulated
from sim_devices.twin import State, follow


class SpikingArray(Simulated):
    """An array of simulated neurons as a temporal Device. What is programmed are thresholds (size,); mismatch is on top.

    Args:
        twin: the neurons.
        seed: of the membrane noise.
    """

    counted = "steps"
    _twin: LifArray

    def __init__(self, twin: LifArray, seed: int = 0) -> None:
        super().__init__(twin, seed)
        self._membranes: Tensor | None = None

    @property
    def twin(self) -> LifArray:
        """The neurons underneath."""
        return self._twin

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Answer currents (time, batch, size) with spikes of the same shape; the membranes go on from call to call.

        Raises:
            OutOfRange: a current beyond the limit.
            ContractError: not (time, batch, size), or another batch size than since the last reset.
        """
        self.spec.inputs.check(x)
        if x.ndim != 3:
            raise ContractError(
                "a spiking array needs a time axis", where="spiking array", got=f"shape {tuple(x.shape)}",
                allowed="(time, batch, size)", outputs="unchanged; nothing was sent",
            )  # fmt: skip
        if x.device != self._place:
            self._state, self._params = follow(self._twin, self._state, self._params, x.device)
            self._place = x.device
        state = self._state
        if state is None:
            state = self._twin.rest(x.shape[1], torch.Generator(x.device))
        self._membranes = None  # given back before as much is taken again
        spikes, self._membranes, self._state = run_keyed(self._twin, state, self._params, x, self._seed, self._count)
        self._count += len(x)
        return spikes

    def monitor(self) -> Tensor:
        """Membranes (time, batch, size) of the last `forward`, before the reset; still there after reset().

        Raises:
            ContractError: nothing was run yet.
        """
        if self._membranes is None:
            raise ContractError("no membranes yet", where="spiking array", got="monitor()", allowed="after forward()")
        return self._membranes


def run_keyed(
    twin: LifArray, state: State, params: Tensor | None, x: Tensor, seed: int, first_step: int, stream: str = "noise"
) -> tuple[Tensor, Tensor, State]:
    """`twin.run`, with the noise of each step from its own key (seed, step, stream)."""
    return twin.run(state, params, x, lambda step: generator(seed, first_step + step, stream, x.device))


class TwinChip:
    """A source of arrays: every layer of a network needs neurons of its own.

    The same (settings, seed) and the same order of requests give the same neurons, mismatch included.

    Args:
        settings: the design of the neurons, and its spread.
        seed: of fabrication and noise.
    """

    Settings: ClassVar[type[Neuron]] = Neuron
    provenance: ClassVar[Provenance] = "twin"

    def __init__(self, settings: Neuron | None = None, seed: int = 0) -> None:
        self.neuron, self.seed = settings or Neuron(), seed
        self._cut = 0

    def array(self, spec: ArraySpec) -> SpikingArray:
        """The next array.

        Raises:
            ConfigError: settings that make no neuron.
        """
        return self.cut(spec.size, replace(self.neuron, **spec.design), spec.couples)

    def cut(self, size: int, neuron: Neuron, couples: bool = False) -> SpikingArray:
        """The next array, of a design of its own."""
        seed = key(self.seed, self._cut, "array")
        array = SpikingArray(LifArray(size, neuron, couples=couples, seed=seed), seed)
        self._cut += 1
        return array

    def close(self) -> None:
        """Do nothing: there is no output to make safe."""
