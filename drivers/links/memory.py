"""A Link to a simulated instrument in the same process: for tests of drivers, where no transport is needed.

link = MemoryLink(box)        a message that is written is executed at once; its answer waits until it is read
link.sent                     every message, so that a test can see that nothing was sent
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from drivers.links.link import Trust
from hil.errors import BadBlock, Disconnected, LinkTimeout


class Box(Protocol):
    """A simulated instrument, or whatever else answers."""

    def execute(self, message: bytes) -> bytes | None:
        """Run one message. Returns the answer, or None if nothing was asked."""


class MemoryLink:
    """A wire to an object in this process that answers at once.

    Args:
        answer: the instrument. gone: set it, and the other end has gone away.
    """

    def __init__(self, answer: Box) -> None:
        self.name, self.timeout_s, self.closed, self.sent_bytes = "test link", 1.0, 0, 0
        self.sent: list[bytes] = []
        self.gone = False
        self._box, self._trust = answer, Trust("test link")
        self._replies: list[bytes] = []

    @property
    def dirty(self) -> bool:
        """True until the instrument was identified after a fault."""
        return self._trust.dirty

    def write(self, *parts: bytes | memoryview) -> None:
        """Send one message and keep its answer. Raises: Disconnected: `gone` is set."""
        with self._trust.use():
            if self.gone:
                raise Disconnected("the other end went away", where=self.name)
            message = b"".join(bytes(part) for part in parts)
            self.sent.append(message)
            self.sent_bytes += len(message)
            reply = self._box.execute(message)
            if reply is not None:
                self._replies.append(reply)

    def read_text(self) -> str:
        """Return the next answer. Raises: LinkTimeout: nothing was answered."""
        return self._read().decode("ascii")

    def read_message(self) -> bytes:
        """Return the next answer, of any bytes. Raises: LinkTimeout: nothing was answered."""
        return self._read().removesuffix(b"\n").removesuffix(b"\r")

    def read_block(self, item_bytes: int, limit_bytes: int) -> memoryview:
        """Return the payload of the next answer. Raises: BadBlock: it is none, or too long. LinkTimeout."""
        reply = self._read()
        digits = int(reply[1:2])
        payload = reply[2 + digits :]
        if reply[:1] != b"#" or int(reply[2 : 2 + digits]) != len(payload) or len(payload) > limit_bytes:
            raise BadBlock("not a block", where=self.name)
        return memoryview(bytearray(payload))

    def _read(self) -> bytes:
        with self._trust.use():
            if not self._replies:
                raise LinkTimeout("no answer", where=self.name)
            return self._replies.pop(0)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let nobody else speak in between."""
        with self._trust.transaction():
            yield

    def distrust(self, reason: str) -> None:
        """Make the link dirty: an answer did not fit its question."""
        self._trust.lose(reason)

    def reidentifying(self) -> AbstractContextManager[None]:
        """Allow use of a dirty link; it is clean again if nothing is raised."""
        return self._trust.reidentifying()

    def clear(self) -> None:
        """Throw away what was not read."""
        self._replies.clear()
        self._trust.emptied("cleared")

    def reopen(self) -> None:
        """Clear the link: there is no connection to open."""
        self.clear()

    def close(self) -> None:
        """Count in `closed` how often it was called."""
        self.closed += 1
