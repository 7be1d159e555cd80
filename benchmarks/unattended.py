"""What being unattended costs when nothing fails: a shot of 64 kB through the virtual bench, with and without.

    unattended_cost = median over rounds of ( time of a shot with / time of a shot without ) - 1

Without: the waveform device as its driver makes it, over wires that give no sign of life. With: the same instruments opened by
`open_bench`, so every use of a wire beats for the guardian; behind the recovery ladder and the meter, with a committed line in
the journal for every shot. Rounds alternate on one bench.

    python benchmarks/unattended.py [--quick] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from hil.build.bench import open_bench
from hil.build.shapes.waveform import OnPlant
from hil.config.bench import read_bench
from hil.devices.meter import metered
from hil.devices.recovery import Ladder
from hil.devices.resilient import resilient
from hil.run.journal import Journal

BENCH = Path(__file__).resolve().parent.parent / "benches" / "mzm_awg_scope.toml"
VALUES, SHOTS = 64 * 1024 // 4, 100


def spent_s(shot: Callable[[Tensor], object], drives: list[Tensor]) -> float:
    begin = time.perf_counter()
    for x in drives:
        shot(x)
    return (time.perf_counter() - begin) / len(drives)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, open_bench(read_bench(BENCH)) as opened:
        plant = opened.device
        assert isinstance(plant, OnPlant)
        journal, number = Journal(Path(folder) / "journal.jsonl"), count(1)
        whole = metered(resilient(plant, lambda device: Ladder(device, told=journal.note, beat=opened.guard.beat)))
        links = [driver._scpi.link._trust for driver in (*plant._inner._drives.all, *plant._inner._reads.all)]  # type: ignore[attr-defined]

        def watched(x: Tensor) -> None:
            whole.forward(x)
            journal.commit(next(number), 1, 1, 0.5, whole.count.passes, whole.count.busy_s)

        def beating(on: bool) -> None:
            for trust in links:
                trust._beat = opened.guard.beat if on else None

        drives = [torch.rand(128, VALUES // 128, generator=rng) * 8 - 4 for _ in range(SHOTS)]
        ways = {"without": (plant._inner.forward, False), "with": (watched, True)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name in sorted(ways, reverse=bool(turn % 2)):
                shot, beats = ways[name]
                beating(beats)
                times[name].append(spent_s(shot, drives))
        beating(True)
    ratios = sorted(a / b for a, b in zip(times["with"][1:], times["without"][1:], strict=True))  # the first round warms
    result = {
        "unattended_cost": round(statistics.median(ratios) - 1, 4),
        "quartiles": [round(ratios[rounds // 4] - 1, 4), round(ratios[-1 - rounds // 4] - 1, 4)],
        "without_ms": round(1e3 * statistics.median(times["without"][1:]), 3),
        "with_ms": round(1e3 * statistics.median(times["with"][1:]), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
