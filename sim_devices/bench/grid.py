"""The plant of a vector bench: K outputs drive a twin at once, L meters read it.

    x_k = per_volt sqrt(light) v_k         v_k what stands at output k, 0 V while it is off; light: as a share of the full one
    p_k = v_k                              of outputs that program it, in the unit of its parameters
    y   = node.respond(x, p)               the state goes on from reading to reading
    i_l = a_per_unit y_l                   what meter l reads, in A, or in the unit that it measures

Noise and drift of reading n come from the generator (seed, n, "grid"), so a snapshot is the number of readings and the state.
A box that plays records of its own is asked for all samples of a record at once.
A meter that is read alone drives the node once: meters that are read one after another see noise of their own, as boxes do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from hil.errors import ConfigError
from sim_devices.bench.answering import Answering
from sim_devices.instruments.probe import Probe
from sim_devices.switch_log import SwitchLog
from sim_devices.twin import Twin


@runtime_checkable
class Standing(Protocol):
    """A box with levels at its channels."""

    @property
    def lock(self) -> threading.Condition:
        """The lock of the bench."""

    def stands(self, channel: int) -> float:
        """Return the level at a channel, in V, 0 while it is off."""


@runtime_checkable
class Player(Protocol):
    """A box that plays records of all its channels, and takes as many samples at its inputs."""

    def through(self, node: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
        """Lead its outputs to its inputs through `node`: (samples, channels) in V -> (samples, inputs)."""


class Grid(Answering):
    """Sources and meters around one node. Boxes on one bench share one lock, which is held when the plant is called.

    Args:
        sources: box and channel of each input of the node, in order.
        meters: box and input of each of its outputs.
        node: the twin.
        programs: box and channel of each parameter of the node; none: nothing is programmed.
        per_volt: unit of the node's inputs for a V.
        a_per_unit: A, or the unit of the meters, for a unit of the node's outputs, as of a photodiode.
        seed: of noise and drift.
        log: of the outputs that are switched.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Standing, int]],
        meters: Sequence[tuple[Probe, int]],
        node: Twin,
        per_volt: float = 1.0,
        a_per_unit: float = 1.0,
        *,
        programs: Sequence[tuple[Standing, int]] = (),
        seed: int = 0,
        log: SwitchLog | None = None,
    ) -> None:
        found, spec = (len(sources), len(meters)), node.spec
        if found != (spec.inputs.size or 1, spec.outputs.size or 1):  # a node of any width stands for one channel
            raise ConfigError(
                "the node has another number of inputs or outputs", where="wiring",
                got=f"{found[0]} sources, {found[1]} meters", allowed=f"{spec.inputs.size or 1}, {spec.outputs.size or 1}",
            )  # fmt: skip
        parameters = 0 if spec.params is None else spec.params.size
        if programs and len(programs) != parameters:
            raise ConfigError(
                "the node has another number of parameters", where="wiring", got=f"{len(programs)} outputs that program it",
                allowed=f"{parameters}, or none",
            )  # fmt: skip
        factors = {"grid.per_volt": per_volt, "grid.a_per_unit": a_per_unit, "grid.light": 1.0}
        super().__init__(node, factors, sources[0][0].lock, seed, "grid", log)
        self._sources, self._programs = list(sources), list(programs)
        for number, (meter, channel) in enumerate(meters):
            meter.attach(channel, partial(self._current, number))
        boxes = {id(box): box for box, _ in (*sources, *programs, *meters)}
        if len(boxes) == 1 and isinstance(sources[0][0], Player):
            self._inputs = [channel - 1 for _, channel in meters]
            sources[0][0].through(self._recorded)

    def _recorded(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """(samples, channels) in V -> (samples, inputs of the box); samples that are programmed alike are one reading."""
        factor = self._factors["grid.per_volt"] * max(self._factors["grid.light"], 0.0) ** 0.5
        volts = torch.from_numpy(levels).float()
        x = volts[:, [channel - 1 for _, channel in self._sources]] * factor
        programmed = volts[:, [channel - 1 for _, channel in self._programs]]
        ends = [0, *(torch.nonzero((programmed[1:] != programmed[:-1]).any(1)).reshape(-1) + 1).tolist(), len(volts)]
        found = [self._answer(x[a:b], programmed[a] if self._programs else None) for a, b in pairwise(ends)]
        taken = torch.zeros(len(volts), max(self._inputs) + 1, dtype=torch.float64)
        taken[:, self._inputs] = torch.cat(found).double() * self._factors["grid.a_per_unit"]
        return taken.numpy()

    def _current(self, number: int, volts: float) -> float:
        """Return what meter `number` reads, whatever V it holds itself."""
        factor = self._factors["grid.per_volt"] * max(self._factors["grid.light"], 0.0) ** 0.5
        x = torch.tensor([[box.stands(channel) for box, channel in self._sources]]) * factor
        params = torch.tensor([box.stands(channel) for box, channel in self._programs]) if self._programs else None
        return float(self._answer(x, params).reshape(-1)[number]) * self._factors["grid.a_per_unit"]
