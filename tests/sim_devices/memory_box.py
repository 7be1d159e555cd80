"""A box for tests of transports: it remembers one block and the last messages, and speaks five commands."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from sim_devices.instruments.box import Message


class MemoryBox:
    """`*IDN?`, `PUT <anything>`, `GET?`, `WAIT?` (until a trigger or a clear), `FAIL`; all else is only remembered."""

    def __init__(self, name: str = "memory", level_v: float = 0.0, lock: threading.Condition | None = None) -> None:
        self.name, self.level_v = name, level_v
        self.messages: list[bytes] = []
        self.query_errors: list[int] = []
        self.held = b""
        self.status = 0
        self.waits = self.clears = self.triggers = 0
        self._go = lock or threading.Condition()

    def execute(self, message: Message) -> bytes | None:
        text = bytes(message)
        if text.startswith(b"PUT "):
            self.held = text[4:]
            return None
        text = text.strip()  # a carriage return in front of the newline is white space
        if text == b"GET?":
            return self.held
        self.messages.append(text)
        if text == b"*IDN?":
            return f"Maker,{self.name},0,1.0".encode()
        if text == b"WAIT?":
            return self._wait()
        if text == b"FAIL":
            raise RuntimeError("simulated failure")
        return None

    def _wait(self) -> bytes | None:
        with self._go:
            before = self.clears, self.triggers
            self.waits += 1
            self._go.wait_for(lambda: (self.clears, self.triggers) != before, 10)
            return None if self.clears != before[0] else b"1"

    def clear(self) -> None:
        with self._go:
            self.clears += 1
            self._go.notify_all()

    def status_byte(self) -> int:
        return self.status

    def trigger(self) -> None:
        with self._go:
            self.triggers += 1
            self._go.notify_all()

    def query_error(self, code: int) -> None:
        self.query_errors.append(code)

    def reboot(self) -> None:
        self.held = b""

    def snapshot(self) -> dict[str, object]:
        return {"held": self.held.hex()}

    def restore(self, state: Mapping[str, object]) -> None:
        self.held = bytes.fromhex(str(state["held"]))

    def outputs(self) -> dict[str, object]:
        return {"1": {"on": bool(self.level_v), "level_v": self.level_v}}
