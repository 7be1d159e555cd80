"""A display that shows an image, and a camera that sees what comes of it, as a Device. A row of a batch is one image.

    level of macropixel k   = round(scale (x_k + mask_k)) mod levels    scale: 1 for levels, levels / 2 pi for a phase in rad
    reading of macropixel m = (sum of its pixels' counts) / (its number of pixels)

The mask, a phase for each macropixel, is programmed where the settings say so: both are shown on one modulator, whose phases
add. It is 0 until it is programmed.

Both sides have an Area: a rectangle of pixels, cut into rows x columns macropixels of the same size, of which a mask keeps
some; the others of the display rest. A reading is a whole number over the number of pixels, so a tape keeps it in one byte
or two.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivers.closing import close_all
from hil.device import Port, Provenance, Spec, answered
from hil.errors import UNTOUCHED, Changed, ConfigError, ContractError, NotAReading, OutOfRange, Saturated
from hil.settings import Count, NotNegative, Positive, Share, check

Levels = NDArray[np.uint8] | NDArray[np.uint16]
EXPOSURE_APART = 0.05  # a camera rounds an exposure to what it can do
MOST = {8: 0xFF, 16: 0xFFFF}


class Display(Protocol):
    """An instrument that shows images.

    Args:
        shape: rows and columns of pixels.
        levels: number of gray levels, 256 for 8 bits.
    """

    shape: tuple[int, int]
    levels: int
    provenance: Provenance

    def write(self, image: Levels) -> None:
        """Show an image, `shape`, uint8 up to 256 levels and uint16 beyond; return when it is there."""

    def close(self) -> None:
        """Give the display back. May be called twice."""


class Camera(Protocol):
    """An instrument that takes frames.

    Args:
        shape: rows and columns of pixels.
        levels: number of levels of a count, 256 for 8 bits.
        exposure_s: exposure of a frame, s; it can be set.
    """

    shape: tuple[int, int]
    levels: int
    provenance: Provenance

    @property
    def exposure_s(self) -> float:
        """Exposure of a frame, as the camera says it, in s."""

    @exposure_s.setter
    def exposure_s(self, exposure_s: float) -> None: ...

    def read(self) -> Levels:
        """Take a frame, `shape`, whose exposure begins after this call does."""

    def close(self) -> None:
        """Give the camera back. May be called twice."""


@dataclass(frozen=True)
class Area:
    """The part of a display or of a camera that is used.

    Args:
        rows, columns: macropixels.
        top, left: its first pixel.
        height, width: pixels; None: to the end.
        mask: "all" macropixels, or those whose centre is in the largest ellipse, "disc".
    """

    rows: Count
    columns: Count
    top: int = 0
    left: int = 0
    height: Count | None = None
    width: Count | None = None
    mask: Literal["all", "disc"] = "all"

    def __post_init__(self) -> None:
        check(self, "area")

    def on(self, shape: tuple[int, int], where: str) -> Grid:
        """Return the area on a display or camera of `shape`. Raises: ConfigError: it does not fit, or not evenly."""
        height = shape[0] - self.top if self.height is None else self.height
        width = shape[1] - self.left if self.width is None else self.width
        fits = min(self.top, self.left, height - 1, width - 1) >= 0
        fits = fits and self.top + height <= shape[0] and self.left + width <= shape[1]
        if not fits or height % self.rows or width % self.columns:
            raise ConfigError(
                "an area that does not fit" if not fits else "macropixels of different sizes", where=where,
                got=f"{height} x {width} pixels at ({self.top}, {self.left}), {self.rows} x {self.columns} macropixels",
                allowed=f"inside {shape[0]} x {shape[1]} pixels, and a whole number of pixels for each macropixel",
            )  # fmt: skip
        kept = np.ones((self.rows, self.columns), bool)
        if self.mask == "disc":
            down, right = (np.linspace(-1, 1, 2 * n + 1)[1::2] for n in (self.rows, self.columns))
            kept = down[:, None] ** 2 + right**2 <= 1
        return Grid(shape, (self.top, self.left), (height // self.rows, width // self.columns), kept)


@dataclass(frozen=True)
class Grid:
    """An area on pixels.

    Args:
        shape: of the whole.
        corner: its first pixel.
        block: rows and columns of a macropixel.
        kept: (rows, columns), which macropixels are used, row by row.
    """

    shape: tuple[int, int]
    corner: tuple[int, int]
    block: tuple[int, int]
    kept: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """Macropixels that are used."""
        return int(self.kept.sum())

    @property
    def pixels(self) -> int:
        """Pixels of a macropixel."""
        return self.block[0] * self.block[1]

    def _part(self, image: NDArray[Any]) -> NDArray[Any]:
        """The area of an image, as (rows, block rows, columns, block columns)."""
        (top, left), (rows, columns) = self.corner, self.kept.shape
        part = image[top : top + rows * self.block[0], left : left + columns * self.block[1]]
        return part.reshape(rows, self.block[0], columns, self.block[1])

    def image(self, values: NDArray[Any], rest: int) -> NDArray[Any]:
        """An image of `values` (size,), `rest` everywhere else."""
        found = np.full(self.shape, rest, values.dtype)
        (top, left), (rows, columns) = self.corner, self.kept.shape
        each = np.full(self.kept.shape, rest, values.dtype)
        each[self.kept] = values
        found[top : top + rows * self.block[0], left : left + columns * self.block[1]] = each.repeat(self.block[0], 0).repeat(
            self.block[1], 1
        )
        return found

    def sums(self, frame: Levels) -> NDArray[np.int64]:
        """(size,): sums of the pixels of each macropixel."""
        found: NDArray[np.int64] = self._part(frame).sum((1, 3), dtype=np.int64)[self.kept]
        return found

    def share_at(self, frame: Levels, level: int) -> float:
        """The share of the pixels that are used which are at `level`."""
        return float((self._part(frame) >= level).sum((1, 3))[self.kept].sum() / (self.size * self.pixels))


@dataclass(frozen=True, slots=True)
class FrameSettings:
    """Settings that say how images are shown, and frames are taken.

    Args:
        drive: "levels" of the display, or a "phase", 0 to 2 pi rad, over all its levels.
        exposure_s: of a frame; None: as the camera has it.
        settle_s: from an image that is shown to the frame.
        saturated: largest share of the camera's pixels in use that may be at its highest level.
        rest_level: of the display where nothing is driven, and when it is made safe.
        mask: a phase mask is programmed, which is added to what is driven; with drive = "phase".
    """

    drive: Literal["levels", "phase"] = "levels"
    exposure_s: Positive | None = None
    settle_s: NotNegative = 0.0
    saturated: Share = 0.01
    rest_level: int = 0
    mask: bool = False

    def __post_init__(self) -> None:
        check(self, "frame")
        if self.mask and self.drive != "phase":
            raise ConfigError(
                "a mask of phases is added to phases", where="frame mask", got=f'mask with drive = "{self.drive}"',
                allowed='mask with drive = "phase"', outputs=UNTOUCHED, todo='write drive = "phase", or remove mask',
            )  # fmt: skip


class Frame:
    """A display and a camera.

    Args:
        display, camera: open; they are closed with the device.
        show, look: the areas on them.
        settings: see FrameSettings.
        exposures: the exposure is programmed, as a share of the one that the settings say.

    Raises:
        ConfigError: areas that do not fit, an exposure that the camera does not take, or a mask and exposures.
    """

    def __init__(
        self,
        display: Display,
        camera: Camera,
        show: Area,
        look: Area,
        settings: FrameSettings | None = None,
        exposures: bool = False,
    ) -> None:
        made = settings or FrameSettings()
        drive, exposure_s, rest_level = made.drive, made.exposure_s, made.rest_level
        self._display, self._camera, self._settle_s, self._saturated = display, camera, made.settle_s, made.saturated
        self._show, self._look = show.on(display.shape, "area of the display"), look.on(camera.shape, "area of the camera")
        self._rest, self._closed = rest_level, False
        if made.mask and exposures:
            raise ConfigError(
                "a mask and the light cannot both be programmed", where="frame mask", got="mask, and exposures",
                allowed="one of them", todo="remove mask, or [optics]",
            )  # fmt: skip
        if not 0 <= rest_level < display.levels:
            raise ConfigError(
                "a rest that is no level", where="display", got=f"{rest_level}", allowed=f"0 to {display.levels - 1}"
            )
        levels = drive == "levels"
        per_unit = 1.0 if levels else display.levels / (2 * math.pi)
        high, rest = display.levels - 1.0 if levels else 2 * math.pi, rest_level / per_unit
        inputs = Port("display", 0.0, high, "1" if levels else "rad", self._show.size, scale=per_unit, rest=rest)
        most = (camera.levels - 1) * self._look.pixels
        bits = next((bits for bits, all_of in MOST.items() if most <= all_of), None)
        outputs = Port("camera", 0.0, camera.levels - 1.0, "1", self._look.size, scale=float(self._look.pixels), bits=bits)
        params = Port("exposure", 0.0, 1.0, "1", 1) if exposures else None
        if made.mask:
            params = Port("phase mask", 0.0, high, "rad", self._show.size, rest=0.0)
        self._per_unit, self._mask = per_unit, None if not made.mask else np.zeros(self._show.size)
        self._spec = Spec(inputs, outputs, params, provenance=answered(display.provenance, camera.provenance))
        self._exposure_s = camera.exposure_s
        if exposure_s is not None:
            self._expose(exposure_s)
        self._longest_s = self._exposure_s
        self.safe()

    @property
    def spec(self) -> Spec:
        """Levels or phases in, counts out."""
        return self._spec

    def forward(self, x: Tensor) -> Tensor:
        """(batch, macropixels of the display) -> (batch, macropixels of the camera), counts.

        Raises:
            OutOfRange: before anything is shown. Saturated: too many pixels at the highest level. NotAReading: no frame of this
            camera. Changed: somebody else set another exposure.
        """
        self._spec.inputs.check(x)
        if self._closed or x.ndim != 2:
            raise ContractError(
                "this device is closed" if self._closed else "a batch of images is needed", where="display",
                got=f"shape {tuple(x.shape)}", allowed="(batch, macropixels)", outputs="the display rests",
            )  # fmt: skip
        if self._camera.exposure_s != self._exposure_s:
            raise Changed(
                "somebody else changed the exposure", where="camera", got=f"{self._camera.exposure_s:g} s",
                allowed=f"{self._exposure_s:g} s", outputs="the display shows what it did", todo="start again",
            )  # fmt: skip
        rows = self._spec.inputs.own(x.detach().to("cpu", torch.float64)).numpy()
        if self._mask is not None:
            rows = rows + self._mask
        levels = np.rint(rows).astype(np.int64) % self._display.levels
        sums = np.empty((len(rows), self._look.size))
        for number, row in enumerate(levels):
            self._display.write(self._show.image(row.astype(self._dtype(self._display)), self._rest))
            if self._settle_s:
                time.sleep(self._settle_s)
            sums[number] = self._seen()
        return self._spec.outputs.of_own(torch.from_numpy(sums)).to(torch.float32)

    def program(self, params: Tensor) -> None:
        """Set the mask, (macropixels,) in rad, or the exposure, (1,) or (): a share of that of the settings.

        A mask is shown with the next image.

        Raises:
            ContractError: neither is programmed. OutOfRange: before anything is sent. ConfigError: the camera does not take it.
        """
        if self._spec.params is None or self._closed:
            raise ContractError(
                "this device is closed" if self._closed else "no mask and no exposure is programmed here", where="camera",
                got="program()", outputs="the display rests" if self._closed else "as they were",
            )  # fmt: skip
        given = self._spec.params.check(params).detach().reshape(-1).to("cpu", torch.float64)
        if self._mask is not None:
            self._mask = self._per_unit * given.numpy()
            return
        share = float(given[0])
        if not share:
            raise OutOfRange("no exposure", where="camera", got="0", allowed="above 0, up to 1", outputs="as they were")
        self._expose(share * self._longest_s)

    def _expose(self, exposure_s: float) -> None:
        self._camera.exposure_s = exposure_s
        self._exposure_s = self._camera.exposure_s
        if abs(self._exposure_s / exposure_s - 1) > EXPOSURE_APART:
            raise ConfigError(
                "an exposure that the camera does not take", where="camera", got=f"exposure = {exposure_s:g} s",
                allowed=f"{self._exposure_s:g} s is what it took", outputs="the display rests",
            )  # fmt: skip

    def _seen(self) -> NDArray[np.int64]:
        frame = self._camera.read()
        if frame.shape != self._camera.shape or frame.dtype != self._dtype(self._camera):
            raise NotAReading(
                "no frame of this camera", where="camera", got=f"{frame.dtype}, shape {frame.shape}",
                allowed=f"{self._dtype(self._camera)}, shape {self._camera.shape}",
            )  # fmt: skip
        if int(frame.max()) >= self._camera.levels:
            raise NotAReading("a count beyond the levels of the camera", where="camera", got=str(frame.max()))
        share = self._look.share_at(frame, self._camera.levels - 1)
        if share > self._saturated:
            raise Saturated(
                f"{share:.1%} of the pixels are at the highest level", where="camera",
                got=f"{self._exposure_s:g} s of exposure", allowed=f"up to {self._saturated:.1%}",
                outputs="the display shows the last image", todo="shorten exposure, or lower the light",
            )  # fmt: skip
        return self._look.sums(frame)

    @staticmethod
    def _dtype(side: Display | Camera) -> np.dtype[Any]:
        return np.dtype(np.uint8 if side.levels <= 256 else np.uint16)

    def safe(self) -> None:
        """Let the display rest. What it shows cannot be read back; a light source is none of its matter."""
        rest = np.full(self._show.size, self._rest, self._dtype(self._display))
        self._display.write(self._show.image(rest, self._rest))

    def close(self) -> None:
        """Let the display rest, and give both back. May be called twice."""
        if self._closed:
            return
        self._closed = True
        close_all([self.safe, self._display.close, self._camera.close])
