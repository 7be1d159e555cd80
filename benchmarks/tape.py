"""What recording costs: a shot of 64 kB through the virtual bench, recorded, against the same shot unrecorded.

    record_cost = mean over pairs of blocks of log( time of a recorded shot / time of a plain one ), as a ratio, - 1
                  + time of a flush / time between checkpoints, which is when a run flushes
    record_cost_median: the median over pairs in place of the mean, which the machine's own stalls pull about

One bench, one device. Blocks of SHOTS shots alternate between both, in turns first, as a shot's time wanders by a third within
seconds on a shared machine. What the worker thread does beside the shots slows recorded blocks only: between blocks it is left
to finish what it is at. The tape is written beside the bench and the trainer: a machine whose cores are all busy with something
else pays for it, one with a core to spare hardly does.

    python benchmarks/tape.py [--pairs N] [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from hil.build.bench import open_bench
from hil.config.bench import read_bench
from hil.tape.recorder import recorded
from hil.tape.writer import Tape

BENCH = Path(__file__).resolve().parent.parent / "benches" / "mzm_awg_scope.toml"
CHECKPOINT_S = 60.0  # of [train], unless set
VALUES, SHOTS = 64 * 1024 // 4, 70  # not a multiple of what fills a chunk, so that every phase of it is met


def spent_s(shot: Callable[[Tensor], object], drives: list[Tensor]) -> float:
    begin = time.perf_counter()
    for x in drives:
        shot(x)
    found = (time.perf_counter() - begin) / len(drives)
    time.sleep(0.03)
    return found


def flushed_s(tape: Tape) -> float:
    begin = time.perf_counter()
    tape.flush()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="of blocks (default 200, two to three minutes)")
    parser.add_argument("--quick", action="store_true", help="40 pairs")
    args = parser.parse_args()
    pairs = 40 if args.quick else args.pairs
    if pairs < 10:
        parser.error(f"--pairs {pairs}: at least 10, one flush and enough for an error")
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    bench = open_bench(read_bench(BENCH))
    with tempfile.TemporaryDirectory() as folder, bench as opened, Tape(Path(folder)) as tape:
        device = opened.device
        assert device is not None
        tape.begin({})
        kept = recorded(device, tape, "node", "", {})
        drives = [torch.rand(128, VALUES // 128, generator=rng) * 8 - 4 for _ in range(SHOTS)]
        ways = {"plain": device.forward, "recorded": kept.forward}
        for shot in ways.values():
            spent_s(shot, drives)  # warm
        times: dict[str, list[float]] = {name: [] for name in ways}
        flushes = []
        for number in range(pairs):
            for name in sorted(ways, reverse=bool(number % 2)):
                times[name].append(spent_s(ways[name], drives))
            if number % 10 == 9:
                flushes.append(flushed_s(tape))
    logs = [math.log(a / b) for a, b in zip(times["recorded"], times["plain"], strict=True)]
    shots, error = math.exp(statistics.mean(logs)) - 1, statistics.stdev(logs) / math.sqrt(pairs)
    flush = statistics.median(flushes)
    print(f"{VALUES * 4 // 1024} kB a shot each way, {pairs} pairs of blocks of {SHOTS} shots, torch {torch.__version__}")
    result = {
        "record_cost": round(shots + flush / CHECKPOINT_S, 4),
        "record_cost_standard_error": round(error, 4),
        "record_cost_median": round(math.exp(statistics.median(logs)) - 1 + flush / CHECKPOINT_S, 4),
        "plain_ms": round(1e3 * statistics.median(times["plain"]), 3),
        "recorded_ms": round(1e3 * statistics.median(times["recorded"]), 3),
        "flush_ms": round(1e3 * flush, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
