"""Keysight 8163B, 8164B: a mainframe with a tunable laser of the 81xx family, held at a power and a wavelength.

    :SLOT<n>:EMPTy?    :SLOT<n>:IDN?        what is in the slot; the back slot of an 8164B is 0
    :LOCK?             1: no laser can be switched on; :LOCK 0,<password> is for a person to send
    :SOURce<n>:POWer:UNIT 1                 watts          :SOURce<n>:POWer <W>        :SOURce<n>:WAVelength <m>
    :SOURce<n>:POWer? MAX                   what the module gives at this wavelength
    :SOURce<n>:POWer:STATe 0|1              the light; *RST switches it off

Source: Agilent 8163A/B, 8164A/B, 8166A/B Programming Guide, 08164-90B64, fifth edition, chapter 4 (:LOCK, :SLOT, :SOURce);
module data sheets (wavelengths and peak power of LASERS). The words of :SOURce0 are those of PyMeasure's KeysightN7776C, which
works the simulated box (tests/interop). From the manual only: slots, the lock, MIN and MAX. Not used: sweeps, logging, power
meters in other slots, modulation.
"""

from __future__ import annotations

from drivers.laser import laser as layout
from drivers.links.link import Link
from drivers.read_back import Setting
from drivers.scpi import Expect, Scpi
from drivers.scpi_source import Layout, ScpiSource
from hil.errors import ConfigError, OutOfRange, WrongInstrument
from hil.units import finite

MAINFRAMES = ("8163", "8164", "8166")
LASERS = {"81600B": (1440e-9, 1640e-9, 6.3e-3), "81940A": (1520e-9, 1630e-9, 20e-3), "81960A": (1505e-9, 1630e-9, 25e-3),
          "81980A": (1465e-9, 1575e-9, 28e-3)}  # fmt: skip
LARGEST_SLOT = 17  # of an 8166


class Keysight8164(ScpiSource):
    """The laser in one slot of a mainframe. It can hold power and wavelength.

    Args:
        scpi: an open conversation with the mainframe, or a Link.
        slot: of the laser.
        laser: its model, as the slot says it; its limits follow from it.
        high_w: largest power, W.

    Raises:
        OutOfRange: a limit wider than the laser's. ConfigError: no such laser, another one in the slot, or a mainframe that is
        locked. WrongInstrument.
    """

    def __init__(self, scpi: Scpi | Link, *, slot: int = 0, laser: str = "81600B", high_w: float = 1e-3) -> None:
        self._slot, self._module, self._high_w = slot, laser, high_w
        super().__init__(scpi, self._described)

    def _described(self) -> Layout:
        if self._module not in LASERS or not 0 <= self._slot <= LARGEST_SLOT:
            raise ConfigError(
                "no such laser", where="laser", got=f"{self._module} in slot {self._slot}",
                allowed=f"{', '.join(LASERS)}; slot 0 to {LARGEST_SLOT}", outputs="unchanged; nothing was sent",
            )  # fmt: skip
        shortest, longest, highest_w = LASERS[self._module]
        lock = (Setting("lock", ":LOCK?", "flag"),)
        who = Expect(("Keysight", "Agilent", "Hewlett"), MAINFRAMES)
        return layout(who, f":SOUR{self._slot}", highest_w, (shortest, longest), self._high_w, lock)

    def _met(self) -> None:
        """The slot must hold the laser that is meant, and nobody may have locked the mainframe."""
        slot = f":SLOT{self._slot}"
        found = "nothing" if self._scpi.ask_bool(f"{slot}:EMPT?") else self._scpi.ask(f"{slot}:IDN?")
        if self._module not in found:
            raise WrongInstrument(
                "another module is in the slot", where=f"{self._called} slot {self._slot}", got=found[:80],
                allowed=self._module, outputs="unchanged; nothing was set", todo="correct slot or laser in the bench file",
            )  # fmt: skip
        if self._scpi.ask_bool(":LOCK?"):
            raise ConfigError(
                "the lasers of the mainframe are locked", where=self._called, got=":LOCK? 1", allowed="0", outputs="off",
                todo="unlock it at its front panel, with its password",
            )  # fmt: skip
        self._scpi.send(f":SOUR{self._slot}:POW:UNIT 1")
        reply = self._scpi.ask(f":SOUR{self._slot}:POW? MAX")
        try:
            most = finite(reply)
        except ValueError:
            most = 0.0
        if self._high_w > most * (1 + 1e-6):
            raise OutOfRange(
                "this laser does not give so much", where=f"{self._called} high_w", got=f"{self._high_w:g} W",
                allowed=f"up to {most:g} W at the wavelength that it has", outputs="off",
            )  # fmt: skip
