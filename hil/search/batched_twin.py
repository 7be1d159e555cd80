"""Copies of one node side by side, one a candidate, each driven on its own: the twin of a population.

    forward(x)[i] = what Simulated(twin, seed) answers to x[i] in its k-th call            x (candidates, batch, n)

State is a candidate's own; noise and drift of call k come from (seed, k, "noise") as those of a simulated device do, and are
the same in all candidates: candidates are compared under the same noise. The physics is mapped over candidates, not looped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hil.errors import ContractError
from hil.seeding import generator
from hil.twin import State, Twin


class BatchedTwin:
    """A twin that answers many candidates at once.

    Args:
        twin: static, nothing programmed.
        seed: of noise and drift.
    """

    def __init__(self, twin: Twin, seed: int) -> None:
        self._twin, self._seed = twin, seed
        self._calls = 0
        self._state: State | None = None

    def keep(self, places: Tensor) -> None:
        """Go on with these candidates alone."""
        if self._state is not None:
            self._state = tuple(part[places] if own else part for part, own in zip(self._state, self._own, strict=True))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(candidates, batch, n) -> (candidates, batch, n); nothing is checked against the limits.

        Raises:
            ContractError: the twin's physics cannot be mapped over candidates.
        """
        rng = generator(self._seed, self._calls, "noise", x.device)
        if self._state is None:
            self._state = self._twin.rest(x.shape[-2], generator(self._seed, self._calls, "rest", x.device))
            self._own = tuple(False for _ in self._state)
        self._calls += 1
        dims = tuple(0 if own else None for own in self._own)

        def respond(candidate: Tensor, *state: Tensor) -> tuple[Tensor, State]:
            return self._twin.respond(state, None, candidate, rng)

        try:
            answer, state = torch.func.vmap(respond, in_dims=(0, *dims), randomness="same")(x, *self._state)
        except RuntimeError as error:
            raise ContractError(
                "this twin cannot be run as a population", where=type(self._twin).__name__, got=str(error).splitlines()[0],
                allowed="a respond() that torch.func.vmap can map", todo='by = "one" in [evaluate]',
            ) from error  # fmt: skip
        self._own = tuple(not torch.equal(part, part[:1].expand_as(part)) for part in state)
        self._state = tuple(part if own else part[0] for part, own in zip(state, self._own, strict=True))
        return answer
