"""What simulated instruments logged of their outputs: {"time_s": since 1970, "box": name, "channel": number, "on": bool}."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

NEVER = float("inf")


def until_off(
    log: Path,
    at: float,
    since: int = 0,
    within_s: float = 30.0,
    settle_s: float = 1.0,
    gone: Callable[[], bool] = lambda: False,
) -> float:
    """Seconds from the moment `at` until every output that was on is off; 0 if none was, infinite if one is not `within_s`.

    A bench that is still starting, and whatever a dead trainer had sent, may switch one on after `at`; that counts, for so long
    as it takes to settle.

    Args:
        log: of the bench; what it holds before byte `since` does not count. gone: the bench is over, and its outputs with it.
    """
    settled = time.monotonic() + settle_s
    while time.time() - at < within_s:
        if gone():
            return max(0.0, switched(log, since, at)[1] - at)
        on, last_off = switched(log, since, at)
        if not on and time.monotonic() >= settled:
            return max(0.0, last_off - at)
        time.sleep(0.05)
    return NEVER


def switched(log: Path, since: int, at: float) -> tuple[set[tuple[str, int]], float]:
    """(outputs that are on, when the last one went off after `at`), from what was logged after byte `since`."""
    on: set[tuple[str, int]] = set()
    last_off = at
    for line in _lines(log, since):
        facts = json.loads(line)
        if "on" not in facts:
            continue  # the bench's own notes
        output = (str(facts["box"]), int(facts["channel"]))
        if facts["on"]:
            on.add(output)
        elif output in on:
            on.discard(output)
            last_off = max(last_off, float(facts["time_s"]))
    return on, last_off


def _lines(log: Path, since: int) -> Sequence[bytes]:
    """Whole lines only: the last one may be half written."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(since)
        return file.read().split(b"\n")[:-1]
