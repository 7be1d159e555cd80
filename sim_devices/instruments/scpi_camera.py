"""Simulated camera that speaks the words of drivers/scpi_camera.py; what it sees is the plant's business."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from sim_devices.instruments.hand import FrontPanel, PanelBox
from sim_devices.instruments.operations import Operations
from sim_devices.instruments.parameters import Number
from sim_devices.instruments.program_message import blocked
from sim_devices.instruments.scpi import Command, Scpi
from sim_devices.instruments.settings import Settings, setting

SHORTEST_SHARE = 1e-6
COUNTED = 1 << 32
View = Callable[[float], NDArray[np.floating]]  # exposure as a share of the longest -> counts, the camera's shape


class ScpiCamera(PanelBox):
    """A simulated camera.

    Args:
        serial: serial number.
        rows, columns: of pixels.
        levels: number of levels of a count.
        longest_s: longest exposure, which it has after ``*RST``, s.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, serial: str = "SIM-CAMERA-0001", *, rows: int = 64, columns: int = 64, levels: int = 4096,
        longest_s: float = 10e-3, lock: threading.Condition | None = None,
    ) -> None:  # fmt: skip
        self._serial, self.shape, self.levels, self._longest_s = serial, (rows, columns), levels, longest_s
        self._frames = 0
        self.sees: View = lambda exposure: np.zeros(self.shape)
        self._kind = np.dtype("<u1" if levels <= 256 else "<u2")
        self._lock = lock or threading.Condition()
        exposure = Number(SHORTEST_SHARE * longest_s, longest_s, longest_s, "S", style="+.8E")
        self._settings = Settings({"exposure": exposure})
        self._operations = Operations(self._lock, time.monotonic)
        self._scpi = Scpi(
            [
                Command("CAMera:SIZE", get=lambda call: f"{self.shape[0]},{self.shape[1]}"),
                Command("CAMera:LEVels", get=lambda call: f"{self.levels:+d}"),
                setting("CAMera:EXPosure", "exposure", lambda call: self._settings),
                Command("CAMera:FRAMe", get=lambda call: self._frame()),
            ],
            identity=("hil", "CAMERA", serial, "1.0"), lock=self._lock, operations=self._operations,
            reset=self._settings.reset, trigger=lambda: None,
        )  # fmt: skip
        self._front = FrontPanel(self._scpi, self.name)

    def _frame(self) -> bytes:
        if self.timing is not None:
            self._operations.pause(self._settings.number("exposure") + self.timing.acquire_s)
        counts = self.sees(self._settings.number("exposure") / self._longest_s)
        self._frames = (self._frames + 1) % COUNTED
        data = self._frames.to_bytes(4, "little") + np.clip(np.rint(counts), 0, self.levels - 1).astype(self._kind).tobytes()
        data += zlib.crc32(data).to_bytes(4, "little")
        return blocked(data)

    # -- Box: what a transport asks for, sim_devices/instruments/box.py -----------------------------------------------------

    @property
    def name(self) -> str:
        """Model and serial number."""
        return f"CAMERA {self._serial}"

    def reboot(self) -> None:
        """Switch the power off and on."""
        with self._lock:
            self._settings.reset()
            self._scpi.status.power_on()

    def snapshot(self) -> dict[str, object]:
        """Return the settings as JSON values."""
        with self._lock:
            return self._settings.snapshot()

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over a snapshot. Raises: ContractError: not one of this model."""
        with self._lock:
            self._settings.restore(state)

    def outputs(self) -> dict[str, object]:
        """Return {}: a camera drives nothing."""
        return {}
