"""Status reporting: the standard event register, the error queue, the status byte.

    ESR   0 OPC  2 QYE (-4xx)  3 DDE (-3xx and > 0)  4 EXE (-2xx)  5 CME (-1xx)  7 PON (power was cycled)
    STB   2 error queue not empty   4 MAV   5 ESB = (ESR & ESE) != 0   6 MSS = (STB & SRE) != 0

The queue holds 20; when it is full its *last* entry becomes -350 and what follows is dropped until it is read.

Source: IEEE 488.2-1992, chapter 11; SCPI-1999 volume 2, chapter 21 (texts and families), section 21.8.1 (overflow).
"""

from __future__ import annotations

from collections.abc import Mapping

from sim_devices.instruments.program_message import ScpiError

OPC, QYE, DDE, EXE, CME, PON = 0x01, 0x04, 0x08, 0x10, 0x20, 0x80
ERRORS_WAITING, MAV, ESB, MSS = 0x04, 0x10, 0x20, 0x40
QUEUE_LENGTH = 20
TEXTS = {
    0: "No error",
    -100: "Command error", -101: "Invalid character", -102: "Syntax error", -103: "Invalid separator", -104: "Data type error",
    -108: "Parameter not allowed", -109: "Missing parameter", -113: "Undefined header", -114: "Header suffix out of range",
    -131: "Invalid suffix", -151: "Invalid string data", -161: "Invalid block data",
    -200: "Execution error", -211: "Trigger ignored", -221: "Settings conflict", -222: "Data out of range",
    -223: "Too much data", -224: "Illegal parameter value", -225: "Out of memory", -230: "Data corrupt or stale",
    -310: "System error", -350: "Queue overflow",
    -410: "Query INTERRUPTED", -420: "Query UNTERMINATED", -430: "Query DEADLOCKED",
}  # fmt: skip


class Status:
    """The status registers and the error queue of IEEE 488.2 and SCPI.

    Args:
        texts: the maker's own errors, code above 0 -> text.
        plus: codes are answered with their sign, as +0.
    """

    def __init__(self, texts: Mapping[int, str] | None = None, plus: bool = True) -> None:
        self._texts, self._style = {**TEXTS, **(texts or {})}, "+d" if plus else "d"
        self.event, self.event_enable, self.request_enable = PON, 0, 0
        self._queue: list[tuple[int, str]] = []

    def report(self, error: ScpiError) -> None:
        """Queue an error and set its bit of the ESR."""
        self.event |= _family(error.code)
        text = self._texts.get(error.code, "Device-specific error")
        text = f"{text};{error.detail}" if error.detail else text
        if len(self._queue) < QUEUE_LENGTH:
            self._queue.append((error.code, text.replace('"', "'")))
        else:
            self._queue[-1] = (-350, TEXTS[-350])
            self.event |= DDE

    def next_error(self) -> str:
        """The oldest error, removed: ``-113,"Undefined header;FOO"``; ``+0,"No error"`` when there is none."""
        code, text = self._queue.pop(0) if self._queue else (0, TEXTS[0])
        return f'{code:{self._style}},"{text}"'

    def withdraw(self, keep: int) -> str:
        """Take the errors after the first `keep` back; the first of them."""
        taken, self._queue = self._queue[keep:], self._queue[:keep]
        return f"{taken[0][0]:+d}, {taken[0][1]}" if taken else ""

    @property
    def errors(self) -> int:
        """Number of errors in the queue."""
        return len(self._queue)

    def read_event(self) -> int:
        """The ESR; reading clears it."""
        event, self.event = self.event, 0
        return event

    def clear(self) -> None:
        """``*CLS``: events and errors; the enable registers stay."""
        self.event = 0
        self._queue.clear()

    def power_on(self) -> None:
        """Clear the queue and the registers, and note that the power came on."""
        self.clear()
        self.event, self.event_enable, self.request_enable = PON, 0, 0

    def byte(self, waiting: bool = False) -> int:
        """The status byte; `waiting`: an answer was not read yet."""
        byte = ERRORS_WAITING * bool(self._queue) | MAV * waiting | ESB * bool(self.event & self.event_enable)
        return byte | MSS * bool(byte & self.request_enable & ~MSS)

    def snapshot(self) -> dict[str, object]:
        """Return registers and queue as JSON values."""
        return {
            "event": self.event,
            "event_enable": self.event_enable,
            "request_enable": self.request_enable,
            "queue": [[code, text] for code, text in self._queue],
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot."""
        queue = state["queue"]
        assert isinstance(queue, list)
        self.event, self.event_enable = int(str(state["event"])), int(str(state["event_enable"]))
        self.request_enable = int(str(state["request_enable"]))
        self._queue = [(int(code), str(text)) for code, text in queue]


def _family(code: int) -> int:
    """The ESR bit of an error code."""
    if code > 0:
        return DDE
    return {1: CME, 2: EXE, 3: DDE, 4: QYE}.get(-code // 100, DDE)
