"""Test accuracy of every learner over seeds: {learner: {dataset: {mean, std, worst, seeds}}}, as fractions.

    python benchmarks/accuracy.py [LEARNER ...] [--datasets mnist ...] [--seeds N] [--first N] [--jobs N] [--device ON]
                                  [--list] [--quick] [--record]

Learners: adfa adfa_snn ff ffgaf spide saf_e saf_f bptt. Data sets: mnist fashion-mnist cifar10; HIL_DATA names the folder that
holds them. Runs live in runs/accuracy/; the same command goes on where it was stopped, and --list shows how far each run is
and how long the rest takes (benchmarks/jobs.py). Epoch and readout are chosen on the validation split; the test split is read
once a run. To leave it alone: nohup python benchmarks/accuracy.py ... > accuracy.log &
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jobs import ROOT, RUNS, Job, Study, add_options, finish

DATASETS = {"mnist": "mnist", "fashion-mnist": "fashion", "cifar10": "cifar10"}
LEARNERS = ("adfa", "adfa_snn", "ff", "ffgaf", "spide", "saf_e", "saf_f", "bptt")
QUICK = ("train.epochs=1", "data.train_examples=2000")


def experiment(learner: str, dataset: str) -> Path:
    """Its own file if there is one, or else the one for MNIST, if the images have the same size.

    Raises:
        SystemExit: there is none.
    """
    own = ROOT / "experiments" / f"{DATASETS[dataset]}_{learner}.toml"
    mnist = ROOT / "experiments" / f"mnist_{learner}.toml"
    if not own.exists() and (dataset == "cifar10" or not mnist.exists()):
        sys.exit(f"no experiment file {own.name}; learners: {', '.join(LEARNERS)}")
    return own if own.exists() else mnist


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learners", nargs="*", help="default: all")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=["mnist"])
    add_options(parser, seeds=3)
    chosen = parser.parse_args()
    folder = chosen.runs or RUNS / ("accuracy-quick" if chosen.quick else "accuracy")
    more = QUICK if chosen.quick else ()
    jobs = [
        Job(
            f"{name}, {data}", seed, experiment(name, data), (f"data.use={data}", *more), folder / f"{name}-{data}-{seed}",
            {"learner": name, "data": data},
        )
        for seed in range(chosen.first, chosen.first + (1 if chosen.quick else chosen.seeds))
        for name in chosen.learners or LEARNERS
        for data in chosen.datasets
    ]  # fmt: skip
    study = Study.of(jobs, chosen)
    found = finish(study, chosen, "Accuracy", folder)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for job in study.jobs:
        rows.setdefault(job.facts["learner"], {})[job.facts["data"]] = found[job.row]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
