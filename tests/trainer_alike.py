"""A program that opens a bench, switches its output on, and then does what it is told: for tests that end it.

    python trainer_alike.py BENCH.toml RUN busy|idle|close
    stdout    "on PID GUARDIAN_PID", once the output is on

busy    drives the device for ever
idle    computes for ever and never uses a wire
close   waits for a line on stdin, then leaves the bench as a trainer does
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from hil.bench import Opened, open_bench
from hil.config import read_bench
from hil.device import Device
from hil.errors import HilError


def node(opened: Opened) -> tuple[Device, torch.Tensor]:
    """Something to drive, and what to drive it with."""
    if opened.device is not None:
        return opened.device, torch.linspace(-1.0, 1.0, 64).reshape(1, 64)
    assert opened.chip is not None
    return opened.chip.array(16), torch.full((4, 2, 16), 0.7)


def main() -> int:
    bench, run, behaviour = sys.argv[1:]
    try:
        with open_bench(read_bench(Path(bench)), bench, Path(run)) as opened:
            device, x = node(opened)
            device.reset()
            device.forward(x)
            assert opened.guard is not None
            print("on", opened.guard.pid, flush=True)
            while behaviour == "busy":
                device.reset()
                device.forward(x)
            while behaviour == "idle":
                time.sleep(0.01)
            sys.stdin.readline()
            device.reset()
            device.forward(x)
    except HilError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 3
    print("left", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
