"""A SCPI box on a serial line: messages end at a newline, and so do its answers.

Source: SCPI over RS-232 as Keithley describes it for the 2400 (2400S-900-01 Rev. K, 16-22): 8 bits, no parity, a terminator.
"""

from __future__ import annotations

from sim_devices.instruments.box import Box

LONGEST = 1 << 20  # bytes of a message; what is longer is dropped


class Line:
    """A box behind a serial line. Called from one thread.

    Args:
        box: that answers.
    """

    def __init__(self, box: Box) -> None:
        self._box, self._held = box, b""

    @property
    def name(self) -> str:
        """Model and serial number."""
        return self._box.name

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the host; return the answers to the messages that they complete."""
        *messages, self._held = (self._held + bytes(data)).split(b"\n")
        if len(self._held) > LONGEST:
            self._held = b""
        answers = [self._box.execute(message.removesuffix(b"\r")) for message in messages]
        return b"".join(answer + b"\n" for answer in answers if answer is not None)

    def reboot(self) -> None:
        """Lose power for a moment; what was half said is lost."""
        self._held = b""
        self._box.reboot()
