"""Simulated display or light modulator that speaks the words of drivers/scpi_display.py.

What stands at its terminals is the mean level of its image; its output is on while it shows one, and off while it rests.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from sim_devices.instruments.parameters import Flag, Number, Parameter
from sim_devices.instruments.program_message import Block, ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting
from sim_devices.instruments.source_box import OUTPUT, SourceBox

WRONG_SIZE = -161


class ScpiDisplay(SourceBox):
    """A simulated display.

    Args:
        serial: serial number.
        rows, columns: of pixels.
        levels: number of gray levels.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, serial: str = "SIM-DISPLAY-0001", *, rows: int = 64, columns: int = 64, levels: int = 256,
        lock: threading.Condition | None = None,
    ) -> None:  # fmt: skip
        self.shape, self.levels = (rows, columns), levels
        self._kind = np.dtype("<u1" if levels <= 256 else "<u2")
        self._image: NDArray[np.unsignedinteger] = np.zeros(self.shape, self._kind)
        top = levels - 1
        outputs: dict[int, dict[str, Parameter]] = {
            1: {OUTPUT: Flag(), "rest": Number(0, top, 0, integer=True), "shown": Number(0, top, 0)}
        }
        super().__init__(("hil", "DISPLAY", serial, "1.0"), outputs, "shown", lock)

    def shows(self) -> NDArray[np.unsignedinteger]:
        """Levels of all pixels, `shape`: the image, or those at rest."""
        one = self._channels[1]
        return self._image if one.flag(OUTPUT) else np.full(self.shape, int(one.number("rest")), self._kind)

    def _table(self) -> Iterator[Command]:
        def of(call: Call) -> Settings:
            return self._channels[1]

        yield Command("DISPlay:SIZE", get=lambda call: f"{self.shape[0]},{self.shape[1]}")
        yield Command("DISPlay:LEVels", get=lambda call: f"{self.levels:+d}")
        yield Command("DISPlay:IMAGe", self._put_image)
        yield Command("DISPlay:SUM", get=lambda call: str(zlib.crc32(self.shows().tobytes())))
        yield setting("DISPlay:REST", "rest", of)
        yield setting("DISPlay:STATe", OUTPUT, of)

    def _put_image(self, call: Call) -> None:
        block = call.only()
        if not isinstance(block, Block):
            raise ScpiError(-104, "no block")
        if len(block.data) != self._image.nbytes:
            raise ScpiError(WRONG_SIZE, f"{len(block.data)} bytes of {self._image.nbytes}")
        image = np.frombuffer(bytes(block.data), self._kind).reshape(self.shape)
        if int(image.max()) >= self.levels:
            raise ScpiError(-222, f"level {image.max()}")
        self._image = image
        self._channels[1].change(**{OUTPUT: True, "shown": float(image.mean())})

    def _reset(self) -> None:
        self._image = np.zeros(self.shape, self._kind)
        super()._reset()

    def snapshot(self) -> dict[str, object]:
        """Return settings, status and image as JSON values."""
        with self._lock:
            return {**super().snapshot(), "image": self._image.tolist()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot. Raises: ContractError: it is none of this model."""
        super().restore(state)
        with self._lock:
            self._image = np.array(state["image"], self._kind).reshape(self.shape)
