"""Train what is programmed on a device: control voltages of a dopant network, by each rule that can, beside some that stay.

    python benchmarks/programmed.py [--quick] [--record] [--only ARM ...] [--tasks TASK ...] [--specimens N]

XOR (experiments/dopant_xor.toml) and a ring (experiments/dopant_ring.toml), and digits through microrings and a phase mask,
which are trained as their files say, on several specimens of the twin, each with a seed of its own; of every run the epoch is
chosen on the validation split, and the test split is read once. "differences" is SPSA with perturbation = "each". "genetic,
twin first" judges the first three quarters of its generations by the twin. "adfa and spsa" trains the host by the one rule
and the voltages by the other; beside it stands each part alone. "pat, voltages stay" trains the host's weights alone, with
the voltages that the others begin with. Passes are node evaluations, writes are channels that were programmed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from recording import record

from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.training.loop import evaluate, train
from hil.training.session import load_best

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
TASKS = {
    "xor": FOLDER / "dopant_xor.toml", "ring": FOLDER / "dopant_ring.toml",
    "digits, microrings": FOLDER / "digits_microring.toml", "digits, phase mask": FOLDER / "digits_phase_mask.toml",
}  # fmt: skip
STAYS = ("params.lr=1e-12",)  # of the optimiser's group: the voltages it begins with
LOSSES = ("learner={use='spsa',directions=8,size=0.1}",)
DIFFERENCES = ("learner={use='spsa',perturbation='each',size=0.05}",)
SLOPES = ("learner={use='pat'}",)
GENERATIONS = "learner={{use='genetic',population=64,elites=4,reach=2.0,on_twin={}}}"
GENES = ("optimizer={use='SGD',lr=1.0}", "train.batch=48", "train.epochs=20")  # 100 generations
NODES = ("learner={use='node_perturbation',directions=8,size=0.1}", "train.batch=16")
BOTH = ("learner={use='host_and_device',host={use='adfa'},device={use='spsa',directions=8,size=0.1}}",)
HOST_STAYS = ("optimizer.lr=1e-12", "params.lr=0.05")
ARMS: dict[str, Sequence[str]] = {
    "pat": SLOPES, "pat, voltages stay": (*SLOPES, *STAYS), "spsa": LOSSES, "differences": DIFFERENCES,
    "genetic": (GENERATIONS.format(0), *GENES), "genetic, twin first": (GENERATIONS.format(75), *GENES),
    "node perturbation": NODES, "adfa and spsa": BOTH, "adfa, voltages stay": (*BOTH, *STAYS),
    "spsa, host stays": (*BOTH, *HOST_STAYS), "as its file says": (), "what is programmed stays": STAYS,
}  # fmt: skip

FILES = ("as its file says", "what is programmed stays")  # the arms of the digits


class Found(NamedTuple):
    """Scores and costs of a run: accuracy on the test split, node evaluations, writes."""

    accuracy: float
    passes: int
    writes: int


def run(task: str, arm: str, specimen: int, epochs: int) -> Found:
    long = (f"train.epochs={epochs}",) if task in ("xor", "ring") or epochs < 60 else ()
    more = (*long, *ARMS[arm], f"device.specimen={specimen}", f"seed={specimen}", "train.threads=1")
    with built(read_experiment(TASKS[task], list(more))) as made:
        training = made.training
        for _ in train(training):
            pass
        passes, writes = training.device_passes, training.device_writes
        load_best(training)
        score, _ = evaluate(training.net, training.learner, training.data.test, None, training.task)
    return Found(score["accuracy"], passes, writes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one specimen, few epochs")
    parser.add_argument("--record", action="store_true", help="write the table into RESULTS.md")
    parser.add_argument("--only", nargs="*", default=list(ARMS), choices=list(ARMS), help="these arms")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS), help="these tasks")
    parser.add_argument("--specimens", type=int, default=3, help="how many")
    given = parser.parse_args()
    torch.set_num_threads(1)
    specimens, epochs = (1, 3) if given.quick else (given.specimens, 60)
    lines = ["| task | voltages | accuracy, mean ± std; worst | passes | writes |", "|---|---|---|---|---|"]
    for task in given.tasks:
        for arm in (one for one in given.only if (one in FILES) == task.startswith("digits")):
            found = []
            for specimen in range(specimens):
                found.append(run(task, arm, specimen, epochs))
                print(f"{task}, {arm}, specimen {specimen}: {found[-1]}", flush=True)
            scores = [one.accuracy for one in found]
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            lines.append(
                f"| {task} | {arm} | {statistics.mean(scores):.4f} ± {spread:.4f}; {min(scores):.4f} | "
                f"{found[0].passes:,} | {statistics.mean(one.writes for one in found):,.0f} |"
            )
    print("\n".join(lines))
    if given.record:
        record("What is programmed is trained: control voltages of a dopant network", lines)


if __name__ == "__main__":
    main()
