"""MNIST by aDFA, every hidden activation through the virtual bench over VISA, beside the same experiment on the twin itself.

    python benchmarks/first_light.py [--quick] [--seeds N] [--record]

Needs MNIST: set HIL_DATA to the folder that holds mnist/, or let hil download it. The wall times are of the whole commands,
start of the bench and of Python included. Last line: JSON with mnist_bench_accuracy (mean over seeds) and
mnist_bench_vs_twin_wall (median over seeds of the ratio of the two commands run after each other).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recording import record

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("train.epochs=1", "data.train_examples=12800")


def train(name: str, seed: int, folder: Path, extra: tuple[str, ...]) -> tuple[float, dict[str, Any]]:
    """Wall time in s of the whole command, and the run's summary."""
    run = folder / f"{name}-{seed}"
    sets = [f"--set={text}" for text in (f"seed={seed}", *extra)]
    begin = time.perf_counter()
    command = [sys.executable, "-m", "hil", "train", f"experiments/{name}.toml", "--run", str(run), *sets]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    wall_s = time.perf_counter() - begin
    return wall_s, json.loads((run / "summary.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one epoch of 12,800 examples, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="append the figures to RESULTS.md")
    chosen = parser.parse_args()
    extra, seeds = (QUICK, 1) if chosen.quick else ((), chosen.seeds)
    bench, twin, ratios, lines = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            twin_s, twin_summary = train("mnist_adfa_twin", seed, Path(folder), extra)
            bench_s, bench_summary = train("mnist_adfa_bench", seed, Path(folder), extra)
            bench.append(bench_summary["test_accuracy"])
            twin.append(twin_summary["test_accuracy"])
            ratios.append(bench_s / twin_s)
            lines.append(f"| {seed} | {bench[-1]:.4f} | {twin[-1]:.4f} | {bench_s:.1f} | {twin_s:.1f} | {ratios[-1]:.2f} |")
            print(lines[-1], flush=True)
    std = statistics.stdev(bench) if seeds > 1 else 0.0
    found = {
        "mnist_bench_accuracy": statistics.mean(bench),
        "mnist_bench_accuracy_std": std,
        "mnist_bench_accuracy_worst": min(bench),
        "mnist_twin_accuracy": statistics.mean(twin),
        "mnist_bench_vs_twin_wall": statistics.median(ratios),
        "seeds": seeds,
        "quick": chosen.quick,
    }
    if chosen.record:
        head = ["| seed | bench test | twin test | bench s | twin s | ratio |", "|---|---|---|---|---|---|"]
        mean = f"Bench: mean {found['mnist_bench_accuracy']:.4f}, std {std:.4f}, worst {min(bench):.4f}; wall ratio median "
        record("First light: MNIST through VISA", [*head, *lines, "", mean + f"{found['mnist_bench_vs_twin_wall']:.2f}."])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
