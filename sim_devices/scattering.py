"""A spatial light modulator, a scattering medium behind it, and a camera: K gray levels in, a frame of M pixels out.

    phi_k    = stroke ( s^gamma + ripple sin(2 pi s) / 2 pi ) + flatness_k,   s = gray_k / 255         of macropixel k
    E_m      = sum_k T_mk a_k e^(i phi_k)           T complex normal, <|T_mk|^2> = 1 / K;  a the illumination, mean square 1
    electrons = full_well x exposure x ( light x sensitivity_m + dark_m )        light: 0.2 |E_m|^2 through the medium
    counts   = offset_m + 4000 electrons / full_well         shot noise sqrt(electrons), read noise, rounded, cut at 0 and 4095

The optics are programmed, four numbers from 0 to 1; nothing programmed is 0, 0.5, 1, 0:

    mirror     0: through the medium. 1: past it, through an analyser, onto the camera: an image of the modulator, in which
               phase shows as intensity; pixel m sees macropixels by a Gaussian spot around p_k = b + A c_k, c_k in -1 .. 1
                   light = sum_k w_mk a_k^2 cos^2(phi_k / 2)
    exposure   share of the longest
    laser      its power;      lamp    of an even light on the camera, 1.2 at most

Hidden in a specimen: gamma, stroke, ripple, flatness, illumination, T, A, b, sensitivity, offset and dark of pixels. Not
fittable by a few numbers; calibration/camera/sequence.py finds what is unknown of it. The medium stands still: it does not
decorrelate.

Sources: Popoff et al., Phys. Rev. Lett. 104, 100601 (2010) (transmission matrix); Goodman, Speckle Phenomena in Optics (2007);
EMVA standard 1288 (camera).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.errors import ConfigError
from hil.seeding import generator
from sim_devices.twin import State

GRAY, TOP, SCALE = 255.0, 4095.0, 4000.0
AS_IT_STANDS = (0.0, 0.5, 1.0, 0.0)
SPECKLE, LAMP = 0.2, 1.2
SPOT = 0.6  # of the pitch of the macropixels on the camera


class Scattering(nn.Module):
    """A node of K drives and M readings, fixed, but for its optics.

    Args:
        macropixels, pixels: K and M, square numbers.
        specimen: which modulator, medium, camera and adjustment.
        stroke_turns: phase at the highest gray level, in turns, of a typical specimen.
        gamma: of a typical one.
        full_well: electrons of a pixel.
        read_electrons: its read noise.
        noise: factor on the noise amplitude; 0 is none.
        quantised: gray levels and counts are whole numbers.
        hot_pixels, dead_pixels: of the camera, by number.
        dead_macropixels: of the modulator, which stay at gray level 0.
    """

    stroke: Tensor
    exponent: Tensor
    ripple: Tensor
    flatness: Tensor
    illumination: Tensor
    real: Tensor
    imaginary: Tensor
    affine: Tensor
    image: Tensor
    sensitivity: Tensor
    dark: Tensor
    offset: Tensor
    alive: Tensor

    def __init__(
        self,
        *,
        macropixels: int = 64,
        pixels: int = 256,
        specimen: int = 0,
        stroke_turns: float = 1.15,
        gamma: float = 1.2,
        full_well: float = 10_000.0,
        read_electrons: float = 3.0,
        noise: float = 1.0,
        quantised: bool = True,
        hot_pixels: Sequence[int] = (),
        dead_pixels: Sequence[int] = (),
        dead_macropixels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.macropixels, self.pixels, self.specimen = macropixels, pixels, specimen
        self.stroke_turns, self.gamma, self.full_well, self.read_electrons = stroke_turns, gamma, full_well, read_electrons
        self.noise, self.quantised = noise, quantised
        for name, value, allowed in (
            ("macropixels", macropixels, macropixels == math.isqrt(max(macropixels, 0)) ** 2 >= 4),
            ("pixels", pixels, pixels == math.isqrt(max(pixels, 0)) ** 2 >= 4),
            ("full_well", full_well, 0 < full_well < math.inf),
            ("stroke_turns", stroke_turns, 0 < stroke_turns < math.inf),
            ("gamma", gamma, 0 < gamma < math.inf),
            ("hot_pixels", list(hot_pixels), all(0 <= n < pixels for n in hot_pixels)),
            ("dead_pixels", list(dead_pixels), all(0 <= n < pixels for n in dead_pixels)),
            ("dead_macropixels", list(dead_macropixels), all(0 <= n < macropixels for n in dead_macropixels)),
        ):
            if not allowed:
                raise ConfigError(
                    f"{name} makes no sense", where=type(self).__name__, got=str(value),
                    allowed="square numbers of 4 or more, positive constants, numbers of pixels that there are",
                )  # fmt: skip
        self._fabricate()
        self.dark[list(hot_pixels)] = 0.8
        self.sensitivity[list(dead_pixels)] = 0.0
        self.alive[list(dead_macropixels)] = 0.0

    def _fabricate(self) -> None:
        def normal(what: str, *shape: int) -> Tensor:
            return torch.randn(shape, generator=generator(self.specimen, 0, f"scattering {what}"), dtype=torch.float64)

        def near(what: str, middle: float, spread: float) -> Tensor:
            return middle * (1 + spread * normal(what).clamp(-2, 2))

        k, m = self.macropixels, self.pixels
        x, y = (axis.flatten() for axis in _grid(math.isqrt(k)))
        bend = 0.3 * normal("flatness", 3)
        centre = 0.15 * normal("beam", 2)
        beam = torch.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 3.0)
        rows, columns = (axis.flatten() for axis in _grid(math.isqrt(m)))
        vignette = 1 - 0.15 * (rows**2 + columns**2) / 2
        affine = self._adjustment(normal)
        places = torch.stack([x, y], 1) @ affine[:, :2].T + affine[:, 2]
        for name, values in (
            ("stroke", 2 * math.pi * near("stroke", self.stroke_turns, 0.04)),
            ("exponent", near("gamma", self.gamma, 0.15)),
            ("ripple", 0.1 * normal("ripple").clamp(-2, 2)),
            ("flatness", bend[0] * x**2 + bend[1] * x * y + bend[2] * y**2),
            ("illumination", beam / beam.square().mean().sqrt()),
            ("real", normal("medium, real", m, k) / math.sqrt(2 * k)),
            ("imaginary", normal("medium, imaginary", m, k) / math.sqrt(2 * k)),
            ("affine", affine),
            ("image", self._image(places)),
            ("sensitivity", vignette * (1 + 0.02 * normal("sensitivity", m))),
            ("dark", 2e-3 * (1 + 0.2 * normal("dark", m)).clamp(min=0)),
            ("offset", 100 + 3 * normal("offset", m)),
            ("alive", torch.ones(k, dtype=torch.float64)),
        ):
            self.register_buffer(name, values, persistent=False)

    def _adjustment(self, normal: Callable[..., Tensor]) -> Tensor:
        """(A, b) as (2, 3), in pixels: column, row; mirrored in half of all specimens."""
        side = math.isqrt(self.pixels)
        turn, flip = 0.05 * normal("turn"), torch.sign(normal("flip"))
        half = 0.32 * side * (1 + 0.03 * normal("magnification", 2))
        turned = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
        matrix = turned @ torch.diag(torch.stack([flip * half[0], half[1]]))
        shift = (side - 1) / 2 + 0.02 * side * normal("shift", 2).clamp(-2, 2)
        return torch.cat([matrix, shift[:, None]], 1)

    def _image(self, places: Tensor) -> Tensor:
        """(M, K): how much a pixel sees of a macropixel; 1 in all inside the image."""
        side = math.isqrt(self.pixels)
        pitch = 2 * 0.32 * side / max(math.isqrt(self.macropixels) - 1, 1)
        row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64),) * 2, indexing="ij")
        apart = torch.cdist(torch.stack([column.flatten(), row.flatten()], 1), places)
        return torch.exp(-((apart / (SPOT * pitch)) ** 2) / 2) / (2 * math.pi * SPOT**2)

    @property
    def spec(self) -> Spec:
        """Gray levels of the macropixels, counts of the camera's pixels, four parameters of the optics."""
        return Spec(
            inputs=Port("gray levels of the modulator", 0.0, GRAY, "1", self.macropixels),
            outputs=Port("counts of the camera", 0.0, TOP, "1", self.pixels),
            params=Port("optics: mirror, exposure, laser, lamp", 0.0, 1.0, "1", len(AS_IT_STANDS)),
            provenance="twin",
        )

    def phase(self, gray: Tensor) -> Tensor:
        """Gray levels (..., K) -> rad (..., K), flatness left out; differentiable."""
        share = gray / GRAY * self.alive.to(gray)
        curve = (
            share.clamp(min=1e-6) ** self.exponent.to(gray) + self.ripple.to(gray) / (2 * math.pi) * (2 * math.pi * share).sin()
        )
        return self.stroke.to(gray) * curve

    def _electrons(self, gray: Tensor, optics: Sequence[float]) -> Tensor:
        mirror, exposure, laser, lamp = optics
        phase = self.phase(gray) + self.flatness.to(gray)
        if mirror >= 0.5:
            light = ((phase / 2).cos().square() * self.illumination.to(gray).square()) @ self.image.to(gray).T
        else:
            i, q = phase.cos() * self.illumination.to(gray), phase.sin() * self.illumination.to(gray)
            light = speckle(i, q, self.real.to(gray), self.imaginary.to(gray))
        return self._exposed(laser * light + LAMP * lamp, exposure)

    def _exposed(self, light: Tensor, exposure: float) -> Tensor:
        """Light on the pixels (..., M) -> electrons."""
        return self.full_well * exposure * (light * self.sensitivity.to(light) + self.dark.to(light))

    def _counts(self, electrons: Tensor) -> Tensor:
        return (self.offset.to(electrons) + SCALE / self.full_well * electrons).clamp(0, TOP)

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless counts with the optics as they stand, not rounded; differentiable in the gray levels."""
        return self._counts(self._electrons(x, AS_IT_STANDS))

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return no state: nothing is remembered from frame to frame."""
        return ()

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, K) gray levels -> (batch, M) counts, a frame each."""
        gray = x.round() if self.quantised else x
        electrons = self._electrons(gray, AS_IT_STANDS if params is None else params.tolist())
        return self._seen(electrons, rng), state

    def _seen(self, electrons: Tensor, rng: torch.Generator) -> Tensor:
        """Electrons -> counts of one frame, with the noise of the camera."""
        if self.noise:
            normal = torch.randn(electrons.shape, generator=rng, device=electrons.device, dtype=electrons.dtype)
            electrons = electrons + self.noise * (electrons + self.read_electrons**2).clamp(min=0).sqrt() * normal
        counts = self._counts(electrons)
        return counts.round() if self.quantised else counts


def speckle(i: Tensor, q: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    """Field (..., K) in front of a medium (M, K) -> light (..., M) behind it, both as real and imaginary parts."""
    return SPECKLE * ((i @ real.T - q @ imaginary.T).square() + (i @ imaginary.T + q @ real.T).square())


def _grid(side: int) -> tuple[Tensor, Tensor]:
    """Return x (to the right) and y (downwards), (side, side) each, -1 to 1."""
    axis = torch.linspace(-1, 1, side, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y
