"""A camera behind a server that speaks SCPI: a Camera of drivers/frame/device.py.

    :CAMera:SIZE?             rows,columns of pixels          :CAMera:LEVels?    number of levels of a count, 65536 at most
    :CAMera:EXPosure <s>      of a frame; MINimum, MAXimum are known
    :CAMera:FRAMe?            a block: number u32, pixels row by row (u8 up to 256 levels, u16 beyond), CRC-32 u32 of both, all
                              little-endian; the exposure begins after the question has come
    number                    of frames that were asked for, one more each time: a frame is never taken for the next one

A frame that is damaged, or of another question, is no measurement: Desync, and the session is identified anew.

No maker's dialect: see drivers/scpi_display.py. Source of the block: IEEE 488.2-1992, 8.7.9.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from drivers.closing import close_all
from drivers.frame.device import Levels
from drivers.links.link import Link
from drivers.read_back import Panel, Setting, close_panel
from drivers.scpi import Scpi
from drivers.scpi_display import size_of
from drivers.scpi_driver import ScpiDriver
from hil.device import Provenance
from hil.errors import ContractError, Desync

COUNTED = 1 << 32


class ScpiCamera(ScpiDriver):
    """The camera. The constructor resets it.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.

    shape, levels: as it says. provenance: who opens it says.

    Raises:
        Desync: it does not say its size.
    """

    def __init__(self, scpi: Scpi | Link) -> None:
        self._scpi = scpi if isinstance(scpi, Scpi) else Scpi(scpi)
        self._ready, self._wanted_s = False, math.nan
        self._number: int | None = None  # of the last frame; None: not known
        self.provenance: Provenance = "unknown"
        try:
            self.identity = self._scpi.identify()
            self._scpi.send("*RST", "*CLS")
            self.shape, self.levels = size_of(self._scpi, ":CAM")
            self._wanted_s = self._scpi.ask_float(":CAM:EXP?")
        except BaseException:
            self._scpi.close()
            raise
        self._panel = Panel(self._scpi, f"camera {self.identity.serial}", [Setting("exposure", ":CAM:EXP?", unit="s")])

    @property
    def exposure_s(self) -> float:
        """Exposure of a frame, in s, as the camera says it."""
        return self._scpi.ask_float(":CAM:EXP?")

    @exposure_s.setter
    def exposure_s(self, exposure_s: float) -> None:
        if not 0 < exposure_s < math.inf:
            raise ContractError("no such exposure", where="camera", got=f"{exposure_s:g} s", allowed="above 0")
        self._wanted_s, self._ready = exposure_s, False
        self.prepare()

    def prepare(self) -> None:
        """Set the exposure; sends nothing if it is set. Raises: CommandRefused: the camera does not take it."""
        if self._ready:
            return
        self._scpi.send("*CLS", f":CAM:EXP {self._wanted_s:.9g}")
        self._scpi.check("setting the exposure", outputs="a camera has none")
        self._ready = True
        self._panel.renewed()

    def read(self) -> Levels:
        """Take a frame, `shape`, uint8 up to 256 levels and uint16 beyond.

        Raises:
            BadBlock: anything else came. Desync: it is damaged, or the answer to another question.
        """
        self.prepare()
        kind = np.dtype("<u1" if self.levels <= 256 else "<u2")
        size = self.shape[0] * self.shape[1] * kind.itemsize
        with self._scpi.link.transaction():
            data = self._scpi.ask_block(":CAM:FRAM?", "<u1", size + 8).tobytes()
            number, summed = (int.from_bytes(part, "little") for part in (data[:4], data[-4:]))
            due = number if self._number is None else (self._number + 1) % COUNTED
            damaged = summed != zlib.crc32(data[:-4])
            if damaged or number != due:
                self._number = None
                self._scpi.link.distrust("a frame that is not that of this question")
                raise Desync(
                    "a frame arrived damaged" if damaged else "a frame of another question", where=self._panel.name,
                    got=f"frame {number}, CRC {summed:08x}", allowed=f"frame {due}, a checksum that fits",
                    outputs="as they were", todo="recover() the session and repeat the whole shot",
                )  # fmt: skip
            self._number = number
        frame = np.frombuffer(data, kind, self.shape[0] * self.shape[1], 4).reshape(self.shape)
        return frame.astype(np.uint8, copy=False) if self.levels <= 256 else frame.astype(np.uint16, copy=False)

    def forget(self) -> None:
        """Set the exposure again next time: the instrument may have lost it (power, fault)."""
        self._ready, self._number = False, None

    def reset(self) -> None:
        """Send ``*RST``."""
        self.forget()
        self._panel.let_in()
        self._scpi.send("*RST", "*CLS")

    def close(self) -> None:
        """Close the wire. May be called twice."""
        close_all([lambda: close_panel(self._panel), self._scpi.close])
