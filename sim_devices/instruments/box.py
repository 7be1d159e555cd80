"""A simulated box on the bench, as a transport serves it: a listener to whole messages.

A transport finds where a program message ends (HiSLIP by its message id and END, a socket by newline outside of blocks), hands
the message over and sends back what comes out. It knows nothing of SCPI; a box knows nothing of sockets.

IEEE 488.2-1992 section 6: input buffer, execution, output queue, device clear, status byte, group execute trigger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Message = bytes | bytearray | memoryview


class Box(Protocol):
    """A simulated instrument; every method may be called from any thread.

    `execute` may block for as long as the instrument would (``*OPC?`` while a trigger is missing); `clear` and `trigger` from
    another thread get through and end the wait. A box without blocks may have `raw`, a word behind which a message is bytes.
    """

    @property
    def name(self) -> str:
        """Model and serial number, for people."""

    def execute(self, message: Message) -> bytes | None:
        """Run one whole program message, its terminator removed; it may hold ``;``-joined commands and binary blocks.

        Returns the response message without terminator, or None if nothing was asked (or the query failed, or a device clear
        came in between). The buffer is not kept: it may be reused as soon as the call returns.
        """

    def clear(self) -> None:
        """Device clear: forget half-done messages and end every wait. Settings, status and outputs stay."""

    def status_byte(self) -> int:
        """Serial poll, without bit 4 (message available): only the transport knows what was not read yet."""

    def trigger(self) -> None:
        """Group execute trigger, the HiSLIP trigger message: as ``*TRG``."""

    def query_error(self, code: int) -> None:
        """The transport saw a breach of the query protocol: -410 interrupted, -420 unterminated, -430 deadlocked."""

    def reboot(self) -> None:
        """Power off and on: settings and volatile memory are lost, outputs are off, bit 7 (PON) of the ESR is set."""

    def snapshot(self) -> dict[str, object]:
        """Return all of the state, as JSON values."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over a snapshot of the same model."""

    def outputs(self) -> dict[str, object]:
        """Return for each output channel whether it is on, and its level in V. Empty for a box that drives nothing."""
