"""Simulated Acme G1, with a diode at its output: a simulated instrument to copy.

    I = I_s ( exp( V / (n V_t) ) - 1 ),  limited to 0.1 A by its compliance

It speaks the commands of drivers/template.py over every transport (HiSLIP, raw socket), and knows nothing of either.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping

from sim_devices.instruments.operations import Operations
from sim_devices.instruments.parameters import Flag, Number, numbers
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Call, Command, Scpi, ScpiBox
from sim_devices.instruments.settings import Settings, setting

COMPLIANCE_A = 0.1
MOST_LEVELS = 100


class AcmeG1(ScpiBox):
    """A simulated G1.

    Args:
        serial: serial number.
        saturation_a: I_s.
        slope_v: n V_t.
        lock: of the bench, which gives it.
    """

    def __init__(
        self,
        serial: str = "SIM-G1-0001",
        *,
        saturation_a: float = 1e-3,
        slope_v: float = 1.0,
        lock: threading.Condition | None = None,
    ) -> None:
        self._serial, self._saturation_a, self._slope_v = serial, saturation_a, slope_v
        self._lock = lock or threading.Condition()
        self._settings = Settings({"volts": Number(-10, 10, 0, "V"), "output": Flag()})
        self._scpi = Scpi(
            [
                setting("SOURce:VOLTage", "volts", lambda call: self._settings),
                setting("OUTPut", "output", lambda call: self._settings),
                Command("SOURce:SWEep", get=self._sweep),
            ],
            identity=("Acme", "G1", serial, "1.0"),
            lock=self._lock,
            operations=Operations(self._lock, time.monotonic),
            reset=self._settings.reset,
            trigger=self._ignored,
        )

    def _sweep(self, call: Call) -> str:
        levels = numbers(call.take(1, MOST_LEVELS))
        if not self._settings.flag("output"):
            raise ScpiError(-221, "the output is off")
        for volts in levels:
            self._settings.change(volts=self._settings.read("volts", f"{volts:.9g}"))  # refuses what is out of range
        return ",".join(f"{self.current(volts):+.9E}" for volts in levels)

    def current(self, volts: float) -> float:
        """Return the current in A at a level in V."""
        flows = self._saturation_a * math.expm1(min(volts / self._slope_v, 50.0))
        return max(-COMPLIANCE_A, min(COMPLIANCE_A, flows))

    def _ignored(self) -> None:
        raise ScpiError(-211)

    # -- Box: what a transport asks for, sim_devices/instruments/box.py -----------------------------------------------------

    @property
    def name(self) -> str:
        """Model and serial number."""
        return f"G1 {self._serial}"

    def reboot(self) -> None:
        """Switch the power off and on."""
        with self._lock:
            self._settings.reset()
            self._scpi.status.power_on()

    def snapshot(self) -> dict[str, object]:
        """Return all of the state, as JSON values."""
        with self._lock:
            return self._settings.snapshot()

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over a snapshot. Raises: ContractError: not one of this model."""
        with self._lock:
            self._settings.restore(state)

    def outputs(self) -> dict[str, object]:
        """Return for each output: is it on, and its level in V."""
        with self._lock:
            volts = self._settings.number("volts")
            return {"1": {"on": self._settings.flag("output"), "low_v": volts, "high_v": volts}}
