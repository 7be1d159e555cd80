"""The error projected by a device, beside the matrices of the host: accuracy on equal terms.

    python benchmarks/projection.py [--data mnist|digits] [--seeds N] [--quick] [--list] [--record] [--runs FOLDER]

aDFA trains the network of experiments/mnist_adfa_twin.toml with two hidden layers of 128 and 20,000 examples (digits: that of
experiments/digits_adfa_optical.toml, 72), once with the matrices B of the host, and with the twin of a modulator, a scattering
medium and a camera in their place, called directly with all its noise, for 2 and 5 planes of signs. A seed is also another
medium. The number of planes is chosen on the validation split, and the test split of that row stands beside that of the host.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from jobs import ROOT, RUNS, Job, Study, add_options, finish
from recording import record

PLANES = (2, 5)
HOST = "the host"
SETS = {  # experiment, its settings, macropixels and pixels
    "mnist": ("mnist_adfa_twin.toml", ("network.widths=[784, 128, 128, 10]", "data.train_examples=20000"), 64, 256),
    "digits": ("digits_adfa_twin.toml", ("network.widths=[64, 72, 72, 10]",), 36, 144),
}
QUICK = {"mnist": ("data.train_examples=2000", "train.epochs=2"), "digits": ("train.epochs=2",)}


def jobs(data: str, folder: Path, seeds: range, quick: bool) -> list[Job]:
    file, sets, macropixels, pixels = SETS[data]
    experiment, common = ROOT / "experiments" / file, (*sets, *(QUICK[data] if quick else ()))
    found = []
    for seed in seeds:
        medium = f"use = 'scattering', macropixels = {macropixels}, pixels = {pixels}, specimen = {seed + 11}"
        rows = {HOST: ()} | {planes_row(n): (f"projection={{ {medium}, planes = {n} }}",) for n in PLANES}
        for number, (row, projection) in enumerate(rows.items()):
            name = f"planes-{PLANES[number - 1]}" if number else "host"
            found.append(Job(row, seed, experiment, (*common, *projection), folder / f"{name}-{seed}"))
    return found


def planes_row(planes: int) -> str:
    return f"a device, {planes} planes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SETS, default="mnist")
    add_options(parser, 3)
    chosen = parser.parse_args()
    folder = chosen.runs or RUNS / f"projection-{chosen.data}{'-quick' * chosen.quick}"
    study = Study.of(jobs(chosen.data, folder, range(chosen.first, chosen.first + chosen.seeds), chosen.quick), chosen)
    title = f"The error projected by a device, {chosen.data}: accuracy on the validation split"
    validation = finish(study, chosen, title, folder, "validation")
    if HOST not in validation or len(validation) < 2:  # --only left nothing to compare
        return
    best = max((row for row in validation if row != HOST), key=lambda row: validation[row]["mean"])
    test = study.table("test")
    paired = [
        one.summary()["test_accuracy"] - other.summary()["test_accuracy"]
        for one in study.jobs if one.row == best
        for other in study.jobs if other.row == HOST and other.seed == one.seed
    ]  # fmt: skip
    error = statistics.stdev(paired) / len(paired) ** 0.5 if len(paired) > 1 else 0.0
    line = (
        f"Test: {best} (chosen on the validation split) {test[best]['mean']:.4f} ± {test[best]['std']:.4f}, worst "
        f"{test[best]['worst']:.4f}; {HOST} {test[HOST]['mean']:.4f} ± {test[HOST]['std']:.4f}, worst "
        f"{test[HOST]['worst']:.4f}; difference {statistics.mean(paired):+.4f} ± {error:.4f}, {len(paired)} seeds."
    )
    print(line)
    if chosen.record:
        record(f"{title}; the test split", [line])


if __name__ == "__main__":
    sys.exit(main())
