"""A display or a light modulator behind a server that speaks SCPI: a Display of drivers/frame/device.py.

    :DISPlay:SIZE?             rows,columns of pixels            :DISPlay:LEVels?    number of gray levels, 256 or 65536 at most
    :DISPlay:IMAGe <block>     shows an image, row by row, u8 up to 256 levels and little-endian u16 beyond
    :DISPlay:SUM?              CRC-32 of the image that is shown: what is read back
    :DISPlay:REST <level>      of all pixels while it rests
    :DISPlay:STATe 0|1         0: it rests, and so it does after *RST; an image makes it 1

No maker's dialect: a few lines on the computer of a modulator serve it, and a process of its own can make it safe. It is what
the simulated display speaks (sim_devices/instruments/scpi_display.py). Source of the block: IEEE 488.2-1992, 8.7.9.
"""

from __future__ import annotations

import zlib

import numpy as np

from drivers.frame.device import Levels
from drivers.links.block import header
from drivers.links.link import Link
from drivers.read_back import OUTPUT, Panel, Setting
from drivers.safe import OFF, SafeState, Step, carry_out
from drivers.scpi import Expect, Scpi
from drivers.scpi_driver import ScpiOutput
from drivers.scpi_talk import OVER_VISA, ScpiTalk
from hil.device import Provenance
from hil.errors import CommandRefused, ContractError, Desync, OutOfRange

MOST_LEVELS = 1 << 16


class ScpiDisplay(ScpiOutput):
    """The display. The constructor resets it, so that it rests.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.

    shape, levels: as it says. rest_level: of all pixels at rest, sent with the next `prepare`. provenance: who opens it says.

    Raises:
        Desync: it does not say its size.
    """

    _called = "display"

    def __init__(self, scpi: Scpi | Link) -> None:
        self._scpi = scpi if isinstance(scpi, Scpi) else Scpi(scpi)
        self._closed = self._ready = False
        self.rest_level = 0
        self.provenance: Provenance = "unknown"
        try:
            self.identity = self._scpi.identify()
            self._scpi.send("*RST", "*CLS")
            self.shape, self.levels = size_of(self._scpi, ":DISP")
        except BaseException:
            self._scpi.close()
            raise
        self._panel = Panel(
            self._scpi, f"display {self.identity.serial}",
            [Setting(OUTPUT, ":DISP:STAT?", "flag"), Setting("level at rest", ":DISP:REST?")],
        )  # fmt: skip

    def prepare(self) -> None:
        """Let it rest, at `rest_level`; sends nothing if it was prepared.

        Raises:
            CommandRefused: the instrument complains. SwitchedOff: somebody else let it rest.
        """
        if self._ready:
            return
        self._panel.check_output()
        self._switch_off()
        self._scpi.send("*CLS", f":DISP:REST {self.rest_level}")
        self._scpi.check("setting up the display", outputs="at rest")
        self._ready = True
        self._panel.renewed()
        self._panel.left(False)

    def write(self, image: Levels) -> None:
        """Show an image, `shape`, uint8 up to 256 levels and uint16 beyond, and read its checksum back.

        Raises:
            OutOfRange, ContractError: nothing was sent. CommandRefused: it shows something else.
        """
        kind = np.uint8 if self.levels <= 256 else np.uint16
        if self._closed or image.shape != self.shape or image.dtype != kind:
            raise ContractError(
                "the display is closed" if self._closed else "not an image of this display", where=self._called,
                got=f"{image.dtype}, shape {image.shape}", allowed=f"{np.dtype(kind)}, shape {self.shape}",
            )  # fmt: skip
        if int(image.max()) >= self.levels:
            raise OutOfRange("a level that the display does not have", where=self._called, got=str(image.max()),
                             allowed=f"0 to {self.levels - 1}", outputs="unchanged; nothing was sent")  # fmt: skip
        self.prepare()
        data = np.ascontiguousarray(image, "<u1" if self.levels <= 256 else "<u2").tobytes()
        with self._scpi.link.transaction():  # whole: nothing may be shown after close() has begun to let it rest
            self._panel.left(None)
            self._scpi.link.write(b":DISP:IMAG ", header(len(data)), data)
            reply = self._scpi.ask(":DISP:SUM?;:DISP:STAT?")
        if reply.replace("+", "") != f"{zlib.crc32(data)};1":
            self.forget()
            raise CommandRefused(
                "the display did not take the image", where=f"display {self.identity.serial}",
                got="; ".join([reply[:80], *self._scpi.errors()]), allowed=f"{zlib.crc32(data)};1",
                outputs="unknown; it may show another image",
            )  # fmt: skip
        self._panel.left(True)

    def safe_state(self) -> SafeState:
        """Describe the safe state: the display rests."""
        who = self.identity
        return SafeState(
            "display", self._scpi.link.name, OVER_VISA, Expect(who.maker, who.model, who.serial),
            (Step(":DISP:STAT 0", ":DISP:STAT?", OFF),), outputs="unknown; if it still runs, the last image",
        )  # fmt: skip

    def _switch_off(self) -> None:
        with self._scpi.link.transaction():
            self.forget()
            self._panel.left(None)
            carry_out(self.safe_state(), ScpiTalk(self._scpi))
            self._panel.left(False)

    def forget(self) -> None:
        """Set everything up again next time: the instrument may have lost it (power, fault)."""
        self._ready = False

    def reset(self) -> None:
        """Let it rest, then send ``*RST``. Raises: SwitchedOff: somebody else let it rest."""
        self._panel.check_output()
        self._switch_off()
        self._panel.let_in()
        self._scpi.send("*RST", "*CLS")


def size_of(scpi: Scpi, root: str) -> tuple[tuple[int, int], int]:
    """Rows and columns of pixels, and the number of levels, that a display or a camera says. Raises: Desync: it does not."""
    reply, levels = scpi.ask(f"{root}:SIZE?"), scpi.ask_int(f"{root}:LEV?")
    sides = [part.strip().lstrip("+") for part in reply.split(",")]
    if (
        len(sides) != 2
        or not all(side.isdecimal() and 0 < int(side) < 1 << 16 for side in sides)
        or not 2 <= levels <= MOST_LEVELS
    ):
        scpi.link.distrust("an image without a size")
        raise Desync("the instrument does not say the size of an image", where=scpi.link.name, got=f"{reply[:60]}; {levels}",
                     allowed=f"rows,columns; 2 to {MOST_LEVELS} levels")  # fmt: skip
    return (int(sides[0]), int(sides[1])), levels
