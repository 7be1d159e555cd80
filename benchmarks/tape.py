"""What recording costs: a shot of 64 kB through the virtual bench, recorded, against the same shot unrecorded.

    record_cost = median over rounds of ( time of a recorded shot / time of a plain one ) - 1

One bench, one device. Rounds of SHOTS shots alternate between both, so that a busy machine slows both; a recorded round ends
with the flush that a checkpoint makes, timed with it. The tape is written beside the bench and the trainer: a machine whose
cores are all busy with something else pays for it, one with a core to spare hardly does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from hil.bench import open_bench
from hil.config import read_bench
from hil.run.recorder import recorded
from hil.run.tape import Tape

BENCH = Path(__file__).resolve().parent.parent / "benches" / "mzm_awg_scope.toml"
VALUES, SHOTS = 64 * 1024 // 4, 500  # a flush every 2 to 5 s; a run flushes at its checkpoints, every 60 s unless set


def spent_s(shot: Callable[[Tensor], object], drives: list[Tensor], end: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for x in drives:
        shot(x)
    end()
    return (time.perf_counter() - begin) / len(drives)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="pairs of rounds (default 10)")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    bench = open_bench(read_bench(BENCH), str(BENCH))
    with tempfile.TemporaryDirectory() as folder, bench as opened, Tape(Path(folder)) as tape:
        device = opened.device
        assert device is not None
        tape.begin({})
        kept = recorded(device, tape, "node", "", {})
        drives = [torch.rand(128, VALUES // 128, generator=rng) * 8 - 4 for _ in range(SHOTS)]
        ways = {"plain": (device.forward, lambda: None), "recorded": (kept.forward, tape.flush)}
        for shot, end in ways.values():
            spent_s(shot, drives[:5], end)  # warm
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in sorted(ways, reverse=bool(number % 2)):
                times[name].append(spent_s(ways[name][0], drives, ways[name][1]))
    ratios = sorted(a / b for a, b in zip(times["recorded"], times["plain"], strict=True))
    print(f"{VALUES * 4 // 1024} kB a shot each way, {rounds} rounds of {SHOTS} shots, torch {torch.__version__}")
    result = {
        "record_cost": round(statistics.median(ratios) - 1, 4),
        "record_cost_quartiles": [round(ratios[rounds // 4] - 1, 4), round(ratios[-1 - rounds // 4] - 1, 4)],
        "plain_ms": round(1e3 * statistics.median(times["plain"]), 3),
        "recorded_ms": round(1e3 * statistics.median(times["recorded"]), 3),
        "record_cost_of_medians": round(statistics.median(times["recorded"]) / statistics.median(times["plain"]) - 1, 4),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
