"""A passive fibre loop driven by coherent light: linear in the field, without a filter; its detector may be nonlinear.

    e(t) = sin( pi/2 drive(t) / scale )                    field behind a modulator that is biased to no light
    E(t) = sqrt(c) e(t) + rho exp( i ( phase + d ) ) E(t - delay)        rho = sqrt( ( 1 - c ) 10^(-loss/10) )
    "power"      reading = full_scale ( |E|^2 / E_m^2 + noise )          a photodiode
    "coherent"   reading = full_scale ( Re( E exp( i local ) ) / E_m + noise )          with a local oscillator
    E_m  = sqrt(c) / ( 1 - rho )                           the largest field: full drive, in resonance

c is the power that the coupler lets in, loss that of a round, phase what the light has gained in it; d is normal, drawn once
a symbol: what the lock of the cavity leaves. The fibre is so short, and its band so wide, that it keeps every node apart. A
delay of several symbols holds several of them at once, which then do not hear each other but for the nodes that it is longer
or shorter. Nodes are cut as in hil/multiplexing.py. Everything but the rounding is differentiable in the drive, through time.

Sources: Vinckier, Duport, Smerieri, Vandoorne, Bienstman, Haelterman and Massar, Optica 2, 438 (2015), the cavity with a
photodiode; the model here has the coupler at the input alone, and its modulator is driven in one quadrature.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.device import Spec
from hil.multiplexing import Multiplexing
from hil.settings import Count, NotNegative, Positive
from hil.twin import Unknown
from sim_devices.detection import Detection
from sim_devices.twin import State


class FibreLoop(nn.Module):
    """A fibre cavity with virtual nodes. Inputs and outputs are (time, batch, nodes): a symbol a step of time.

    Args:
        nodes: virtual nodes.
        detection: "power" or "coherent".
        coupling: c, share of the power.
        loss_db: of a round, besides.
        phase_rad: of a round; 0: resonance.
        local_rad: of the local oscillator, of "coherent".
        phase_noise_rad: of the lock, standard deviation.
        scale_v: half-wave voltage of the modulator, V.
        node_s: time that a virtual node is driven for, s.
        delay_s: of the loop, s; 0: (nodes + 1) node_s.
        noise: of the detection, standard deviation as a share of the full scale.
        bits: of the converter; 0: it does not round.
        full_scale_v: reading of the largest field, V.
        low_v, high_v: limits of the drive.
    """

    def __init__(
        self,
        *,
        nodes: Count = 50,
        detection: Literal["power", "coherent"] = "power",
        coupling: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        loss_db: NotNegative = 0.5,
        phase_rad: float = 0.0,
        local_rad: float = 0.0,
        phase_noise_rad: NotNegative = 0.0,
        scale_v: Positive = 3.5,
        node_s: Positive = 10e-9,
        delay_s: NotNegative = 0.0,
        noise: NotNegative = 0.0,
        bits: Annotated[int, Field(ge=0, le=24)] = 0,
        full_scale_v: Positive = 1.0,
        low_v: float = -3.5,
        high_v: float = 3.5,
    ) -> None:
        super().__init__()
        self._made: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.time = Multiplexing(nodes, node_s, delay_s or (nodes + 1) * node_s)
        self.scale_v, self.full_scale_v, self.phase_noise_rad = scale_v, full_scale_v, phase_noise_rad
        self.coherent, self.entry = detection == "coherent", math.sqrt(coupling)
        rho = math.sqrt((1 - coupling) * 10 ** (-loss_db / 10))
        self.round, self.local = cmath.rect(rho, phase_rad), cmath.rect(1.0, local_rad)
        self.largest = self.entry / (1 - rho)
        least = -full_scale_v if self.coherent else 0.0
        self.detection = Detection("fibre loop", nodes, low_v, high_v, least, full_scale_v, noise * full_scale_v, bits)

    @property
    def spec(self) -> Spec:
        """The ports: a drive in V and a reading in V for each virtual node; no parameters."""
        return self.detection.spec

    def settings(self) -> dict[str, Any]:
        """The keyword arguments that make this twin again."""
        return dict(self._made)

    def unknowns(self) -> dict[str, Unknown]:
        """Return what a specimen has its own value of: splices differ, and the lock sits where it was set by hand."""
        return {
            "scale_v": Unknown.about(self.scale_v, 3.5, 1 / 35, "V"),
            "loss_db": Unknown(0.0, 20.0, 0.1, "dB"),
            "phase_rad": Unknown(-math.pi, math.pi, 0.1, "rad", period=2 * math.pi),
        }

    def remade(self, settings: Mapping[str, float]) -> Self:
        """The same kind with these settings instead of its own."""
        return type(self)(**{**self._made, **settings})

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return the field of the last round, (batch, samples, 2), real and imaginary part: no light."""
        return (torch.zeros(batch, self.time.delay, 2, device=rng.device),)

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless response from rest, before it is rounded; differentiable in x through time.

        Args:
            x: drive (time, batch, nodes), V.

        Returns:
            readings (time, batch, nodes), V.
        """
        return self._run(x.new_zeros(x.shape[1], self.time.delay, 2), x, None)[0]

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(time, batch, nodes) drive in V -> reading in V, and the light in the loop after the last symbol.

        Raises:
            ContractError: no time axis, or another batch than the state is of.
        """
        del params  # nothing can be programmed
        self.detection.goes_on(state, x)
        reading, after = self._run(state[0], x, rng)
        return self.detection.read(reading, rng), (after,)

    def _run(self, state: Tensor, x: Tensor, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return readings without noise of the detection, and the light in the loop; the lock strays by draws of `rng`."""
        steps, batch, nodes = x.shape
        entered = torch.sin(x * (0.5 * math.pi / self.scale_v)).mul(self.entry).transpose(0, 1).reshape(batch, -1)
        turn = torch.full((batch, steps), self.round, dtype=torch.promote_types(x.dtype, torch.complex64), device=x.device)
        if rng is not None and self.phase_noise_rad:
            strayed = self.phase_noise_rad * torch.randn(batch, steps, generator=rng, device=x.device)
            turn = turn * torch.polar(torch.ones_like(strayed), strayed)
        turns = turn.repeat_interleave(nodes, 1)
        past, parts = torch.view_as_complex(state.contiguous()), list[Tensor]()
        for coming, turned in zip(*(torch.split(part, self.time.delay, 1) for part in (entered, turns)), strict=True):
            count = coming.shape[1]
            field = coming + turned * past[:, :count]
            past = torch.cat((past[:, count:], field), 1)
            parts.append(field)
        field = torch.cat(parts, 1).view(batch, steps, nodes).transpose(0, 1)
        seen = (field * self.local).real / self.largest if self.coherent else (field.real**2 + field.imag**2) / self.largest**2
        return seen * self.full_scale_v, torch.view_as_real(past)
