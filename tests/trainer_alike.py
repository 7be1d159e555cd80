"""A program that opens a bench and drives it for ever: for tests that end it.

python trainer_alike.py BENCH.toml RUN
stdout    "on GUARDIAN_PID", once the output is on
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from hil.build.bench import open_bench
from hil.config.bench import read_bench


def main() -> None:
    bench, run = sys.argv[1:]
    x = torch.linspace(-1.0, 1.0, 64).reshape(1, 64)
    with open_bench(read_bench(Path(bench)), Path(run)) as opened:
        assert opened.device is not None
        assert opened.guard is not None
        opened.device.forward(x)
        print("on", opened.guard.pid, flush=True)
        while True:
            opened.device.forward(x)


if __name__ == "__main__":
    main()
