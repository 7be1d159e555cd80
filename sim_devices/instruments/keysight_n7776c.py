"""Simulated Keysight N7776C tunable laser.

Source: Keysight N777-C Series Tunable Laser Sources, Programming Guide, SOURce subsystem. Not simulated: sweeps, logging,
modulation, that the lock has a password which can be changed.
"""

from __future__ import annotations

import threading

from sim_devices.instruments.laser_box import LaserBox


class KeysightN7776C(LaserBox):
    """A simulated laser.

    Args:
        serial: serial number.
        lock: of the bench, which gives it.
    """

    def __init__(self, serial: str = "SIM-N7776C-0001", *, lock: threading.Condition | None = None) -> None:
        identity = ("Keysight Technologies", "N7776C", serial, "1.100")
        super().__init__(identity, "SOURce<0>", 20e-3, (1490e-9, 1640e-9, 1550e-9), lock)
