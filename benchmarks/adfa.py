"""Experiments of the papers on aDFA, on static nodes: what g must be, depth, CIFAR-10, and networks that are not a chain.

    python benchmarks/adfa.py correlation|depth|cifar10|blocks [--seeds N] [--first N] [--jobs N] [--list] [--quick] [--record]

correlation   accuracy against |corr(g, f')|, for random Fourier series g, through the Mach-Zehnder twin and on spiking
              neurons; beside them the tuned sine, DFA (the true slope), backpropagation, constant g, and the last layer
              alone. --functions: how many g; --examples, --epochs: how long a run is; --whole: all of MNIST, as long as
              mnist_adfa.toml and mnist_adfa_snn.toml say
depth         2, 4 and 6 hidden layers: aDFA with the tuned sine and with random g, DFA, backpropagation, last layer
cifar10       3072-1000-1000-10 through the modulator with noise: aDFA, DFA, backpropagation, last layer
blocks        residual, mixer and convolutional residual blocks whose activation is the node (benchmarks/blocks.py)

All but blocks are runs of hil train in runs/adfa-STUDY/ (benchmarks/jobs.py): the same command goes on where it was stopped,
and --list shows what is left. runs.csv there has a line for each run; figures/ has the figure of the first study. All rows of
a study have one rate. DFA and backpropagation differentiate the twin. HIL_DATA names the folder of the data.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import blocks
from functions import feedback, learner, random_functions
from jobs import ROOT, RUNS, Job, Study, add_options, correlation, finish

from hil.feedback.feedback import Constant, Gaussian
from hil.report.figure import Figure, Sheet, save

TWIN = ROOT / "experiments" / "mnist_adfa_twin.toml"
LONG = ROOT / "experiments" / "mnist_adfa.toml"
SNN = ROOT / "experiments" / "mnist_adfa_snn.toml"
CIFAR10 = ROOT / "experiments" / "cifar10_adfa.toml"
HALF_PERIOD = {"mzm": 7.04 / 1.5 / 2, "snn": 2.0}  # of the node in pre-activations; of v - v_th in thresholds
STATIC = {
    "DFA": learner("dfa"),
    "backpropagation": learner("backprop"),
    "constant g": feedback(Constant()),
    "last layer": learner("last_layer"),
}
SPIKING = {
    "DFA": feedback(Gaussian(0.5)),  # a bell about the threshold, close to the surrogate's slope
    "backpropagation": learner("bptt", time_steps=5, chunk=5),
    "constant g": feedback(Constant()),
    "last layer": feedback(Constant(0.0)),  # every direction of a hidden layer is 0, so Adam leaves it as it was drawn
}
MARGIN = 0.05  # of accuracy below the worst random g; a rule that is worse is named in the legend
SHORT = ("train.epochs=1", "train.batch=20", "data.train_examples=1000")


def correlations(chosen: argparse.Namespace, folder: Path) -> Iterator[Job]:
    """The runs of the first study, seed 0 of everything first."""
    count = 3 if chosen.quick else chosen.functions
    length = [] if chosen.whole else [f"train.epochs={chosen.epochs}", f"data.train_examples={chosen.examples}"]
    more = [*SHORT, "network.widths=[784, 100, 10]"] if chosen.quick else length
    for node, file, lines in (("mzm", LONG if chosen.whole else TWIN, STATIC), ("snn", SNN, SPIKING)):
        named = {name: (row,) for name, row in lines.items()}
        named["tuned sine"] = ()
        for number, g in enumerate(random_functions(count, HALF_PERIOD[node])):
            named[f"random {number}"] = (feedback(g),)
        for name, sets in named.items():
            for seed in seeds(chosen):
                place = folder / f"{node}-{slug(name)}-{seed}"
                yield Job(f"{node}, {name}", seed, file, (*more, *sets), place, {"node": node, "function": name})


def depths(chosen: argparse.Namespace, folder: Path) -> Iterator[Job]:
    """The runs of the second study."""
    randoms = {f"random {n}": feedback(g) for n, g in enumerate(random_functions(3, HALF_PERIOD["mzm"]))}
    rules = {"aDFA": (), **{name: (one,) for name, one in (STATIC | ({} if chosen.quick else randoms)).items()}}
    width, more = (60, SHORT) if chosen.quick else (400, (f"train.epochs={chosen.epochs}",))
    for seed in seeds(chosen):
        for hidden in (2, 4, 6):
            widths = f"network.widths={[784, *[width] * hidden, 10]}"
            for name, sets in rules.items():
                place = folder / f"{hidden}-{slug(name)}-{seed}"
                yield Job(
                    f"{hidden} hidden, {name}", seed, TWIN, (widths, *more, *sets), place, {"hidden": hidden, "rule": name}
                )


def cifar10(chosen: argparse.Namespace, folder: Path) -> Iterator[Job]:
    """The runs of the third study; without --epochs as long as their file says."""
    more = (*SHORT, "network.widths=[3072, 100, 100, 10]") if chosen.quick else ()
    for seed in seeds(chosen):
        for name, sets in {"aDFA": (), **{name: (one,) for name, one in STATIC.items() if name != "constant g"}}.items():
            yield Job(name, seed, CIFAR10, (*more, *sets), folder / f"{slug(name)}-{seed}", {"rule": name})


STUDIES = {"correlation": correlations, "depth": depths, "cifar10": cifar10}


def figure(jobs: Sequence[Job]) -> Figure:
    """Accuracy of every finished random g against its correlation, a panel for each node; the other rules are lines."""
    done = [(job, found) for job in jobs if (found := job.summary())]
    points = [
        (job.facts["node"], job.facts["function"], alike, found["test_accuracy"])
        for job, found in done
        if job.facts["function"].startswith(("random", "tuned")) and (alike := correlation(found)) != ""
    ]
    scores: dict[tuple[str, str], list[float]] = {}
    for job, found in done:
        scores.setdefault((job.facts["node"], job.facts["function"]), []).append(found["test_accuracy"])

    def draw(sheet: Sheet) -> None:
        panels = sheet.figure.subplots(2, 1, sharex=True)
        for axes, (node, title) in zip(panels, (("mzm", "Mach-Zehnder twin"), ("snn", "spiking neurons")), strict=True):
            for mark, kind in (("o", "random"), ("*", "tuned")):
                mine = [(x, y) for at, name, x, y in points if at == node and name.startswith(kind)]
                label = {"random": "random g", "tuned": "sine"}[kind]
                axes.plot(*zip(*mine, strict=True), mark, color=sheet.series(0), label=label, **sheet.dot(5)) if mine else None
            floor = min((y for at, _, _, y in points if at == node), default=0.0) - MARGIN
            for number, name in enumerate(STATIC):
                if (node, name) in scores:
                    mean = statistics.mean(scores[node, name])
                    label = name if mean > floor else f"{name}: {mean:.2f}, below"
                    style = {"color": sheet.series(number + 1), "ls": ("-", "--", ":", "-.")[number], "lw": sheet.pt(1.4)}
                    axes.axhline(mean, label=label, **style)
            axes.set_ylim(bottom=floor)
            axes.set_ylabel(f"test accuracy\n{title}")
        panels[1].set(xlabel="|corr(g, f')|", xlim=(-0.02, 1.02))
        sheet.legend(panels[0], most=3)

    columns = {
        "node": [p[0] for p in points], "function": [p[1] for p in points], "correlation": [p[2] for p in points],
        "test accuracy": [p[3] for p in points],
    }  # fmt: skip
    told = "Test accuracy of aDFA against the correlation of g with the slope of the node, beside DFA and backpropagation"
    return Figure("correlation", "Accuracy against correlation", told, draw, columns, height_in=5.2)


def seeds(chosen: argparse.Namespace) -> range:
    return range(chosen.first, chosen.first + (1 if chosen.quick else chosen.seeds))


def slug(name: str) -> str:
    return name.lower().replace(" ", "_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=(*STUDIES, "blocks"))
    parser.add_argument("--functions", type=int, default=30, help="random g of the study correlation, for each node")
    parser.add_argument("--examples", type=int, default=10_000, help="of the study correlation")
    parser.add_argument("--whole", action="store_true", help="runs of the study correlation are as long as their files say")
    parser.add_argument("--epochs", type=int, default=5, help="of the studies correlation and depth, and blocks")
    add_options(parser, seeds=1)
    chosen = parser.parse_args()
    folder = chosen.runs or RUNS / f"adfa-{chosen.study}{'-quick' if chosen.quick else ''}"
    if chosen.study == "blocks":
        blocks.study(chosen, folder)
        return
    study = Study.of(STUDIES[chosen.study](chosen, folder), chosen)
    try:
        finish(study, chosen, f"aDFA: {chosen.study}", folder)
    finally:
        if chosen.study == "correlation" and not chosen.list:
            print(save([figure(study.jobs)], folder / "correlation"))


if __name__ == "__main__":
    main()
