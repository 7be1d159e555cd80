"""Common parts of drivers of SCPI instruments: the rungs of recovery, and the way of outputs to safe.

safe     switch off, read back; after a fault of the link, or a Ctrl-C, once more over a connection that was opened anew
close    safe, front panel unlocked, wire closed; each of them whatever the one before did
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

from drivers.closing import close_all
from drivers.read_back import Panel, Value, close_panel
from drivers.safe import SafeState, switch_off_surely
from drivers.scpi import Expect, Identity, Scpi
from hil.errors import OpenFailed, UnsafeOutputs, WrongInstrument

REOPEN_PAUSE_S = 0.2


class ScpiDriver(ABC):
    """An instrument with a conversation of its own, `_scpi`, and settings that are read back, `_panel`."""

    _scpi: Scpi
    _panel: Panel

    @property
    def panel(self) -> Panel:
        """The settings that are read back from the instrument."""
        return self._panel

    def held(self) -> Mapping[str, Value]:
        """Ask the instrument for its settings, by name, in one message."""
        return self._panel.held()

    @abstractmethod
    def forget(self) -> None:
        """Send all settings again next time: the instrument may have lost them (power, fault)."""

    def clear(self) -> None:
        """Empty the wire, and take the settings for lost."""
        self.forget()
        self._scpi.clear()

    def reopen(self) -> None:
        """Open the wire anew, and take the settings for lost."""
        self.forget()
        self._scpi.reopen()

    def identify(self) -> str:
        """Verify that the same instrument answers; return who it is, a line for people.

        Raises:
            WrongInstrument: another one answers. LinkError: nobody does.
        """
        return self._scpi.found()


class ScpiOutput(ScpiDriver):
    """A driver of outputs: it has `identity` and `_closed`.

    Args of a subclass: _called: how messages name it.
    """

    identity: Identity
    _closed: bool
    _called: str

    @abstractmethod
    def safe_state(self) -> SafeState:
        """Describe the safe state of the instrument that was identified."""

    @abstractmethod
    def _switch_off(self) -> None:
        """Carry out the safe state over the wire there is, verified."""

    def safe(self) -> None:
        """Bring the safe state about, read back. After a fault of the link, or a Ctrl-C, try once more over a new connection.

        Raises:
            UnsafeOutputs: it could not be verified. KeyboardInterrupt: it is safe all the same.
        """
        switch_off_surely(self._switch_off, self._open_anew, self._unsafe)

    def close(self) -> None:
        """Make safe, verify it, and close the link; the second call does nothing.

        Raises:
            UnsafeOutputs: the link is closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        close_all([self.safe, lambda: close_panel(self._panel), self._scpi.close])

    def _open_anew(self) -> None:
        """A new connection holds nothing old, so there is no fault to wait out."""
        with self._scpi.link.transaction():
            try:
                self._scpi.link.reopen()
            except OpenFailed:  # some instruments need a moment to let the old one go
                time.sleep(REOPEN_PAUSE_S)
                self._scpi.link.reopen()
            self._scpi.identify()

    def _unsafe(self, got: str) -> UnsafeOutputs:
        return UnsafeOutputs(
            "the outputs could not be verified to be safe", got=got,
            where=f"{self._called}, {self.identity.model} {self.identity.serial}", outputs=self.safe_state().outputs,
            todo="switch the outputs off at the instrument, then look at its power and cable",
        )  # fmt: skip


def answering(scpi: Scpi, expect: Expect, name: str, outputs: str) -> Identity:
    """Ask who answers; nothing is set.

    Args:
        scpi: a conversation.
        expect: who must answer.
        name: how messages name the instrument.
        outputs: what messages say of its outputs.

    Raises:
        WrongInstrument: another one. LinkError.
    """
    identity = scpi.identify()
    if not expect.admits(identity):
        raise WrongInstrument(
            "this is not an instrument that the driver knows", where=name, got=str(identity), allowed=str(expect),
            outputs=outputs, todo="correct the address or the driver in the bench file",
        )  # fmt: skip
    return identity
