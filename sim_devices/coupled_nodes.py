"""A spatial reservoir: nodes side by side, each with a memory of its own, coupled by a fixed medium.

    s_k(t) = drive_k(t) / scale + gain sum_j W_kj r_j(t - 1)            W fixed, of spectral radius 1
    r_k(t) = ( 1 - leak ) r_k(t - 1) + leak f_k                        leak 1: a node keeps nothing of itself
    f_k    = sin^2( pi/2 s_k + phase_k )                               "interference": modulators or lasers, read by a camera
           | tanh( s_k )                                               "saturation": amplifiers, memristive or magnetic nodes
    reading = full_scale ( r + noise ),   rounded to `bits` by the converter

Hidden in a specimen: W (a share `coupled` of normal numbers), and how far each phase strays. With a gain below 1 the past of
saturating nodes fades. Everything but the rounding is differentiable in the drive, through time.

Sources: Jaeger and Haas, Science 304, 78 (2004); Brunner and Fischer, Opt. Lett. 40, 3854 (2015), coupled lasers; Bueno et al.,
Optica 5, 756 (2018), modulators and a camera.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.device import Spec
from hil.seeding import generator
from hil.settings import Count, NotNegative, Positive
from sim_devices.detection import Detection
from sim_devices.twin import State

Part = Annotated[float, Field(gt=0, le=1)]


class CoupledNodes(nn.Module):
    """Nodes side by side. Inputs and outputs are (time, batch, nodes); a row of a batch is a reservoir of its own.

    Args:
        nodes: how many.
        response: "interference" or "saturation".
        gain: of the coupling.
        leak: share of a node that is new in a step.
        coupled: share of the couplings that are there.
        phase_rad: bias of interference.
        phase_spread_rad: between the nodes, standard deviation.
        scale_v: half-wave voltage, V; of saturation the drive that counts as 1.
        noise: of the detection, standard deviation as a share of the full scale.
        bits: of the converter; 0: it does not round.
        full_scale_v: reading for r = 1, V.
        low_v, high_v: limits of the drive.
        specimen: which medium.
    """

    coupling: Tensor
    phase: Tensor

    def __init__(
        self,
        *,
        nodes: Count = 100,
        response: Literal["interference", "saturation"] = "saturation",
        gain: float = 0.9,
        leak: Part = 1.0,
        coupled: Part = 0.1,
        phase_rad: float = 0.2 * math.pi,
        phase_spread_rad: NotNegative = 0.1,
        scale_v: Positive = 3.5,
        noise: NotNegative = 0.0,
        bits: Annotated[int, Field(ge=0, le=24)] = 0,
        full_scale_v: Positive = 1.0,
        low_v: float = -7.0,
        high_v: float = 7.0,
        specimen: int = 0,
    ) -> None:
        super().__init__()
        self.nodes, self.response, self.gain, self.leak = nodes, response, gain, leak
        self.scale_v, self.full_scale_v = scale_v, full_scale_v
        least = 0.0 if response == "interference" else -full_scale_v
        noise_v = noise * full_scale_v
        self.detection = Detection("spatial reservoir", nodes, low_v, high_v, least, full_scale_v, noise_v, bits)

        def drawn(what: str, *shape: int) -> Tensor:
            return torch.randn(shape, generator=generator(specimen, 0, f"coupled nodes {what}"), dtype=torch.float64)

        there = torch.rand(nodes, nodes, generator=generator(specimen, 0, "coupled nodes there"), dtype=torch.float64) < coupled
        raw = drawn("coupling", nodes, nodes) * there
        radius = float(torch.linalg.eigvals(raw).abs().max())
        self.register_buffer("coupling", (raw / radius if radius else raw).t().float(), persistent=False)
        self.register_buffer("phase", (phase_rad + phase_spread_rad * drawn("phase", nodes)).float(), persistent=False)

    @property
    def spec(self) -> Spec:
        """The ports: a drive in V and a reading in V for each node; no parameters."""
        return self.detection.spec

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return r (batch, nodes): nothing was ever driven."""
        return (torch.zeros(batch, self.nodes, device=rng.device),)

    def ideal(self, x: Tensor, measured: Tensor | None = None) -> Tensor:
        """Noiseless response from rest, before it is rounded; differentiable in x through time.

        Args:
            x: drive (time, batch, nodes), V.
            measured: readings of such nodes, alike; a step goes on from these, with the slope of the model. None: from what the
                model gives.

        Returns:
            readings (time, batch, nodes), V.
        """
        seen = None if measured is None else measured / self.full_scale_v
        return self._run(x.new_zeros(x.shape[1:]), x, seen)[0] * self.full_scale_v

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(time, batch, nodes) drive in V -> reading in V, and the nodes as they are after the last step.

        Raises:
            ContractError: no time axis, or another batch than the state is of.
        """
        del params  # nothing can be programmed
        self.detection.goes_on(state, x)
        r, last = self._run(state[0], x)
        return self.detection.read(r * self.full_scale_v, rng), (last,)

    def _run(self, r: Tensor, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return r of each step, (time, batch, nodes), and of the last; `seen` is measured, and goes on in its place."""
        found: list[Tensor] = []
        for drive in x * (1 / self.scale_v):
            s = torch.addmm(drive, r, self.coupling, alpha=self.gain)
            f = torch.tanh(s) if self.response == "saturation" else torch.sin(s * (0.5 * math.pi) + self.phase).square()
            r = f if self.leak == 1 else torch.lerp(r, f, self.leak)
            found.append(r)
            if seen is not None:
                r = r + (seen[len(found) - 1] - r).detach()
        return torch.stack(found), r
