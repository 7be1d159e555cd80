"""Experiments of the papers on spiking networks: rules, parameters of the neuron, which g work, operations.

    python benchmarks/snn.py table|sweeps|range|energy [--seeds N] [--first N] [--jobs N] [--list] [--quick] [--record]

table     MNIST, 784-1000-10 of leaky integrate-and-fire neurons, 10 seeds: backpropagation through time with a surrogate
          (bptt), DFA (aDFA-SNN with a bell about the threshold as g), aDFA (the sine of experiments/mnist_adfa_snn.toml),
          last layer
sweeps    the same rules while one parameter of the neuron moves: leak, threshold, refractory time, reset, time steps
range     the working range of g: validation accuracy of sin(frequency (v - v_th) + phase) on a grid, one seed
energy    operations, memory accesses and an estimate of the energy of one training step, forward and backward, per example,
          with the firing rates (hil/learners/parts/operations.py), on MNIST, 784-400-400-10 of each rule's own neurons: SPIDE
          with the steps of its file and with those of its authors, backpropagation through time, SAF, OTTT, aDFA, FFGAF
          (without the last layer: each layer is a classifier); SPIDE and backpropagation through time on LeNet besides.
          Measured on the trained network

The learner takes leak, threshold, reset and refractory time from the chip. "last layer": g = 0 without dropout, so that every
direction of a hidden layer is 0 and the optimiser leaves it as it was drawn. Sweeps, range and energy are of --examples
examples and --epochs epochs. The runs are those of hil train in runs/snn-STUDY/ (benchmarks/jobs.py): the same command goes on
where it was stopped, and --list shows what is left; runs.csv there has a line for each run. HIL_DATA names the folder of the
data.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from functions import feedback, learner
from jobs import ROOT, RUNS, Job, Study, add_options, finish
from recording import record

from hil.feedback.feedback import Constant, Gaussian, Sine

SNN = ROOT / "experiments" / "mnist_adfa_snn.toml"
BELL = Gaussian(0.5)  # correlation with the sigmoid surrogate's slope: about 0.99
SHORT = ("train.epochs=1", "train.batch=20", "data.train_examples=1000", "network.widths=[784, 100, 10]")
SWEEPS: dict[str, tuple[str, tuple[object, ...]]] = {
    "leak": ("device.leak", (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)),
    "threshold": ("device.v_th", (0.25, 0.5, 1.0, 2.0, 4.0)),
    "refractory": ("device.refractory", (0, 1, 2, 3)),
    "reset": ("device.reset", ("soft", "hard")),
    "time steps": ("learner.time_steps", (1, 2, 5, 10, 20)),
}
LENET = 'network={use="conv", channels=[15, 40], kernels=5, strides=2, pool="average", units=[300], readout=10}'
FREQUENCIES = (0.5, 1.0, 1.4, 2.0, 4.0)
PHASES = tuple(round(k * math.pi / 8, 4) for k in range(8))  # half a turn: the sign of g does not matter


def rules(steps: int = 5) -> dict[str, tuple[str, ...]]:
    """Return the settings of each rule, for so many time steps."""
    own = f"learner.time_steps={steps}", f"learner.chunk={min(steps, 5)}"
    return {
        "BP, surrogate": (learner("bptt", time_steps=steps, chunk=min(steps, 5)),),
        "DFA": (*own, feedback(BELL)),
        "aDFA": own,
        "last layer": (*own, feedback(Constant(0.0))),
    }


def table(chosen: argparse.Namespace, folder: Path) -> Iterator[Job]:
    """The rules, as long as the file says."""
    more = SHORT if chosen.quick else ()
    for seed in seeds(chosen):
        for name, sets in rules().items():
            yield Job(name, seed, SNN, (*more, *sets), folder / f"{slug(name)}-{seed}", {"rule": name})


def sweeps(chosen: argparse.Namespace, folder: Path) -> Iterator[Job]:
    """The rules at each value of each parameter, the others as in the file."""
    for seed in seeds(chosen):
        for parameter, (key, values) in SWEEPS.items():
            for value in (values[0], values[-1]) if chosen.quick else values:
                steps = int(str(value)) if key == "learner.time_steps" else 5
                moved = () if key == "learner.time_steps" else (f"{key}={value}",)
                for name, sets in rules(steps).items():
                    if chosen.quick and name != "aDFA":
                        continue
                    place = folder / f"{slug(parameter)}-{value}-{slug(name)}-{seed}"
                    facts = {"parameter": parameter, "value": value, "rule": name}
                    yield Job(f"{parameter} {value}, {name}", seed, SNN, (*short(chosen), *sets, *moved), place, facts)


def working_range(chosen: argparse.Namespace, folder: Path) -> Iterator[Job]:
    """The sines."""
    for seed in seeds(chosen):
        for frequency in (1.0,) if chosen.quick else FREQUENCIES:
            for phase in PHASES[::3] if chosen.quick else PHASES:
                place = folder / f"f{frequency}-p{phase}-{seed}"
                facts = {"frequency": frequency, "phase": phase}
                g = feedback(Sine(frequency=frequency, phase=phase))
                yield Job(f"sin({frequency} u + {phase})", seed, SNN, (*short(chosen), g), place, facts)


def energy(chosen: argparse.Namespace, folder: Path) -> Iterator[Job]:
    """Every rule on the same widths."""
    width = 100 if chosen.quick else 400
    dense = f"network={{widths=[784, {width}, {width}, 10]}}"
    apart = f'network={{widths=[784, {width}, {width}], norm="batch", levels=8, readout=false}}'
    paper = ("learner.forward_steps=30", "learner.backward_steps=100")
    rows = {
        "SPIDE, T 20 and 40": ("mnist_spide", dense),
        "SPIDE, T 30 and 100": ("mnist_spide", dense, *paper),
        "BP through time, T 5": ("mnist_bptt", dense),
        "SAF-E, T 5": ("mnist_saf_e", dense),
        "OTTT-A, T 5": ("mnist_bptt", dense, learner("ottt_a", time_steps=5)),
        "SAF-F, T 5": ("mnist_saf_f", dense),
        "aDFA-SNN, T 5": ("mnist_adfa_snn", dense),
        "FFGAF, T 8": ("mnist_ffgaf", apart),
        "LeNet, SPIDE, T 20 and 40": ("mnist_spide_lenet",),
        "LeNet, BP through time, T 5": ("mnist_bptt", LENET),
    }
    some = (*SHORT[:3],) if chosen.quick else short(chosen)
    for seed in seeds(chosen):
        for name, (file, *sets) in rows.items():
            experiment = ROOT / "experiments" / f"{file}.toml"
            yield Job(name, seed, experiment, (*some, *sets), folder / f"{slug(name)}-{seed}", {"rule": name})


def operations(jobs: Sequence[Job]) -> list[str]:
    """A table of the operations in the summaries, means over the seeds."""
    head = ("rule", "direction", "accumulations", "multiply-acc.", "memory accesses", "energy, nJ", "firing rate")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in dict.fromkeys(job.row for job in jobs):
        counts = [found["operations"] for job in jobs if job.row == row and (found := job.summary())]
        for part in ("forward", "backward") if counts else ():
            mean = {
                key: statistics.mean(one[part][key] for one in counts)
                for key in counts[0][part]
                if counts[0][part][key] is not None
            }
            rate = f"{100 * mean['firing_rate']:.1f} %" if "firing_rate" in mean else "-"
            mean["energy_nj"] = 1e9 * mean["energy_j"]
            whole = [f"{mean[key]:,.0f}" for key in ("accumulations", "multiplications", "memory_accesses", "energy_nj")]
            lines.append(f"| {' | '.join([row, part, *whole, rate])} |")
    return lines


STUDIES = {"table": table, "sweeps": sweeps, "range": working_range, "energy": energy}


def short(chosen: argparse.Namespace) -> tuple[str, ...]:
    return SHORT if chosen.quick else (f"train.epochs={chosen.epochs}", f"data.train_examples={chosen.examples}")


def seeds(chosen: argparse.Namespace) -> range:
    return range(chosen.first, chosen.first + (1 if chosen.quick else chosen.seeds))


def slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--examples", type=int, default=10_000, help="of sweeps, range and energy")
    parser.add_argument("--epochs", type=int, default=3, help="of sweeps, range and energy")
    add_options(parser, seeds=0)
    chosen = parser.parse_args()
    chosen.seeds = chosen.seeds or {"table": 10, "sweeps": 3, "range": 1, "energy": 1}[chosen.study]
    folder = chosen.runs or RUNS / f"snn-{chosen.study}{'-quick' if chosen.quick else ''}"
    study = Study.of(STUDIES[chosen.study](chosen, folder), chosen)
    split = "validation" if chosen.study == "range" else "test"
    title = "Spiking networks: accuracy of what was counted" if chosen.study == "energy" else f"aDFA-SNN: {chosen.study}"
    finish(study, chosen, title, folder, split)
    if chosen.study == "energy":
        found = operations(study.jobs)
        print("\n".join(found))
        if chosen.record:
            record("Spiking networks: operations of a training step, per example", found)


if __name__ == "__main__":
    main()
