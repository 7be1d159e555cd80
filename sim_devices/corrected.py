"""A twin whose physics does not say all: a small network of the drive, added to what it answers.

    y = f(x) + s n(u),    n(u) = w2 tanh( w1 u + b1 ) + b2,    u = (x - middle) / reach

f any twin of one channel, with its noise, its memory and its drift; the network is fitted by a calibration on top of it
(calibration/residual_net.py) and does not drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hil.device import Spec
from hil.errors import ConfigError
from sim_devices.bench.description import Part, made
from sim_devices.twin import State, Twin


class Corrected(nn.Module):
    """A twin with a small network of the drive on top of its reading.

    Args:
        of, base: the twin underneath, "module:Class", and its settings.
        w1, b1, w2: (h,) numbers each.
        b2, scale: of the network's answer, scale in the unit of the reading.
        middle, reach: of the drives that it was fitted to, in their unit.
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor

    def __init__(
        self,
        *,
        of: str,
        base: Mapping[str, Any],
        w1: Sequence[float],
        b1: Sequence[float],
        w2: Sequence[float],
        b2: float,
        scale: float,
        middle: float,
        reach: float,
    ) -> None:
        super().__init__()
        weights = {"w1": w1, "b1": b1, "w2": w2}
        for name, values in weights.items():
            self.register_buffer(name, torch.tensor([float(v) for v in values], dtype=torch.float64), persistent=False)
        numbers = torch.cat([self.w1, self.b1, self.w2, torch.tensor([b2, scale, middle, reach], dtype=torch.float64)])
        if len({len(v) for v in weights.values()}) > 1 or not reach > 0 or not bool(torch.isfinite(numbers).all()):
            raise ConfigError(
                "the network on top of the twin makes no sense", where="Corrected",
                got=f"{len(w1)}, {len(b1)}, {len(w2)} weights, reach {reach:g}",
                allowed="three lists of the same length, reach above 0, all finite", todo="calibrate again",
            )  # fmt: skip
        self.b2, self.scale, self.middle, self.reach = b2, scale, middle, reach
        found = made(Part(of, base), "Corrected: base")
        if not isinstance(found, nn.Module) or not hasattr(found, "ideal") or cast(Twin, found).spec.params is not None:
            raise ConfigError(
                "no network can stand on top of this", where="Corrected", got=of,
                allowed="a twin with an ideal answer that is not programmed", todo="calibrate again",
            )  # fmt: skip
        self.base = found

    @property
    def _twin(self) -> Twin:
        return cast(Twin, self.base)

    @property
    def spec(self) -> Spec:
        """Ports of the twin underneath."""
        return self._twin.spec

    def _correction(self, x: Tensor) -> Tensor:
        u = ((x - self.middle) / self.reach).unsqueeze(-1)
        w1, b1, w2 = (part.to(x) for part in (self.w1, self.b1, self.w2))
        found: Tensor = (torch.tanh(u * w1 + b1) @ w2 + self.b2) * self.scale
        return found

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless, settled reading at rest; differentiable in x."""
        return self._twin.ideal(x) + self._correction(x)

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return the state at rest of the twin underneath."""
        return self._twin.rest(batch, rng)

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, n) drive -> (batch, n) reading."""
        y, after = self._twin.respond(state, params, x, rng)
        return y + self._correction(x), after
