"""A Twin as a Device: what the learner drives when there is no bench.

Noise of call k comes from the generator (seed, k, "noise"), that of write or reading back n from (seed, n, "write"), so a saved
and restored device goes on with the same numbers.
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
from hil.twin import Writing
from sim_devices.twin import State, Twin, follow, saved, taken


class Simulated:
    """A twin as a Device: it keeps the state, the parameters and the generators of the noise.

    Args:
        twin: the physics.
        seed: of its noise and drift.
    """

    counted: ClassVar[str] = "calls"  # by what the generators of the noise are keyed; its name in a snapshot

    def __init__(self, twin: Twin, seed: int = 0) -> None:
        self._twin, self._seed = twin, seed
        self._count = self._pulses = 0
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
        wanted = port.check(params).detach().clone()
        if isinstance(self._twin, Writing):
            self._write(wanted, None)
        self._params, self._place = wanted, None

    @property
    def reads_back(self) -> bool:
        """True if the twin says what its channels hold."""
        return isinstance(self._twin, Writing)

    def held(self) -> Tensor:
        """Return what the channels hold, (P,). Raises: ContractError: the twin does not say."""
        twin = self._writing()
        self._pulses += 1
        state = self._begun(torch.device("cpu"))
        return twin.held(state, generator(self._seed, self._pulses, "write", state[0].device))

    def rewrite(self, params: Tensor, which: Tensor) -> None:
        """Write channels once more. Raises: OutOfRange: beyond a limit. ContractError: the twin does not write."""
        self._writing()
        port = self.spec.params
        assert port is not None  # or nothing is written
        self._write(port.check(params).detach(), which)

    def _writing(self) -> Writing:
        if not isinstance(self._twin, Writing):
            raise ContractError(
                "what this twin holds cannot be read back", where=self.spec.inputs.name, got=type(self._twin).__name__,
                allowed="a twin with write() and held()", todo="wrap it: sim_devices.written:Written",
            )  # fmt: skip
        return self._twin

    def _begun(self, place: torch.device) -> State:
        """The state; that at rest before the first drive: a static one is the same for every batch."""
        if self._state is None:
            self._state = self._twin.rest(1, generator(self._seed, self._count, "rest", place))
        return self._state

    def _write(self, wanted: Tensor, which: Tensor | None) -> None:
        before = self._begun(wanted.device)
        place = before[0].device
        rng = generator(self._seed, self._pulses + 1, "write", place)
        self._state = self._writing().write(before, wanted.to(place), None if which is None else which.to(place), rng)
        if self._state is not before:  # else nothing was written, and nothing drawn
            self._pulses += 1

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
        """Return counter, state and parameters; the last two as tensors."""
        pulses = {"pulses": self._pulses} if self._pulses else {}
        params = None if self._params is None else self._params.clone()
        return {self.counted: self._count, "state": saved(self._state), "params": params, **pulses}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot.

        Raises:
            ContractError: it is none.
        """
        count, params, pulses = state[self.counted], state["params"], state.get("pulses", 0)
        if not (isinstance(count, int) and isinstance(pulses, int) and isinstance(params, Tensor | None)):
            raise ContractError("not a snapshot of a simulated device", where=self.spec.inputs.name, got=str(state)[:80])
        self._state = taken(state["state"])
        self._count, self._pulses = count, pulses
        self._params, self._place = None if params is None else params.clone(), None
