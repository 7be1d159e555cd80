"""A Twin as a Device: what the learner drives when there is no bench.

Noise of call k comes from the generator (seed, k, "noise"), so a saved and restored device goes on with the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from hil.device import Spec
from hil.errors import ContractError
from hil.seeding import generator
from sim_devices.twin import State, Twin, follow


class Simulated:
    """A twin as a Device: it keeps the state, the parameters and the generators of the noise.

    Args:
        twin: the physics.
        seed: of its noise and drift.
    """

    counted: ClassVar[str] = "calls"  # by what the generators of the noise are keyed; its name in a snapshot

    def __init__(self, twin: Twin, seed: int = 0) -> None:
        self._twin, self._seed = twin, seed
        self._count = 0
        self._params: Tensor | None = None
        self._state: State | None = None
        self._place: torch.device | None = None  # where all of it is; None: not known

    @cached_property
    def spec(self) -> Spec:
        """The twin's, and a twin answers, whatever it says of itself. Made once: every shot asks for it several times."""
        spec = self._twin.spec
        return spec if spec.provenance == "twin" else replace(spec, provenance="twin")

    @property
    def twin(self) -> Twin:
        """The physics underneath."""
        return self._twin

    def program(self, params: Tensor) -> None:
        """Set the parameters.

        Raises:
            OutOfRange: beyond the limits of their port, or NaN.
            ContractError: this node has none.
        """
        port = self.spec.params
        if port is None:
            raise ContractError("this node is fixed", where=self.spec.inputs.name, got="program()", allowed="drive it only")
        self._params, self._place = port.check(params).detach().clone(), None

    def reset(self) -> None:
        """Forget temporal state. A static node's slow state (drift) is not the learner's to reset."""
        if self.spec.temporal:
            self._state = None

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Answer `x` with the twin's response and noise; the state goes on from call to call."""
        self.spec.inputs.check(x)
        if x.device != self._place:
            self._state, self._params = follow(self._twin, self._state, self._params, x.device)
            self._place = x.device
        rng = generator(self._seed, self._count, "noise", x.device)
        if self._state is None:
            self._state = self._twin.rest(x.shape[-2], generator(self._seed, self._count, "rest", x.device))
        answer, self._state = self._twin.respond(self._state, self._params, x, rng)
        self._count += 1
        return answer

    def close(self) -> None:
        """Do nothing: there is no output to make safe."""

    def snapshot(self) -> Mapping[str, object]:
        """Return counter, state and parameters as JSON values."""
        state = None if self._state is None else [{"dtype": str(t.dtype), "values": t.tolist()} for t in self._state]
        return {self.counted: self._count, "state": state, "params": None if self._params is None else self._params.tolist()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot.

        Raises:
            ContractError: it is none.
        """
        count, saved, params = state[self.counted], state["state"], state["params"]
        if not isinstance(count, int) or not (saved is None or isinstance(saved, list)):
            raise ContractError("not a snapshot of a simulated device", where=self.spec.inputs.name, got=str(state)[:80])
        self._count = count
        self._state = None if saved is None else tuple(torch.tensor(t["values"], dtype=DTYPES[t["dtype"]]) for t in saved)
        self._params, self._place = None if params is None else torch.tensor(params), None


DTYPES = {str(d): d for d in (torch.float32, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.bool)}
