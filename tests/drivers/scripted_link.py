"""Two Links without a wire: one that follows a transcript, one that talks to a simulated box in this process."""

from __future__ import annotations

from drivers.links.memory import MemoryLink as MessageLink

__all__ = ["MessageLink", "Transcript"]


class Transcript:
    """(expected message, reply or None) in order; anything else fails, and so do leftovers."""

    def __init__(self, *exchanges: tuple[str | bytes, str | bytes | None]) -> None:
        self._due = [(_bytes(message), None if reply is None else _bytes(reply)) for message, reply in exchanges]

    def execute(self, message: bytes) -> bytes | None:
        assert self._due, f"nothing more was expected, but came {message[:200]!r}"
        expected, reply = self._due.pop(0)
        assert message == expected
        return reply

    def expect(self, *exchanges: tuple[str | bytes, str | bytes | None]) -> None:
        self.done()
        self.__init__(*exchanges)  # type: ignore[misc]

    def done(self) -> None:
        assert not self._due, f"never sent: {self._due}"


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
