"""The plant of a frame bench: a display drives a twin of K gray levels, a camera sees its M counts.

    x_k     = mean of the levels of the display in macropixel k, K a square that the display is cut into evenly
    params  = optics.mirror, exposure, optics.laser, optics.lamp            shares; exposure: the camera's, of its longest
    y       = node.respond(x, params)
    frame   = y_m in all pixels of square m of the camera

What the light sources do comes by feeds (outputs.py): a laser that is off lights nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from hil.errors import ConfigError
from sim_devices.bench.answering import Answering
from sim_devices.instruments.scpi_camera import ScpiCamera
from sim_devices.instruments.scpi_display import ScpiDisplay
from sim_devices.switch_log import SwitchLog
from sim_devices.twin import Twin

OPTICS = 4


class Scene(Answering):
    """A display, a camera, and what is between them.

    Args:
        display, camera: the boxes.
        node: the twin, with four parameters: mirror, exposure, laser, lamp.
        seed: of noise and drift.
        log: of the outputs that are switched.

    Raises:
        ConfigError: a node of another kind, or one whose squares do not fit the pixels.
    """

    def __init__(
        self, display: ScpiDisplay, camera: ScpiCamera, node: Twin, *, seed: int = 0, log: SwitchLog | None = None
    ) -> None:
        spec = node.spec
        if spec.params is None or spec.params.size != OPTICS:
            raise ConfigError(
                "the node between display and camera has no optics", where="wiring", got=f"params {spec.params}",
                allowed="four parameters: mirror, exposure, laser, lamp", todo="name sim_devices.scattering:Scattering",
            )  # fmt: skip
        self._side, self._block = _squares(spec.inputs.size, display.shape, "display")
        _, self._spread = _squares(spec.outputs.size, camera.shape, "camera")
        factors = {"optics.mirror": 0.0, "optics.laser": 1.0, "optics.lamp": 0.0}
        super().__init__(node, factors, display.lock, seed, "scene", log)
        self._display = display
        camera.sees = self._counts

    def _counts(self, exposure: float) -> NDArray[np.float32]:
        """Counts of a frame, the camera's shape, at an exposure as a share of the longest."""
        (high, wide), side = self._block, self._side
        levels = self._display.shows().astype(np.float32).reshape(side, high, side, wide).mean((1, 3))
        mirror, laser, lamp = (self._factors[f"optics.{name}"] for name in ("mirror", "laser", "lamp"))
        params = torch.tensor([mirror, exposure, max(laser, 0.0), max(lamp, 0.0)])
        y = self._answer(torch.from_numpy(levels).reshape(1, -1), params).reshape(-1).numpy()
        square = y.reshape(math.isqrt(len(y)), -1)
        found: NDArray[np.float32] = square.repeat(self._spread[0], 0).repeat(self._spread[1], 1)
        return found


def _squares(count: int | None, shape: tuple[int, int], what: str) -> tuple[int, tuple[int, int]]:
    """Side of a square of `count`, and rows and columns of pixels of each part. Raises: ConfigError: it does not fit."""
    side = math.isqrt(count or 0)
    if not count or side**2 != count or shape[0] % side or shape[1] % side:
        raise ConfigError(
            f"the node does not fit the {what}", where="wiring", got=f"{count} channels on {shape[0]} x {shape[1]} pixels",
            allowed="a square number of channels, and a whole number of pixels for each",
        )  # fmt: skip
    return side, (shape[0] // side, shape[1] // side)
