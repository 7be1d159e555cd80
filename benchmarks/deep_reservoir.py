"""The deep reservoir by aDFA: one optoelectronic loop for all layers, on MNIST, Fashion-MNIST and CIFAR-10.

    python benchmarks/deep_reservoir.py [ROW ...] [--bench FILE [--set KEY=VALUE ...]] [--seeds N] [--first N] [--jobs N]
                                        [--list] [--quick] [--record]

deep_mnist_twin      experiments/mnist_deep_reservoir.toml, the loop simulated without noise
deep_mnist_noisy     the same with a detection noise of 3e-3 of the full scale and a converter of 10 bits
deep_mnist_frozen    the same as the first with masks that stay as they were drawn: what training them is worth
deep_fashion_twin    experiments/fashion_deep_reservoir.toml, without noise
deep_cifar10_twin    experiments/cifar10_deep_reservoir.toml, without noise
deep_mnist_bench     experiments/mnist_deep_reservoir.toml for 5 epochs on the bench of FILE, from the first step to the test

All are runs of hil train in runs/deep-reservoir/ (benchmarks/jobs.py): the same command goes on where it was stopped, --list
shows what is left. The epoch is chosen on the validation split, the test split read once. HIL_DATA names the folder of the
data. FILE is a bench of such a loop with as many virtual nodes; left out, benches/deep_loop_awg_scope.toml, the loop between a
generator and an oscilloscope. --set is for its runs alone. python benchmarks/memory.py --only ROW ... hands these rows over to
here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs import ROOT, RUNS, Job, Study, add_options, finish

MNIST, FASHION, CIFAR10 = (ROOT / "experiments" / f"{name}_deep_reservoir.toml" for name in ("mnist", "fashion", "cifar10"))
NOISY = ("device.noise=3e-3", "device.bits=10")
FROZEN = ('learner.feedback.g={ family = "constant", value = 0.0 }',)  # every direction of a mask is 0, so Adam leaves it
ROWS: dict[str, tuple[Path, tuple[str, ...]]] = {
    "deep_mnist_twin": (MNIST, ()),
    "deep_mnist_noisy": (MNIST, NOISY),
    "deep_mnist_frozen": (MNIST, FROZEN),
    "deep_fashion_twin": (FASHION, ()),
    "deep_cifar10_twin": (CIFAR10, ()),
}
BENCH, BENCH_FILE = "deep_mnist_bench", ROOT / "benches" / "deep_loop_awg_scope.toml"
NAMES = (*ROWS, BENCH)
SHORT = ("train.epochs=1", "data.train_examples=1000")


def jobs(chosen: argparse.Namespace, rows: Sequence[str], folder: Path) -> Iterator[Job]:
    """The runs of these rows, seed by seed."""
    more = SHORT if chosen.quick else ()
    on_bench = (f'device={{ bench = "{chosen.bench.resolve()}" }}', "train.epochs=5", *chosen.set)
    for seed in range(chosen.first, chosen.first + (1 if chosen.quick else chosen.seeds)):
        for row in rows:
            file, sets = ROWS.get(row) or (MNIST, on_bench)
            yield Job(row, seed, file, (*sets, *more), folder / f"{row}-{seed}", {"row": row})


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="default: all but the bench")
    parser.add_argument("--bench", type=Path, default=BENCH_FILE, metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    add_options(parser, seeds=3)
    chosen = parser.parse_args(argv)
    if unknown := [row for row in chosen.rows if row not in NAMES]:
        parser.error(f"no row {unknown[0]}; rows: {', '.join(NAMES)}")
    folder = chosen.runs or RUNS / f"deep-reservoir{'-quick' if chosen.quick else ''}"
    study = Study.of(jobs(chosen, chosen.rows or tuple(ROWS), folder), chosen)
    print(json.dumps(finish(study, chosen, "Deep reservoir", folder)))


if __name__ == "__main__":
    main()
