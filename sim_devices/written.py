"""Writes as physics: a twin whose parameters are asked for, and whose channels hold something else.

A write of a channel that holds h, between low and high, with R = high - low:

    h <- h + s_k ( q(p) - h ) + n sqrt( (noise R)^2 + (relative_noise (q(p) - h))^2 )        then held inside low to high
    s_k = up where the way goes up, down where it goes down; times 1 + spread n_k of the channel
    q     rounds to 2^bits levels from low to high
    h(t) = h ( 1 + t / t0_s )^-nu_k        t since its write; nu_k = drift (1 + drift_spread n_k), at least 0
    wear  a channel that was written endurance_k times is worn: a further write changes nothing, or leaves it at `worn`;
          endurance_k = endurance e^(endurance_spread n_k)
    read back = h(t) + n read_noise R

n is normal, drawn at each write or reading back; n_k is drawn once, of the specimen. Only channels whose asked value changed
are written, unless they are named. A time step is a row of a batch, `reading_s`; the drift within a batch is that at its
beginning.

Sources: Gokmen & Vlasov, Front. Neurosci. 10, 333 (2016), steps up and down that differ, spread of devices and of cycles; Burr
et al., IEEE Trans. Electron Devices 62, 3498 (2015), what asymmetric and noisy writes do to training; Joshi et al., Nat.
Commun. 11, 2473 (2020), noise of programming, and drift as a power of time; Alibart et al., Nanotechnology 23, 075201 (2012),
write and verify; Lanza et al., ACS Nano 15, 17214 (2021), endurance, by cycles of each device. What a worn cell does is a
setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.errors import ConfigError
from hil.seeding import generator
from hil.settings import NotNegative, Positive
from hil.twin import Parametric, Unknown
from sim_devices.bench.description import Part, made
from sim_devices.twin import State, Twin

WHERE = "Written"
OWN = 4  # tensors of the state: asked, level when it was written, rows since then, writes


class Written(nn.Module):
    """A twin around another one, `base`, whose parameters are written; its state is that of the channels and that of `base`.

    Args:
        of, base: the twin underneath, "module:Class", and its settings.
        specimen: number of the chip, by which what differs from channel to channel is drawn.
        bits: resolution of the levels that a write aims at; 0: any level.
        up, down: share of the way to its aim that a write makes, up and down.
        spread: standard deviation of that share from channel to channel, as a share of it.
        noise: standard deviation of a write, as a share of the range.
        relative_noise: standard deviation of a write, as a share of the way.
        drift: exponent nu of the drift; 0: nothing drifts.
        drift_spread: standard deviation of the exponent from channel to channel, as a share of it.
        t0_s: time after a write at which its drift begins to show.
        reading_s: time that a row of a batch takes.
        endurance: writes that a channel bears; 0: any number.
        endurance_spread: standard deviation of the logarithm of the endurance.
        worn: what a worn channel holds: what it held, or a limit.
        read_noise: standard deviation of a level that is read back, as a share of the range.
    """

    gains: Tensor
    exponents: Tensor
    endurances: Tensor

    def __init__(
        self,
        *,
        of: str,
        base: Mapping[str, Any] = {},
        specimen: int = 0,
        bits: Annotated[int, Field(ge=0, le=20)] = 0,
        up: Annotated[float, Field(gt=0, le=2)] = 1.0,
        down: Annotated[float, Field(gt=0, le=2)] = 1.0,
        spread: NotNegative = 0.0,
        noise: NotNegative = 0.0,
        relative_noise: NotNegative = 0.0,
        drift: NotNegative = 0.0,
        drift_spread: NotNegative = 0.0,
        t0_s: Positive = 1.0,
        reading_s: NotNegative = 1e-3,
        endurance: NotNegative = 0.0,
        endurance_spread: NotNegative = 0.0,
        worn: Literal["stays", "low", "high"] = "stays",
        read_noise: NotNegative = 0.0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self._given: Mapping[str, Any] = given
        found = made(Part(of, base), f"{WHERE}: base")
        port = getattr(getattr(found, "spec", None), "params", None)
        if not isinstance(found, nn.Module) or not isinstance(port, Port) or cast(Twin, found).spec.temporal:
            raise ConfigError(
                "nothing is written on this", where=WHERE, got=of, allowed="a twin without state in time whose spec has params",
                todo="name another twin in of",
            )  # fmt: skip
        self.base, self.bits, self.up, self.down = found, bits, up, down
        self.noise, self.relative_noise, self.read_noise = noise, relative_noise, read_noise
        self.drift, self.t0_s, self.reading_s, self.endurance, self.worn = drift, t0_s, reading_s, endurance, worn
        self._port = port

        def normal(what: str) -> Tensor:
            return torch.randn(port.size or 1, generator=generator(specimen, 0, f"written {what}"))

        for name, values in (
            ("gains", (1 + spread * normal("step").clamp(-3, 3)).clamp(min=0)),
            ("exponents", drift * (1 + drift_spread * normal("drift")).clamp(min=0)),
            ("endurances", endurance * torch.exp(endurance_spread * normal("endurance"))),
        ):
            self.register_buffer(name, values, persistent=False)
        if isinstance(found, Parametric):
            self.settled = found.settled  # of what is asked for: writes have no slope of their own

    def settings(self) -> Mapping[str, Any]:
        """The keyword arguments that make this twin again."""
        return self._given

    def unknowns(self) -> Mapping[str, Unknown]:
        """Return the settings that calibration/crossbar/writes.py finds of a specimen."""
        share = {name: Unknown(0.05, 2.0, 0.2, seen=False) for name in ("up", "down")}
        return {**share, "noise": Unknown(0.0, 0.5, 0.02, seen=False)}

    def remade(self, settings: Mapping[str, Any]) -> Written:
        """The same with other settings; those not given stay."""
        return Written(**{**self._given, **settings})

    @property
    def _twin(self) -> Twin:
        return cast(Twin, self.base)

    @property
    def spec(self) -> Spec:
        """Ports of the twin underneath."""
        return self._twin.spec

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless response with nothing written."""
        return self._twin.ideal(x)

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return asked levels (P,), levels as written (P,), rows since then (P,), writes (P,), and the state of `base`."""
        still = self._port.resting().to(rng.device)
        none = torch.zeros_like(still)
        return (still, still.clone(), none, none.clone(), *self._twin.rest(batch, rng))

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """Write what is asked for and is not yet written, then answer x with what the channels hold.

        Args:
            state: as of `rest`.
            params: (P,) in the unit of `spec.params`; None: nothing is programmed, and `base` answers so.
            x: as of `base`.
            rng: of the write, then of the reading.
        """
        if params is not None:
            state = self.write(state, params, None, rng)
        held = None if params is None else self._now(state).to(x)
        answer, inner = self._twin.respond(state[OWN:], held, x, rng)
        asked, level, rows, writes = state[:OWN]
        return answer, (asked, level, rows + x.shape[-2], writes, *inner)

    def write(self, state: State, params: Tensor, which: Tensor | None, rng: torch.Generator) -> State:
        """Return the state after a write of some channels, the others left alone; `state` itself if none is written.

        Args:
            state: as of `rest`.
            params: (P,), the levels that they are to hold.
            which: (P,) bool, those that are written; None: those that were asked for another level before.
            rng: of the chance in a write.
        """
        asked, level, rows, writes = state[:OWN]
        wanted = params.to(level)
        which = wanted != asked if which is None else which
        if not bool(which.any()):
            return state
        now = self._now(state)
        low, high = self._port.bounds(level)
        way = self._rounded(wanted, low, high) - now
        share = torch.where(way > 0, self.up, self.down) * self.gains.to(level)
        spread = torch.hypot(self.noise * (high - low) * torch.ones_like(way), self.relative_noise * way)
        normal = torch.randn(way.shape, generator=rng, device=way.device, dtype=way.dtype)
        after = (now + share * way + spread * normal).clamp(low, high)
        if self.endurance:
            tired = writes >= self.endurances.to(level)
            after = torch.where(tired, {"stays": now, "low": low, "high": high}[self.worn], after)
        since = torch.where(which, torch.zeros_like(rows), rows)
        return torch.where(which, wanted, asked), torch.where(which, after, level), since, writes + which, *state[OWN:]

    def held(self, state: State, rng: torch.Generator) -> Tensor:
        """Return what the channels hold (P,), as it is read back."""
        now = self._now(state)
        if not self.read_noise:
            return now
        low, high = self._port.bounds(now)
        return now + self.read_noise * (high - low) * torch.randn(now.shape, generator=rng, device=now.device, dtype=now.dtype)

    def _now(self, state: State) -> Tensor:
        """Return what the channels hold (P,)."""
        level, rows = state[1], state[2]
        if not self.drift:
            return level
        faded = level * (1 + rows * (self.reading_s / self.t0_s)) ** -self.exponents.to(level)
        return faded.clamp(*self._port.bounds(level))

    def _rounded(self, params: Tensor, low: Tensor, high: Tensor) -> Tensor:
        if not self.bits:
            return params
        most = 2**self.bits - 1
        return torch.lerp(low, high, ((params - low) / (high - low) * most).round() / most)
