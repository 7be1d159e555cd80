"""The process of a served bench: what ends it, and how its parent ends it.

serves  --parent gone-->  lingers `linger_s`  --time over-->  ends
serves, lingers           --SIGTERM, or "stop" at the control port-->  ends          Ctrl-C is for the trainer, not for it
"""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

STOP_TIMEOUT_S = 5.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PARENT_GONE = "parent gone"
Reasons = queue.SimpleQueue[str]


def end(process: subprocess.Popen[str]) -> None:
    """Close its pipes and wait; ask twice, then stop asking."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    for ask in (process.terminate, process.kill):
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            ask()
    process.wait()


def reasons_to_end() -> Reasons:
    """From now on Ctrl-C is ignored and SIGTERM is a reason to end."""
    reasons: Reasons = queue.SimpleQueue()

    def on_term(number: int, frame: FrameType | None) -> None:
        reasons.put("SIGTERM")

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_term)
    return reasons


def serve_until_told(reasons: Reasons, stopped: threading.Event, linger_s: float, note: Callable[[str], None]) -> None:
    """Wait for the end. Args: stopped: set by the control port. note: writes down what happened."""

    def parent() -> None:
        sys.stdin.read()
        reasons.put(PARENT_GONE)

    def control() -> None:
        stopped.wait()
        reasons.put("control port")

    for watch in (parent, control):
        threading.Thread(target=watch, daemon=True).start()
    why = reasons.get()
    if why == PARENT_GONE and linger_s:
        note(why)
        with suppress(queue.Empty):
            why = reasons.get(timeout=linger_s)
    note(f"end: {why}")
