"""A bank of microring weights: N wavelengths in, M balanced photodiodes out, a ring with a heater for each of M N weights.

    d_mkj = s (j - k) + cold_mk - shift_mk + drift       detuning of laser j from ring k of bank m, in half linewidths
    shift = C V^2                                        C: sim_devices/heaters.py; banks lie 2 pitches apart
    T_mj  = prod_k ( 1 - D / (1 + d_mkj^2) )             what of wavelength j goes through bank m; the rest is dropped
    w_mj  = loss (1 - T_mj) - T_mj                       -1: all through. near 1: all dropped
    y_m   = R P / M sum_j x_j w_mj + noise               hypot(noise_a, relative_noise y)

Cold rings lie `cold` half linewidths blue of their lasers, and heat moves them red: past its resonance a weight falls again. A
ring also drops of its neighbours' wavelengths, and all heat each other, so no weight can be set alone.
calibration/rings/lock.py finds each resonance.

As published: add-drop rings, Lorentzian lines, balanced detection of drop and through, weights from -1 to 1, thermal crosstalk
between rings, resonances that have to be found by a control. Made: the size of each number, one drift for all rings, and no
heating by the light itself, which makes real lines lean over at high power.

Sources: Tait et al., IEEE J. Sel. Top. Quantum Electron. 22, 5900214 (2016) (weight banks); Tait et al., Sci. Rep. 7, 7430
(2017) (networks of them); Tait et al., Opt. Express 26, 26422 (2018) (control of all weights at once).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.seeding import generator
from hil.settings import Count, NotNegative, Positive, Share
from sim_devices.heaters import SPREAD_OWN, crosstalk_matrix
from sim_devices.twin import State

BANK_PITCH = 2.0  # in pitches of the rings


class MicroringBank(nn.Module):
    """A node of N powers and M currents, programmed by M N heater voltages, bank by bank; at rest: 0 V each.

    Args:
        channels: number N of wavelengths, and of rings in a bank.
        banks: number M of banks.
        specimen: number of the chip, by which all that is hidden is drawn.
        spacing: distance s of two neighbouring wavelengths, in half linewidths.
        cold: detuning of a typical cold ring from its laser, in half linewidths.
        cold_spread: standard deviation of that detuning.
        v_max_v: largest heater voltage.
        range_widths: shift of a ring by its own heater at the largest voltage, in half linewidths.
        crosstalk: shift by a heater one pitch away, as a share of the shift of that heater's own ring.
        reach: pitches in which the crosstalk falls by e.
        drop: share D of the light at its resonance that a ring drops.
        loss: share of dropped light that arrives at its photodiode.
        input_w: power P of a full input.
        responsivity_a_per_w: responsivity R of the photodiodes.
        noise_a, relative_noise: standard deviation of a reading, in A and as a share of it.
        noise: factor on both; 0 is none.
        drift_per_rt: step of the random walk of all resonances after one reading, in half linewidths.
    """

    cold: Tensor
    matrix: Tensor

    def __init__(
        self,
        *,
        channels: Count = 8,
        banks: Count = 8,
        specimen: int = 0,
        spacing: Positive = 12.0,
        cold: Positive = 5.0,
        cold_spread: NotNegative = 1.0,
        v_max_v: Positive = 3.0,
        range_widths: Positive = 12.0,
        crosstalk: Share = 0.03,
        reach: Positive = 1.0,
        drop: Share = 0.98,
        loss: Share = 0.95,
        input_w: Positive = 1e-3,
        responsivity_a_per_w: Positive = 0.8,
        noise_a: NotNegative = 2e-7,
        relative_noise: NotNegative = 1e-3,
        noise: NotNegative = 1.0,
        drift_per_rt: NotNegative = 0.0,
    ) -> None:
        super().__init__()
        self.channels, self.banks, self.specimen, self.spacing = channels, banks, specimen, spacing
        self.v_max_v, self.drop, self.loss = v_max_v, drop, loss
        self.noise_a, self.relative_noise, self.noise, self.drift_per_rt = noise_a, relative_noise, noise, drift_per_rt
        self.full_a = responsivity_a_per_w * input_w / banks  # of one full input, all dropped
        rings, rng = banks * channels, generator(specimen, 0, "microrings")
        normal = torch.randn(rings, rings + 2, generator=rng, dtype=torch.float64).clamp(-3, 3)
        bank, ring = (axis.flatten() for axis in torch.meshgrid(torch.arange(banks), torch.arange(channels), indexing="ij"))
        places = torch.stack([BANK_PITCH * bank, ring], 1).double()
        own = range_widths / v_max_v**2 * (1 + SPREAD_OWN * normal[:, 0])
        self.register_buffer("cold", (cold + cold_spread * normal[:, 1]).view(banks, channels), persistent=False)
        self.register_buffer("matrix", crosstalk_matrix(own, places, crosstalk, reach, normal[:, 2:]), persistent=False)
        most = self.full_a * channels * 1.1 + 8 * noise * math.hypot(noise_a, relative_noise * self.full_a * channels)
        self._spec = Spec(
            inputs=Port("powers of the wavelengths", 0.0, 1.0, "1", channels),
            outputs=Port("balanced photodiodes", -most, most, "A", banks),
            params=Port("heaters of the rings", 0.0, v_max_v, "V", rings, rest=0.0),
            provenance="twin",
        )

    @property
    def spec(self) -> Spec:
        """Powers of N wavelengths as shares of a full one, currents of M photodiodes in A, M N heaters in V as parameters."""
        return self._spec

    def weights(self, volts: Tensor, drift: Tensor | float = 0.0) -> Tensor:
        """Heater voltages (M N,) -> weights (M, N), loss - 1 to loss; differentiable."""
        shift = (self.matrix.to(volts) @ volts.square()).view(self.banks, self.channels)
        number = torch.arange(self.channels).to(volts)
        grid = self.spacing * (number - number[:, None])  # (k, j)
        apart = grid + (self.cold.to(volts) - shift + drift)[..., None]
        through = (1 - self.drop / (1 + apart.square())).prod(1)
        return self.loss * (1 - through) - through

    def settled(self, x: Tensor, params: Tensor) -> Tensor:
        """Noiseless currents (batch, M) in A, without drift; differentiable in both.

        Args:
            x: (batch, N), shares of a full input.
            params: (M N,) in V.
        """
        return self.full_a * (x @ self.weights(params.to(x)).T)

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless currents in A with all rings cold; differentiable in x."""
        return self.settled(x, x.new_zeros(self.banks * self.channels))

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return the drift, in half linewidths: none."""
        return (torch.zeros(()),)

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, N) -> (batch, M) in A; the drift goes on after the readings."""
        (drift,) = state
        volts = x.new_zeros(self.banks * self.channels) if params is None else params.to(x)
        current = self.full_a * (x @ self.weights(volts, drift.to(x)).T)
        if self.noise:
            normal = torch.randn(current.shape, generator=rng, device=x.device, dtype=x.dtype)
            spread = torch.hypot(torch.full_like(current, self.noise_a), self.relative_noise * current)
            current = current + self.noise * spread * normal
        if self.drift_per_rt:
            walk = torch.randn(drift.shape, generator=rng, device=drift.device, dtype=drift.dtype)
            drift = drift + self.drift_per_rt * math.sqrt(max(len(x), 1)) * walk
        return current, (drift,)
