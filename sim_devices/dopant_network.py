"""A dopant network: eight electrodes around a disc of doped silicon; data and control voltages on seven, a current from one.

    u_s  = e_s + sum_k a_sk V_k + d_s                      level of dopant s, V: all electrodes gate it; d_s drifts
    i    = sum_p sum_k G_pk R( (u_s - u_t) / c ) ( F( (V_k - u_p) / w ) - F( -u_p / w ) )          the output is at 0 V
    R(z) = 1 / (1 + z^2)        F(z) = 1 / (1 + e^-z)      p: a pair of dopants s, t in a row; u_p = (u_s + u_t) / 2
    G_pk = G ( t_sk t_to + t_tk t_so )                     t = e^(-2 r / xi) of the distance r to an electrode
    a_sk in proportion to 1 / r_sk,   sum_k a_sk + a_so = lever
    y    = i + noise                                       hypot(noise_a, relative_noise i), times `noise`

A current flows from k to the output where a pair of levels lies between the two voltages, and where the two levels are alike.
Any electrode can move them apart, or out of this window: the current falls again while a voltage rises (negative differential
resistance), without which no device of monotone parts could tell XOR.

As published: eight electrodes, the current of one as the answer, voltages as inputs and controls, ranges of 1.8 V on five
electrodes and of 1 V on two, currents of some ten nA, and that the current falls where a voltage rises. Made, and not
measured: where the dopants of a specimen lie, the size of each number below, and what stands between electrodes: each pair
conducts by itself, coherent between its two levels, without longer paths and without repulsion between charges. A neural
network fitted to a real device can take this place: a twin with the same ports.

Sources: Chen et al., Nature 577, 341 (2020), the device, XOR, rings; Ruiz Euler et al., Nat. Nanotechnol. 15, 992 (2020), the
surrogate and its ranges; Ruiz Euler et al., Neuromorph. Comput. Eng. 1, 024002 (2021), networks of them; Stoof & Nazarov,
Phys. Rev. B 53, 1050 (1996), the current through two levels in a row.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.errors import ConfigError
from hil.seeding import generator
from hil.settings import Count, NotNegative, Positive
from sim_devices.twin import State

WHERE = "DopantNetwork"
ELECTRODES = 7  # besides the output
INNER = 0.85  # of the radius of the electrodes: where dopants lie


class DopantNetwork(nn.Module):
    """A node of data voltages, one current, and the voltages of the other electrodes as parameters; at rest: 0 V each.

    Args:
        data: electrodes that the inputs drive, in order, from 1; the others are programmed.
        specimen: which device of the wafer.
        pairs: of dopants that conduct.
        low_v, high_v: limits of the electrodes, in order.
        max_step_v: largest step of a control voltage; 0: any.
        width_v: w, of a step of the current; that of the temperature and of the tunnelling together.
        coupling_v: c, how far two levels may be apart.
        apart: of the two dopants of a pair, as a share of the radius of the electrodes.
        spread_v: standard deviation of e_s.
        lever: share of the electrodes' voltages that reaches a site in all.
        reach: xi, as a share of the radius of the electrodes.
        scale_a: largest current that the device is scaled to, for any voltages.
        noise_a, relative_noise: standard deviation of a reading, in A and as a share of it.
        noise: factor on both; 0 is none.
        drift_v_per_rt: random walk of each d_s, in V for the root of one reading.
    """

    energies: Tensor
    levers: Tensor
    currents: Tensor

    def __init__(
        self,
        *,
        data: tuple[Annotated[int, Field(ge=1, le=ELECTRODES)], ...] = (3, 4),
        specimen: int = 0,
        pairs: Count = 32,
        low_v: tuple[float, ...] = (-1.2,) * 5 + (-0.7,) * 2,
        high_v: tuple[float, ...] = (0.6,) * 5 + (0.3,) * 2,
        max_step_v: NotNegative = 0.0,
        width_v: Positive = 0.05,
        coupling_v: Positive = 0.05,
        apart: Positive = 0.4,
        spread_v: NotNegative = 0.3,
        lever: Annotated[float, Field(ge=0, lt=1)] = 0.8,
        reach: Positive = 0.8,
        scale_a: Positive = 1e-6,
        noise_a: NotNegative = 3e-10,
        relative_noise: NotNegative = 2e-3,
        noise: NotNegative = 1.0,
        drift_v_per_rt: NotNegative = 0.0,
    ) -> None:
        super().__init__()
        if len(set(data)) != len(data) or not 0 < len(data) < ELECTRODES:
            raise ConfigError(
                "data electrodes are named once each, and leave one to be programmed", where=f"{WHERE} data",
                got=f"{list(data)}", allowed=f"1 to {ELECTRODES - 1} numbers from 1 to {ELECTRODES}",
            )  # fmt: skip
        if not len(low_v) == len(high_v) == ELECTRODES or any(not lo <= 0 <= hi for lo, hi in zip(low_v, high_v, strict=True)):
            raise ConfigError(
                "each electrode has its range, and 0 V lies in it", where=f"{WHERE} low, high", got=f"{low_v}, {high_v}",
                allowed=f"{ELECTRODES} numbers each",
            )  # fmt: skip
        self.data = tuple(k - 1 for k in data)
        self.controls = tuple(k for k in range(ELECTRODES) if k not in self.data)
        self.specimen, self.low_v, self.high_v, self.max_step_v = specimen, tuple(low_v), tuple(high_v), max_step_v
        self.width_v, self.noise_a, self.relative_noise, self.noise = width_v, noise_a, relative_noise, noise
        self.drift_v_per_rt, self.scale_a = drift_v_per_rt, scale_a
        self.coupling_v = coupling_v
        self._fabricate(pairs, spread_v, lever, reach, apart)
        self._spec = self._ports()

    def _fabricate(self, pairs: int, spread_v: float, lever: float, reach: float, apart: float) -> None:
        rng = generator(self.specimen, 0, "dopants")
        radius = INNER * torch.rand(pairs, generator=rng, dtype=torch.float64).sqrt()
        angle, turn = (2 * math.pi * torch.rand(pairs, generator=rng, dtype=torch.float64) for _ in range(2))
        middle, half = torch.polar(radius, angle), torch.polar(torch.full_like(turn, apart / 2), turn)
        dopants = torch.stack([middle - half, middle + half])
        dopants = dopants * (INNER / dopants.abs().clamp(min=INNER))  # none outside
        around = 2 * math.pi * torch.arange(ELECTRODES + 1, dtype=torch.float64) / (ELECTRODES + 1)  # the output comes last
        far = (dopants.unsqueeze(-1) - torch.polar(torch.ones_like(around), around)).abs()  # (2, pairs, electrodes)
        near = torch.exp(-2 * far / reach)
        paths = near[0, :, :-1] * near[1, :, -1:] + near[1, :, :-1] * near[0, :, -1:]
        levers = lever * (1 / far) / (1 / far).sum(-1, keepdim=True)
        energies = spread_v * torch.randn(2, pairs, generator=rng, dtype=torch.float64)
        for name, values in (
            ("energies", energies), ("levers", levers[..., :-1]), ("currents", self.scale_a * paths / paths.sum()),
        ):  # fmt: skip
            self.register_buffer(name, values.float(), persistent=False)

    @property
    def spec(self) -> Spec:
        """Voltages of the data electrodes, the current of the output in A, voltages of the other electrodes as parameters."""
        return self._spec

    def _ports(self) -> Spec:
        most = self.scale_a + 8 * self.noise * math.hypot(self.noise_a, self.relative_noise * self.scale_a)
        return Spec(
            inputs=self._port("data electrodes", self.data, None),
            outputs=Port("current of the dopant network", -most, most, "A", 1),
            params=self._port("control electrodes", self.controls, self.max_step_v or None),
            provenance="twin",
        )

    def _port(self, name: str, electrodes: tuple[int, ...], max_step: float | None) -> Port:
        low, high = (tuple(limits[k] for k in electrodes) for limits in (self.low_v, self.high_v))
        return Port(name, low, high, "V", len(electrodes), max_step=max_step, rest=0.0)

    def settled(self, x: Tensor, params: Tensor) -> Tensor:
        """Noiseless current in A, (batch, 1), without drift; differentiable in both.

        Args:
            x: (batch, data electrodes) in V.
            params: (control electrodes,) in V.
        """
        return self._current(x, params, torch.zeros_like(self.energies))

    def _current(self, x: Tensor, params: Tensor, drift: Tensor) -> Tensor:
        volts: list[Tensor] = [x.new_empty(0)] * ELECTRODES
        for place, k in enumerate(self.data):
            volts[k] = x[..., place]
        for place, k in enumerate(self.controls):
            volts[k] = params[place].to(x).expand(x.shape[:-1])
        at = torch.stack(volts, -1)
        one, other = (
            at @ lever.T + energy for lever, energy in zip(self.levers.to(x), (self.energies + drift).to(x), strict=True)
        )
        pair = ((one + other) / 2).unsqueeze(-1)  # (batch, pairs, 1)
        window = torch.sigmoid((at.unsqueeze(-2) - pair) / self.width_v) - torch.sigmoid(-pair / self.width_v)
        alike = 1 / (1 + ((one - other) / self.coupling_v).square())
        current: Tensor = ((window * self.currents.to(x)).sum(-1) * alike).sum(-1, keepdim=True)
        return current

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless current in A with the control electrodes at 0 V; differentiable in x."""
        return self.settled(x, x.new_zeros(len(self.controls)))

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return the drift of each site, in V: none."""
        return (torch.zeros_like(self.energies),)

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, data electrodes) in V -> (batch, 1) in A; the drift goes on after the readings."""
        (drift,) = state
        current = self._current(x, x.new_zeros(len(self.controls)) if params is None else params, drift.to(x))
        if self.noise:
            normal = torch.randn(current.shape, generator=rng, device=x.device, dtype=x.dtype)
            spread = torch.hypot(torch.full_like(current, self.noise_a), self.relative_noise * current)
            most = self._spec.outputs.shared_high
            current = (current + self.noise * spread * normal).clamp(-most, most)
        if self.drift_v_per_rt:
            walk = torch.randn(drift.shape, generator=rng, device=drift.device, dtype=drift.dtype)
            drift = drift + self.drift_v_per_rt * math.sqrt(max(len(x), 1)) * walk
        return current, (drift,)
