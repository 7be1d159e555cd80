"""The plant of a vector bench: K outputs drive a twin at once, L source-meters read it.

    x_k = per_volt sqrt(light) v_k         v_k what stands at output k, 0 V while it is off; light: as a share of the full one
    p_k = v_k                              of outputs that program it, in the unit of its parameters
    y   = node.respond(x, p)               the state goes on from reading to reading
    i_l = a_per_unit y_l                   what meter l reads, in A

Noise and drift of reading n come from the generator (seed, n, "grid"), so a snapshot is the number of readings and the state.
A meter that is read alone drives the node once: meters that are read one after another see noise of their own, as boxes do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from hil.errors import ConfigError, ContractError
from hil.seeding import generator
from sim_devices.instruments.keithley_2400 import Keithley2400
from sim_devices.instruments.source_box import SourceBox
from sim_devices.simulated import DTYPES
from sim_devices.switch_log import SwitchLog
from sim_devices.twin import State, Twin


class Grid:
    """Sources and meters around one node. Boxes on one bench share one lock, which is held when the plant is called.

    Args:
        sources: box and channel of each input of the node, in order.
        meters: of each of its outputs.
        node: the twin.
        programs: box and channel of each parameter of the node; none: nothing is programmed.
        per_volt: unit of the node's inputs for a V.
        a_per_unit: A for a unit of the node's outputs, as of a photodiode.
        seed: of noise and drift.
        log: of the outputs that are switched.
    """

    def __init__(
        self,
        sources: Sequence[tuple[SourceBox, int]],
        meters: Sequence[Keithley2400],
        node: Twin,
        per_volt: float = 1.0,
        a_per_unit: float = 1.0,
        *,
        programs: Sequence[tuple[SourceBox, int]] = (),
        seed: int = 0,
        log: SwitchLog | None = None,
    ) -> None:
        found, spec = (len(sources), len(meters)), node.spec
        if found != (spec.inputs.size, spec.outputs.size):
            raise ConfigError(
                "the node has another number of inputs or outputs", where="wiring",
                got=f"{found[0]} sources, {found[1]} meters", allowed=f"{spec.inputs.size}, {spec.outputs.size}",
            )  # fmt: skip
        parameters = 0 if spec.params is None else spec.params.size
        if programs and len(programs) != parameters:
            raise ConfigError(
                "the node has another number of parameters", where="wiring", got=f"{len(programs)} outputs that program it",
                allowed=f"{parameters}, or none",
            )  # fmt: skip
        self._sources, self._programs, self._node, self._seed = list(sources), list(programs), node, seed
        self._factors = {"grid.per_volt": per_volt, "grid.a_per_unit": a_per_unit, "grid.light": 1.0}
        self._state: State | None = None
        self._read, self._log = 0, log or SwitchLog()
        self._lock = sources[0][0].lock
        for number, meter in enumerate(meters):
            meter.conducts = partial(self._current, number)

    @torch.no_grad()
    def _current(self, number: int, volts: float) -> float:
        """A at meter `number`, whatever V it holds itself."""
        factor = self._factors["grid.per_volt"] * max(self._factors["grid.light"], 0.0) ** 0.5
        x = torch.tensor([[box.stands(channel) for box, channel in self._sources]]) * factor
        rng = generator(self._seed, self._read, "grid")
        if self._state is None:
            self._state = self._node.rest(1, generator(self._seed, 0, "rest"))
        params = torch.tensor([box.stands(channel) for box, channel in self._programs]) if self._programs else None
        y, self._state = self._node.respond(self._state, params, x, rng)
        self._read += 1
        return float(y.reshape(-1)[number]) * self._factors["grid.a_per_unit"]

    @property
    def log(self) -> tuple[Any, ...]:
        """Outputs that went on or off, oldest first."""
        return self._log.entries

    def extremes(self) -> Mapping[str, object]:
        """Return {}: the boxes say themselves."""
        return {}

    def paths(self) -> tuple[str, ...]:
        """Name all parameters that `get` and `set` know."""
        return tuple(self._factors)

    def get(self, path: str) -> float:
        """A parameter of the plant. Raises: ConfigError: there is no such path."""
        with self._lock:
            return self._factors[self._known(path)]

    def set(self, path: str, value: float) -> None:
        """Change a parameter. Raises: ConfigError: there is no such path."""
        with self._lock:
            self._factors[self._known(path)] = value

    def _known(self, path: str) -> str:
        if path not in self._factors:
            raise ConfigError("the plant has no such parameter", where="wiring", got=path, allowed=", ".join(self._factors))
        return path

    def snapshot(self) -> dict[str, object]:
        """Return the number of the reading and the state, as JSON values."""
        with self._lock:
            parts = None if self._state is None else [{"dtype": str(p.dtype), "values": p.tolist()} for p in self._state]
            return {"read": self._read, "state": parts, "factors": dict(self._factors)}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot. Raises: ContractError: it is none of this bench."""
        read, parts, factors = state.get("read"), state.get("state"), state.get("factors")
        if not (isinstance(read, int) and isinstance(factors, Mapping) and set(factors) == set(self._factors)):
            raise ContractError("not a snapshot of this bench", where="wiring", got=str(state)[:80])
        with self._lock:
            self._read, self._factors = read, {name: float(value) for name, value in factors.items()}
            self._state = None
            if isinstance(parts, list):
                self._state = tuple(torch.tensor(p["values"], dtype=DTYPES[p["dtype"]]) for p in parts)
