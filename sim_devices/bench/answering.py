"""Common parts of plants whose node answers reading by reading: its state, its noise, and factors that can be set.

    y, state = node.respond(state, params, x, rng)      noise and drift of reading n come from the generator (seed, n, name)

So a snapshot is the number of readings, the state, and the factors.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hil.errors import ConfigError, ContractError
from hil.seeding import generator
from sim_devices.switch_log import SwitchLog
from sim_devices.twin import State, Twin, saved, taken


class Answering:
    """The side of such a plant that the control port shows. Boxes share its lock, which is held when it is called.

    Args:
        node: the twin.
        factors: the parameters of the plant, by path.
        lock: of the bench.
        seed: of noise and drift.
        name: of their stream.
        log: of the outputs that are switched.
    """

    def __init__(
        self, node: Twin, factors: Mapping[str, float], lock: threading.Condition, seed: int, name: str, log: SwitchLog | None
    ) -> None:
        self._node, self._factors, self._lock, self._seed, self._name = node, dict(factors), lock, seed, name
        self._state: State | None = None
        self._read, self._log = 0, log or SwitchLog()

    @torch.no_grad()
    def _answer(self, x: Tensor, params: Tensor | None) -> Tensor:
        """(1, inputs) -> (1, outputs): one more reading."""
        rng = generator(self._seed, self._read, self._name)
        if self._state is None:
            self._state = self._node.rest(1, generator(self._seed, 0, "rest"))
        y, self._state = self._node.respond(self._state, params, x, rng)
        self._read += 1
        return y

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
        """Return the number of the reading, the state as tensors, and the factors."""
        with self._lock:
            return {"read": self._read, "state": saved(self._state), "factors": dict(self._factors)}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot. Raises: ContractError: it is none of this bench."""
        read, parts, factors = state.get("read"), state.get("state"), state.get("factors")
        if not (isinstance(read, int) and isinstance(factors, Mapping) and set(factors) == set(self._factors)):
            raise ContractError("not a snapshot of this bench", where="wiring", got=str(state)[:80])
        kept = taken(parts)
        with self._lock:
            self._read, self._factors = read, {name: float(value) for name, value in factors.items()}
            self._state = kept
