"""Simulated Keysight 8164B mainframe with an 81600B tunable laser in its back slot, 0, and nothing else in it.

    :SLOT0:IDN?  ->  Agilent Technologies, 81600B, SIM-81600B-1, V5.25       :LOCK 0,1234    :LOCK?     1: no light

The lock is on at power-on if a password was set so (`locked`). With it on, the light goes off and stays off.

Source: Agilent 8163A/B, 8164A/B, 8166A/B Programming Guide, 08164-90B64, fifth edition, chapter 4. Not simulated: sweeps,
logging, modulation, modules in other slots, the power that a wavelength costs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from sim_devices.instruments.laser_box import LaserBox
from sim_devices.instruments.parameters import Flag
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.source_box import OUTPUT

PASSWORD = "1234"  # as it leaves the factory


class Keysight8164(LaserBox):
    """A simulated mainframe with a laser.

    Args:
        serial: serial number of the mainframe.
        locked: True if it is locked when it is switched on.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, serial: str = "SIM-8164B-0001", *, locked: bool = False, lock: threading.Condition | None = None
    ) -> None:
        self._locks_itself = self._locked = locked
        identity = ("Agilent Technologies", "8164B", serial, "V5.25(72637)")
        super().__init__(identity, "SOURce<0>", 6.3e-3, (1440e-9, 1640e-9, 1540e-9), lock)

    def _table(self) -> Iterator[Command]:
        yield from super()._table()
        yield Command("SLOT<0>:IDN", get=lambda call: "Agilent Technologies, 81600B, SIM-81600B-1, V5.25")
        yield Command("SLOT<0>:EMPTy", get=lambda call: "0")
        yield Command("LOCK", self._put_lock, lambda call: str(int(self._locked)))

    def _put_lock(self, call: Call) -> None:
        wanted, password = call.take(2, 2)
        if password != PASSWORD:
            raise ScpiError(-221, "wrong password")
        self._locked = bool(Flag().read(wanted))
        if self._locked:
            self._channels[1].change(**{OUTPUT: False})

    def _switch(self, call: Call) -> None:
        if self._locked and Flag().read(call.only()):
            raise ScpiError(-221, "the lasers are locked")
        super()._switch(call)

    def reboot(self) -> None:
        """Lose power for a moment: the light is off, and locked if it locks itself."""
        with self._lock:
            self._locked = self._locks_itself
            super().reboot()
