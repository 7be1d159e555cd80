"""Common parts of simulated boxes that measure and hold nothing: one set of settings, one input, no outputs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

from hil.errors import ContractError
from sim_devices.instruments.hand import FrontPanel, PanelBox
from sim_devices.instruments.operations import Operations
from sim_devices.instruments.parameters import Parameter
from sim_devices.instruments.probe import Answers, Probe
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Command, Scpi
from sim_devices.instruments.settings import Settings


class MeterBox(Probe, PanelBox):
    """A simulated meter.

    Args:
        identity: the four fields of ``*IDN?``.
        parameters: its settings by name.
        there: what is at its input, until a plant says otherwise.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, identity: tuple[str, str, str, str], parameters: Mapping[str, Parameter], there: Answers,
        lock: threading.Condition | None,
    ) -> None:  # fmt: skip
        Probe.__init__(self, {1: there})
        self._identity = identity
        self._lock = lock or threading.Condition()
        self._settings = Settings(parameters)
        self._scpi = Scpi(
            self._table(), identity=identity, lock=self._lock, operations=Operations(self._lock, time.monotonic),
            reset=self._reset, trigger=self._ignored,
        )  # fmt: skip
        self._front = FrontPanel(self._scpi, self.name)

    def _table(self) -> Iterator[Command]:
        """Return the commands of the box."""
        yield from ()

    def _there(self) -> float:
        """What is at the input now."""
        return self._inputs[1](0.0)

    def _reset(self) -> None:
        """``*RST``."""
        self._settings.reset()

    def _ignored(self) -> None:
        raise ScpiError(-211)

    # -- Box ----------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Model and serial number."""
        return f"{self._identity[1]} {self._identity[2]}"

    def reboot(self) -> None:
        """Lose power for a moment: settings as at power-on."""
        with self._lock:
            self._reset()
            self._scpi.status.power_on()

    def snapshot(self) -> dict[str, object]:
        """Return settings and status as JSON values."""
        with self._lock:
            return {"settings": self._settings.snapshot(), "status": self._scpi.status.snapshot()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot. Raises: ContractError: it is none of this model."""
        status = state.get("status")
        if not isinstance(status, Mapping):
            raise ContractError("not a snapshot of a meter", where=self.name, got=str(state)[:80])
        with self._lock:
            self._settings.restore(state.get("settings"))
            self._scpi.status.restore(status)

    def outputs(self) -> dict[str, object]:
        """Return {}: it has none."""
        return {}
