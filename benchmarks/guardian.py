"""How fast the guardian is: its start, a beat, and the time from the trainer's SIGKILL to outputs off.

    python benchmarks/guardian.py [--quick] [COUNT]

The trainer is tests/guardian_child.py; the instruments are served from this process. The time to "off" is taken from the kill
to the moment at which the simulated box says so, looked at every millisecond. On the serial line the trainer dies in the middle
of a frame, so the line has to fall silent first.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from drivers.lock import Owner, take
from drivers.safe import SafeState
from drivers.scpi import Expect
from drivers.scpi_talk import OVER_VISA
from hil.guardian.client import Guard
from hil.guardian.record import GuardianRecord
from sim_devices.bench.board import VirtualBoard, board_server
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import build

ROOT = Path(__file__).resolve().parent.parent
AWG = VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600")


def told(what: str, times: list[float], unit: str = "s") -> None:
    print(
        f"{what:<44} median {statistics.median(times):.4g} {unit}   worst {max(times):.4g} {unit}   of {len(times)}", flush=True
    )


def killed(resource: str, wire: str, is_on: Callable[[], bool], folder: Path) -> float:
    """Seconds from SIGKILL to off."""
    run = Path(tempfile.mkdtemp(dir=folder))
    asked = {"resource": resource, "wire": wire, "run": str(run), "then": "beats" if wire == "visa" else "idle"}
    child = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "guardian_child.py"), json.dumps(asked)], stdout=subprocess.PIPE, text=True,
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline().startswith("on"), "the trainer did not start"
    time.sleep(0.3)
    assert is_on()
    begin = time.perf_counter()
    child.send_signal(signal.SIGKILL)
    while is_on():
        time.sleep(0.001)
        assert time.perf_counter() - begin < 60
    took = time.perf_counter() - begin
    child.communicate()
    while '"outputs"' not in (run / "guardian.jsonl").read_text(encoding="utf-8"):
        time.sleep(0.01)
    return took


def start_and_beat(count: int, folder: Path) -> None:
    resource = "TCPIP::127.0.0.1::1::SOCKET"
    owner = Owner(os.getpid(), "", "", "benchmark")
    starts, beats, written = [], [], []
    for k in range(count):
        owned = take([resource], owner)
        begin = time.perf_counter()
        with Guard(owned, owner, GuardianRecord(folder / f"start-{k}.jsonl"), 60.0, 0.0, True) as guard:
            guard.watch([SafeState("none", resource, OVER_VISA, Expect(), ())])
            starts.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            for _ in range(100_000):
                guard.beat()
            beats.append((time.perf_counter() - begin) / 100_000 * 1e6)
            begin = time.perf_counter()
            for _ in range(1000):
                guard._due_s = 0.0
                guard.beat()
            written.append((time.perf_counter() - begin) / 1000 * 1e6)
            guard.leaving(lambda: None)(None, None, None)
    told("start to ready", starts)
    told("a beat", beats, "us")
    told("a beat that is written to the pipe", written, "us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=20, help="kills on each wire")
    parser.add_argument("--quick", action="store_true", help="two kills on each wire")
    options = parser.parse_args()
    count = 2 if options.quick else options.count
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HIL_LOCKS"] = str(folder / "locks")
        start_and_beat(max(count // 4, 1), folder)
        with build(VirtualBench((AWG,), transport="both")) as bench:
            box = bench.boxes["awg"]
            for what, resource in (("HiSLIP", bench.resources["awg"]), ("SOCKET", bench.sockets["awg"])):
                took = [killed(resource, "visa", lambda: bool(box.outputs()["1"]["on"]), folder) for _ in range(count)]
                told(f"SIGKILL to output off, {what}", took)
        with board_server(VirtualBoard()) as line:
            told(
                "SIGKILL to disarmed, serial line",
                [killed(line.port, "frames", lambda: line.board.armed, folder) for _ in range(count)],
            )


if __name__ == "__main__":
    main()
