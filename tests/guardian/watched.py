"""Programs under a guardian, and what is seen of them from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sim_devices.bench.description import VirtualBox
from sim_devices.bench.served import RunningBench, ServedBench

HERE = Path(__file__).parents[1]  # tests/


PATHS = os.pathsep.join([str(HERE.parent), str(HERE)])


AWG = VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600")


WITHIN_S = 30.0  # two on an idle machine; benchmarks/guardian.py measures them


class Child:
    """A program under a guardian."""

    def __init__(self, command: list[str], stderr: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONPATH": PATHS},
        )
        word, *rest = self.says()
        assert word == "on", (word, self.process.communicate())
        self.guardian = int(rest[0])

    def says(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split() or ["nothing"]

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        for pid in (self.process.pid, self.guardian):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def on(bench: RunningBench | ServedBench) -> bool:
    return bool(bench.control.outputs()["awg"]["1"]["on"])  # type: ignore[index]


def soon(true: Callable[[], bool], within_s: float = WITHIN_S) -> bool:
    end = time.monotonic() + within_s
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.005)
    return found


def gone(pid: int) -> bool:
    """Ended, whether or not somebody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (run / "guardian.jsonl").read_text(encoding="utf-8").splitlines()]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")
