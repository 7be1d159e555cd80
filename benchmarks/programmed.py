"""Train what is programmed on a device: control voltages of a dopant network, heaters, a phase mask, conductances.

    python benchmarks/programmed.py [--part dopants | digits | crossbar] [--quick] [--record] [--tasks T ...] [--only ARM ...]

dopants: XOR (experiments/dopant_xor.toml) and a ring (experiments/dopant_ring.toml), on several specimens of the twin, each
with a seed of its own; of every run the epoch is chosen on the validation split, and the test split is read once. "differences"
is SPSA with perturbation = "each", "orthogonal" with "orthogonal". "genetic, twin first" judges the first three quarters of its
generations by the twin. "adfa and spsa" trains the host by the one rule and the voltages by the other; each part alone stands
beside it. "pat, voltages stay" trains the host's weights alone, with the voltages that the others begin with. Passes are node
evaluations, writes are channels that were programmed.

digits: through microrings and a phase mask, trained as their files say, beside the host's weights alone.

crossbar: digits through 1,024 memristors whose writes scatter by 3 % of their range, or by 10 %, and which drift, by PAT
(experiments/digits_crossbar_pat.toml) and by aDFA around conductances that were written once (digits_crossbar_adfa.toml).
"verified": what was written is read back, and written once more, up to 10 times, while it is off by more than 1 % of the range,
or 3 %. "exact": writes that do not scatter, without drift. "moved": trained with exact writes, then written onto a device whose
writes scatter, with and without verifying, and tested without more training. Specimens differ in their amplifiers and in how
fast each cell drifts.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from recording import record
from torch import Tensor

from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.training.loop import evaluate, train
from hil.training.session import load_best
from hil.training.state import Training

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
STAYS = ("params.lr=1e-12",)  # of the optimiser's group: the voltages it begins with
LOSSES = ("learner={use='spsa',directions=8,size=0.1}",)
ORTHOGONAL = ("learner={use='spsa',perturbation='orthogonal',directions=32,size=0.02}",)
DIFFERENCES = ("learner={use='spsa',perturbation='each',size=0.05}",)
SLOPES = ("learner={use='pat'}",)
GENERATIONS = "learner={{use='genetic',population=64,elites=4,reach=2.0,on_twin={}}}"
GENES = ("optimizer={use='SGD',lr=1.0}", "train.batch=48", "train.epochs=20")  # 100 generations
NODES = ("learner={use='node_perturbation',directions=8,size=0.1}", "train.batch=16")
BOTH = ("learner={use='host_and_device',host={use='adfa'},device={use='spsa',directions=8,size=0.1}}",)
HOST_STAYS = ("optimizer.lr=1e-12", "params.lr=0.05")
VOLTAGES: dict[str, Sequence[str]] = {
    "pat": SLOPES, "pat, voltages stay": (*SLOPES, *STAYS), "spsa": LOSSES, "orthogonal": ORTHOGONAL,
    "differences": DIFFERENCES,
    "genetic": (GENERATIONS.format(0), *GENES), "genetic, twin first": (GENERATIONS.format(75), *GENES),
    "node perturbation": NODES, "adfa and spsa": BOTH, "adfa, voltages stay": (*BOTH, *STAYS),
    "spsa, host stays": (*BOTH, *HOST_STAYS),
}  # fmt: skip
FILES: dict[str, Sequence[str]] = {"as its file says": (), "what is programmed stays": STAYS}
VERIFIED, ROUGH = ("params.tolerance=0.01", "params.tries=10"), ("device.noise=0.1",)
CONDUCTANCES: dict[str, Sequence[str]] = {
    "exact": ("device.noise=0.0", "device.drift=0.0"),
    "3 %": (),
    "3 %, verified": VERIFIED,
    "10 %": ROUGH,
    "10 %, verified": (*ROUGH, "params.tolerance=0.03", "params.tries=10"),
    "3 %, conductances stay": ("params.lr=0",),
}
HEAD = ("| task | arm | accuracy, mean ± std; worst | passes | writes | read back | missed |", "|---|---|---|---|---|---|---|")
Arms = dict[str, Sequence[str]]
Weights = Mapping[str, Tensor]
PARTS: dict[str, dict[str, tuple[Path, int | None, Arms]]] = {  # tasks: file, epochs unless it or the arm says so, arms
    "dopants": {
        "xor": (FOLDER / "dopant_xor.toml", 60, VOLTAGES),
        "ring": (FOLDER / "dopant_ring.toml", 60, VOLTAGES),
    },
    "digits": {
        "microrings": (FOLDER / "digits_microring.toml", None, FILES),
        "phase mask": (FOLDER / "digits_phase_mask.toml", None, FILES),
    },
    "crossbar": {
        "pat": (FOLDER / "digits_crossbar_pat.toml", 15, CONDUCTANCES),
        "adfa": (FOLDER / "digits_crossbar_adfa.toml", 20, {"3 %": (), "3 %, verified": VERIFIED}),
    },
}
TITLES = {
    "dopants": "What is programmed is trained: control voltages of a dopant network",
    "digits": "What is programmed is trained: microrings and a phase mask",
    "crossbar": "What is programmed is trained: conductances of a crossbar, with and without verified writes",
}
MOVED: Arms = {
    "3 %": ("device.noise=0.03",),
    "3 %, verified": ("device.noise=0.03", *VERIFIED),
    "10 %": ROUGH,
    "10 %, verified": (*ROUGH, "params.tolerance=0.03", "params.tries=10"),
    "30 %": ("device.noise=0.3",),
    "30 %, verified": ("device.noise=0.3", "params.tolerance=0.03", "params.tries=30"),
}


class Found(NamedTuple):
    """Accuracy on the test split, node evaluations, writes, channels read back, channels off after the last try."""

    accuracy: float
    passes: int
    writes: int
    reads: int
    missed: int


def run(file: Path, arm: Sequence[str], specimen: int, epochs: int | None, quick: bool) -> Found:
    more = (f"device.specimen={specimen}", f"seed={specimen}", "train.threads=1", *["train.epochs=3"] * quick)
    under = [f"device.base.specimen={specimen}"] if "crossbar" in file.name else []
    long = [] if epochs is None else [f"train.epochs={epochs}"]
    with built(read_experiment(file, [*long, *arm, *more, *under])) as made:
        return scored(made.training)


def trained(training: Training) -> Weights:
    """Train; return the best weights by validation, which the network then has."""
    for _ in train(training):
        pass
    load_best(training)
    return {name: value.clone() for name, value in training.net.state_dict().items()}


def scored(training: Training) -> Found:
    """Train and test. Costs are those of the training."""
    trained(training)
    spent = costs(training)
    return Found(accuracy(training), *spent)


def tested(training: Training, weights: Weights) -> Found:
    """Test these weights without training. Costs are those of the test."""
    before = costs(training)
    training.net.load_state_dict(weights)
    score = accuracy(training)
    return Found(score, *(after - begun for after, begun in zip(costs(training), before, strict=True)))


def costs(training: Training) -> tuple[int, int, int, int]:
    """Return what was spent so far, in the order of Found."""
    verified = training.device_verified
    return training.device_passes, training.device_writes, verified["reads"], verified["missed"]


def accuracy(training: Training) -> float:
    return evaluate(training.net, training.learner, training.data.test, None, training.task)[0]["accuracy"]


def moved(specimen: int, epochs: int) -> dict[str, Found]:
    """Train with exact writes, then write what was found onto devices whose writes scatter; no drift."""
    file, _, arms = PARTS["crossbar"]["pat"]
    more = (
        f"device.specimen={specimen}", f"device.base.specimen={specimen}", f"seed={specimen}", f"train.epochs={epochs}",
        "train.threads=1", *arms["exact"],
    )  # fmt: skip
    with built(read_experiment(file, more)) as made:
        weights = trained(made.training)
    found = {}
    for arm, settings in MOVED.items():
        with built(read_experiment(file, [*more, *settings])) as made:
            found[arm] = tested(made.training, weights)
            print(f"moved, {arm}, specimen {specimen}: {found[arm]}", flush=True)
    return found


def line_of(task: str, arm: str, found: Sequence[Found]) -> str:
    scores = [one.accuracy for one in found]
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    costs = " | ".join(f"{statistics.mean(one[k] for one in found):,.0f}" for k in (2, 3, 4))
    score = f"{statistics.mean(scores):.4f} ± {spread:.4f}; {min(scores):.4f}"
    return f"| {task} | {arm} | {score} | {found[0].passes:,} | {costs} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one specimen, few epochs")
    parser.add_argument("--record", action="store_true", help="write the table into RESULTS.md")
    parser.add_argument("--part", default="dopants", choices=list(PARTS))
    parser.add_argument("--only", nargs="*", help="these arms")
    parser.add_argument("--tasks", nargs="*", help="these tasks")
    parser.add_argument("--specimens", type=int, default=3, help="how many")
    given = parser.parse_args()
    torch.set_num_threads(1)
    specimens = 1 if given.quick else given.specimens
    lines = list(HEAD)
    for task, (file, epochs, arms) in PARTS[given.part].items():
        if given.tasks and task not in given.tasks:
            continue
        for arm in arms:
            if given.only and arm not in given.only:
                continue
            found = []
            for specimen in range(specimens):
                found.append(run(file, arms[arm], specimen, epochs, given.quick))
                print(f"{task}, {arm}, specimen {specimen}: {found[-1]}", flush=True)
            lines.append(line_of(task, arm, found))
    if given.part == "crossbar" and (not given.only or "moved" in given.only):
        runs = [moved(specimen, 3 if given.quick else 15) for specimen in range(specimens)]
        lines += [line_of("moved", arm, [one[arm] for one in runs]) for arm in MOVED]
    print("\n".join(lines))
    if given.record:
        record(TITLES[given.part], lines)


if __name__ == "__main__":
    main()
