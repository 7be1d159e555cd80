"""`hil search` killed at random moments and resumed: does it end with the history of one that never was?"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hil.search.history import EVALUATIONS, GENERATIONS, SEARCH, STAGES, same

BASE = """
[network]
widths = [64, 12, 8, 10]
[device]
use = "mach_zehnder"
drift_rad_per_rts = 0.02
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
[train]
batch = 64
threads = 1
"""
FILE = """
base = "base.toml"
[search]
population = 8
generations = 6
elites = 2
[genome]
terms = 2
[genome.genes]
lr = [1e-3, 1e-2]
[train]
epochs = 2
examples = 512
score = 100
held = 100
[evaluate]
workers = 1
chunk = 2
[confirm]
seeds = 2
candidates = 2
random = 2
"""


def measure(folder: Path, draw: random.Random, times: int) -> dict[str, int]:
    """How many kills there were, and how many of searches that ended with the same history."""
    (folder / "base.toml").write_text(BASE, encoding="utf-8")
    (folder / "search.toml").write_text(FILE, encoding="utf-8")
    begin = time.monotonic()
    ended(start(folder, folder / "whole"))
    lasts_s, tried, identical, count = time.monotonic() - begin, 0, 0, 0
    while tried < times:
        count += 1
        run, killed = folder / f"search-{count}", 0
        while True:
            process = start(folder, run)
            try:
                ended(process, process.wait(draw.uniform(0.2, lasts_s) if tried + killed < times else None))
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        found = history(run) == history(folder / "whole")
        tried, identical = tried + killed, identical + killed * found
        print(f"search {count}: killed {killed} times; {'identical' if found else 'another history'}", flush=True)
    return {"tried": tried, "identical": identical}


def start(folder: Path, run: Path) -> subprocess.Popen[bytes]:
    command = ["resume", run] if (run / SEARCH).exists() else ["search", folder / "search.toml", "--run", run]
    if command[0] == "search" and run.exists():  # died before it was a search
        run.rename(run.with_name(f"{run.name}-begun-{time.monotonic_ns()}"))
    return subprocess.Popen(
        [sys.executable, "-m", "hil", *command], cwd=Path(__file__).resolve().parents[2], stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def ended(process: subprocess.Popen[bytes], code: int | None = None) -> None:
    """A search that is finished but for its report is not resumed: 2."""
    if (process.wait() if code is None else code) not in (0, 2):
        raise SystemExit(f"a search ended with {process.returncode}")


def history(run: Path) -> tuple[list[Any], ...]:
    lines = [
        [same(json.loads(text)) for text in (run / name).read_text(encoding="utf-8").splitlines()]
        for name in (EVALUATIONS, GENERATIONS, STAGES)
    ]
    return sorted(lines[0], key=lambda line: line["key"]), *lines[1:]
