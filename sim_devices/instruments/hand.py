"""A hand at the front panel of a simulated box: what it sets is what the same command sets, unless the panel is locked.

Neither the error queue nor the error bits of the standard event register know of what a hand does in vain; that keys were
pressed is seen in bit 6 of the register (URQ). Not simulated: that a connection which ends gives its lock back.

Source: IEEE 488.2-1992, 11.5.1 (URQ); Keysight 33500B/33600A guide, "SYSTem:LOCK"; InfiniiVision guide, ":SYSTem:LOCK".
"""

from __future__ import annotations

import threading
from typing import Protocol

from hil.errors import ConfigError, ContractError
from sim_devices.instruments.scpi import ScpiBox
from sim_devices.instruments.status import Status

URQ = 0x40


class Pressed(Protocol):
    """What a panel works: registers, and messages."""

    @property
    def status(self) -> Status:
        """The registers and the error queue."""

    def execute(self, message: bytes) -> bytes | None:
        """Run one message."""


class FrontPanel:
    """The front panel of a box, with a person's hand on it.

    Args:
        scpi: of the box, or the box itself where its dialect is its own.
        name: of the box, for messages. locks: how many requests have locked it and not let go.
    """

    def __init__(self, scpi: Pressed, name: str) -> None:
        self._scpi, self._name = scpi, name
        self.locks = 0

    def press(self, command: str) -> str:
        """Press the panel: do what `command` does; return the answer if it asks for something.

        Raises:
            ContractError: the panel is locked; nothing was done. ConfigError: the box does not do that.
        """
        if self.locks:
            raise ContractError(
                "the front panel is locked", where=self._name, got=command[:80], allowed="nothing until it is unlocked",
                outputs="unchanged",
            )  # fmt: skip
        status = self._scpi.status
        before, event = status.errors, status.event
        answer = self._scpi.execute(command.encode("ascii", "replace")) or b""
        if status.errors > before:
            refused, status.event = status.withdraw(before), event
            raise ConfigError("the box does not do that", where=self._name, got=f"{command[:80]}: {refused}")
        status.event |= URQ
        return answer.decode("latin-1")


class PanelBox(ScpiBox):
    """A simulated SCPI box with a front panel `_front`; `_lock` is that of its bench."""

    _front: FrontPanel
    _lock: threading.Condition

    @property
    def lock(self) -> threading.Condition:
        """The lock of the bench; hold it to look at several things at once."""
        return self._lock

    def press(self, command: str) -> str:
        """Press the front panel as a person would; see FrontPanel.press."""
        with self._lock:
            return self._front.press(command)
