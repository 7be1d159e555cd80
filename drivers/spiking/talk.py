"""The conversation that makes a board safe, over a serial line of its own: SAFE, then STATUS -> "armed" or "disarmed"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from drivers.links.serial_link import SerialLink
from drivers.safe import SafeState, Step, Talk
from drivers.scpi import Expect
from drivers.spiking.session import FrameSession
from hil import frame_protocol as wire
from hil.errors import ConfigError
from hil.frame_protocol import Kind

OVER_SERIAL = "drivers.spiking.talk:over_serial"
FRAME_S = 0.5
DISARMED = (Step("SAFE", "STATUS", ("disarmed",)),)


class FrameTalk:
    """SAFE, then STATUS -> "armed" or "disarmed"."""

    def __init__(self, session: FrameSession) -> None:
        self._session = session

    def do(self, command: str, question: str) -> str:
        """Send the frame called `command` unless it is "", then ask STATUS; return "armed" or "disarmed".

        Raises:
            ConfigError: other frames than these; nothing is sent.
        """
        if command not in ("", Kind.SAFE.name) or question != Kind.STATUS.name:
            raise ConfigError(
                "these frames say nothing of what is safe", where=self._session.where, got=f"{command!r}, {question!r}",
                allowed="SAFE or nothing, then STATUS", outputs="unchanged; nothing was sent",
            )  # fmt: skip
        if command:
            self._session.ask(Kind.SAFE)
        armed, _, _, _ = wire.fields(wire.STATUS, self._session.ask(Kind.STATUS), self._session.where)
        return "armed" if armed else "disarmed"


def board(name: str, port: str, expect: Expect, outputs: str = "unknown") -> SafeState:
    """Describe the safe state of a board that speaks frames: disarmed. Its port cannot be opened twice."""
    return SafeState(name, port, OVER_SERIAL, expect, DISARMED, None, outputs, shared=False)


@contextmanager
def over_serial(state: SafeState) -> Iterator[Talk]:
    """Open the port of `state` anew, and a session with the board that is expected there.

    Raises:
        OpenFailed, LinkError: nobody answers. WrongInstrument: another board does.
    """
    port = SerialLink(state.resource, timeout_s=FRAME_S)
    try:
        yield FrameTalk(FrameSession(port, retries=2, expect=state.expect))
    finally:
        port.close()
