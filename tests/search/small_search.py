"""A search small enough for a test: digits, 64-12-10, a noisy modulator that drifts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

BASE = """
[network]
widths = [64, 12, 8, 10]
[device]
use = "mach_zehnder"
drift_rad_per_rts = 0.02
[encode]
overflow = "fold"
period = 7.0
[decode]
zero = 0.18
scale = 0.18
[learner]
use = "adfa"
[optimizer]
lr = 5e-3
[train]
batch = 64
"""
FILE = """
base = "base.toml"
name = "small"
[search]
population = 6
generations = 3
elites = 2
[genome]
terms = 2
[genome.genes]
lr = [1e-3, 1e-2]
scale = [0.05, 0.5]
[train]
epochs = 1
examples = 256
score = 100
held = 100
[evaluate]
workers = 1
chunk = 3
[confirm]
seeds = 2
candidates = 2
random = 2
"""


def write(folder: Path, text: str = FILE, base: str = BASE) -> Path:
    (folder / "base.toml").write_text(base, encoding="utf-8")
    path = folder / "search.toml"
    path.write_text(text, encoding="utf-8")
    return path


def lethal(setup: str, jobs: str) -> str:
    """A worker that dies the first time it is asked for the marked chunk, or always."""
    marker = Path(setup)
    if "g0/0" in jobs and (marker.suffix == ".always" or not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return json.dumps([{"accuracy": 0.5, "curve": []} for _ in json.loads(jobs)])
