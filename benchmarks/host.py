"""Measure what a host costs and how fast it makes outputs safe; print one line of JSON.

    python benchmarks/host.py [--quick]

shot_100kb_added_ms    a shot of 25,000 float32 in and out: through a host, less the same device in this process; median
throughput_16mb_mb_s   an array of 16 MB there and one back, 32 MB in all, over the time of the call; median
killed, safe           trainer, host and worker killed in turn, at random moments; the rig's log says when it was made safe
safe_s_worst           from the kill to the line of the log
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from hil.device import Port, Spec
from hil.host.charge import Limits, Recipe
from hil.host.client import Hosted, hosted

IN_TIME_S = 2.0
TURNS = ("trainer", "host", "worker")


class Rig:
    """Answers what it is driven with. Its outputs are lines of a file: time, process, "on" or "safe"."""

    def __init__(self, log: str = "", size: int = 100) -> None:
        self.spec = Spec(Port("dac", -1, 1, "V", size), Port("adc", -1, 1, "V", size), provenance="twin")
        self._log = log
        self._note("open")

    def _note(self, what: str) -> None:
        if self._log:
            file = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{time.monotonic()} {os.getpid()} {what}\n".encode())
            os.close(file)

    def forward(self, x: Tensor) -> Tensor:
        self._note("on")
        if self._log:
            time.sleep(0.005)  # a kill may come while it drives
        return x

    def program(self, params: Tensor) -> None: ...

    def reset(self) -> None: ...

    def safe(self) -> None:
        self._note("safe")

    def close(self) -> None: ...


def median_s(act: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        act()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def speed(count: int) -> tuple[float, float]:
    """Added time of a shot in ms, and MB/s."""
    shot, large = torch.rand(250, 100), torch.rand(40_000, 100)
    here = Rig()
    with hosted(Recipe("host:Rig", place=__file__)) as there:
        for x in (shot, large):
            assert torch.equal(there.forward(x), x)
        added = median_s(lambda: there.forward(shot), count) - median_s(lambda: here.forward(shot), count)
        took = median_s(lambda: there.forward(large), max(count // 20, 5))
    return added * 1e3, 2 * 16 / took


def train(log: str, say: int) -> None:
    """Be a trainer that is killed, or whose host is: says the pid of the host, then drives until something ends."""
    with hosted(Recipe("host:Rig", {"log": log, "size": 2}, place=__file__), Limits(20.0, 5.0, 1.0)) as device:
        device.forward(torch.zeros(1, 2))
        assert device.local is not None
        os.write(say, f"{device.local.pid}\n".encode())
        drive(device)


def drive(device: Hosted) -> None:
    while True:
        device.forward(torch.rand(1, 2))


def killed(whom: str, log: Path, rng: random.Random) -> float:
    """Seconds from the kill to outputs safe."""
    told, say = os.pipe()
    trainer = os.fork()  # torch is imported once for all of them
    if not trainer:
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        try:
            train(str(log), say)
        finally:
            os._exit(0)
    os.close(say)
    with os.fdopen(told, encoding="utf-8") as stream:
        host = int(stream.readline())
    time.sleep(rng.uniform(0.0, 0.2))
    pid = {"trainer": trainer, "host": host, "worker": int(lines(log)[0][1])}[whom]
    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    try:
        while time.monotonic() < begin + 10 * IN_TIME_S:
            safe = [float(t) for t, _, what in lines(log) if what == "safe" and float(t) > begin]
            if safe:
                return safe[0] - begin
            time.sleep(0.002)
        return float("inf")
    finally:
        os.kill(trainer, signal.SIGKILL)
        os.waitpid(trainer, 0)


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 kills in place of 100")
    options = parser.parse_args()
    rng, count = random.Random(0), 10 if options.quick else 100
    with tempfile.TemporaryDirectory() as folder:
        took = [killed(TURNS[n % len(TURNS)], Path(folder) / str(n), rng) for n in range(count)]
    added_ms, mb_s = speed(200 if options.quick else 1000)  # after the last fork: grpc has threads
    print(
        json.dumps(
            {
                "shot_100kb_added_ms": round(added_ms, 3),
                "throughput_16mb_mb_s": round(mb_s),
                "killed": count,
                "safe": sum(one <= IN_TIME_S for one in took),
                "safe_s_worst": round(max(took), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
