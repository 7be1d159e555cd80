"""A box that cannot be made."""

from __future__ import annotations

import threading


class BrokenBox:
    def __init__(self, level_v: str, lock: threading.Condition) -> None:
        self.level_v = float(level_v)
