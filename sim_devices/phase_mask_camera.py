"""Data and a phase mask on a modulator, a scattering medium behind it, and a camera: the mask is what is trained.

    phi_k  = table( gray_k ) + flatness_k + mask_k                          of macropixel k; mask in rad, programmed
    E_m    = sum_k T_mk a_k ( sqrt(1 - z) e^(i phi_k) + sqrt(z) )       z: zero order, light that the modulator does not turn
    T_mk  <- rho T_mk + sqrt(1 - rho^2) n_mk,   rho = e^(-frames / tau)     the medium decorrelates; n as T: <|n|^2> = 1 / K
    counts                                                                  as of sim_devices/scattering.py

The table, the medium as it begins, the illumination and the camera are those of the specimen of Scattering. Mask and data are
shown on one modulator, so their phases add; nothing programmed is a mask of 0.

Sources: Popoff et al., Phys. Rev. Lett. 104, 100601 (2010) (medium); Rafayelyan et al., Phys. Rev. X 10, 041037 (2020) (data as
phases, speckle as answer, and that the medium has to hold still); Goodman, Introduction to Fourier Optics (zero order).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hil.device import Port, Spec
from hil.settings import NotNegative, Share
from sim_devices.scattering import AS_IT_STANDS, Scattering, speckle
from sim_devices.twin import State


class PhaseMaskCamera(Scattering):
    """A node of K gray levels and M counts, programmed by K phases.

    Args:
        macropixels, pixels: numbers K and M of the modulator and the camera, square numbers.
        specimen: number of the set-up, by which modulator, medium and camera are drawn.
        zero_order: share z of the light that the modulator does not turn.
        memory_frames: frames tau in which the field decorrelates by e; 0: the medium stands still.
        full_well: electrons that a pixel holds.
        noise: factor on the noise amplitude; 0 is none.
        quantised: gray levels and counts are whole numbers.
    """

    def __init__(
        self,
        *,
        macropixels: int = 64,
        pixels: int = 36,
        specimen: int = 0,
        zero_order: Share = 0.05,
        memory_frames: NotNegative = 0.0,
        full_well: float = 10_000.0,
        noise: float = 1.0,
        quantised: bool = True,
    ) -> None:
        super().__init__(
            macropixels=macropixels, pixels=pixels, specimen=specimen, full_well=full_well, noise=noise, quantised=quantised
        )
        self.zero_order, self.memory_frames = zero_order, memory_frames

    @property
    def spec(self) -> Spec:
        """Gray levels, counts, and the mask in rad as parameters."""
        spec = super().spec
        mask = Port("phase mask", 0.0, 2 * math.pi, "rad", self.macropixels, rest=0.0)
        return Spec(inputs=spec.inputs, outputs=spec.outputs, params=mask, provenance="twin")

    def _behind(self, gray: Tensor, mask: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
        """Electrons (batch, M)."""
        phase = self.phase(gray) + self.flatness.to(gray) + mask.to(gray)
        lit, turned, still = self.illumination.to(gray), math.sqrt(1 - self.zero_order), math.sqrt(self.zero_order)
        i, q = lit * (turned * phase.cos() + still), lit * turned * phase.sin()
        _, exposure, laser, _ = AS_IT_STANDS
        return self._exposed(laser * speckle(i, q, real.to(gray), imaginary.to(gray)), exposure)

    def settled(self, x: Tensor, params: Tensor) -> Tensor:
        """Noiseless counts (batch, M), not rounded, of the medium as it began; differentiable in both.

        Args:
            x: (batch, K), gray levels.
            params: (K,), rad.
        """
        return self._counts(self._behind(x, params, self.real, self.imaginary))

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless counts without a mask, not rounded; differentiable in the gray levels."""
        return self.settled(x, x.new_zeros(self.macropixels))

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return the medium as it begins: real and imaginary part, (M, K) each; nothing where it stands still."""
        return (self.real.float(), self.imaginary.float()) if self.memory_frames else ()

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, K) gray levels -> (batch, M) counts, a frame each; the medium goes on after the frames."""
        gray = x.round() if self.quantised else x
        real, imaginary = state if state else (self.real, self.imaginary)
        mask = gray.new_zeros(self.macropixels) if params is None else params
        counts = self._seen(self._behind(gray, mask, real, imaginary), rng)
        if not state:
            return counts, state
        rho = math.exp(-len(x) / self.memory_frames)
        spread = math.sqrt((1 - rho**2) / (2 * self.macropixels))
        moved = [
            rho * part + spread * torch.randn(part.shape, generator=rng, device=part.device, dtype=part.dtype)
            for part in (real, imaginary)
        ]
        return counts, tuple(moved)
