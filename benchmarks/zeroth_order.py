"""Learners that ask for losses alone, ranked on one noisy node at equal device passes, beside learners with one pass a step.

    python benchmarks/zeroth_order.py [--quick] [--record] [--only NAME ...]

Skalli et al., arXiv:2503.16943 (2025), rank such learners on one laser network: PEPG is the most efficient of finite
differences, SPSA, CMA-ES, PEPG and swarms. Here: digits through the Mach-Zehnder twin with its noise, a network of 64-16-10
(1,210 weights), 1,000 examples for training, 400 for validation, 397 for the test. Every run may spend the same node
evaluations, its validations counted. Every learner gets the same number of trials, on one seed of its own, for rates and sizes,
and the best by validation runs on other seeds; the epoch is chosen on the validation split, and the test split is read once a
run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from functions import inline
from recording import record

from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.data.dataset import Dataset, Split, load
from hil.seeding import generator
from hil.training.loop import evaluate, train
from hil.training.session import load_best

BASE = Path(__file__).resolve().parent.parent / "experiments" / "digits_adfa_twin.toml"
TUNED_ON, BATCH, TRAIN, VALIDATION = 100, 100, 1000, 400
Settings = Mapping[str, object]
Trial = tuple[Settings, Settings]  # of [learner], of [optimizer]


def adam(*rates: float) -> list[Settings]:
    return [{"use": "Adam", "lr": rate} for rate in rates]


def trials(use: str, learner: Mapping[str, Sequence[object]], optimizers: Sequence[Settings], **more: object) -> list[Trial]:
    """Every combination of the values of the learner's settings, with every optimiser."""
    named = [dict(zip(learner, values, strict=True)) for values in product(*learner.values())]
    return [({"use": use, **more, **one}, optimizer) for one in named for optimizer in optimizers]


PLAIN = [{"use": "SGD", "lr": 1.0}]  # the only optimiser of CMA-ES
G = [{"g": {"family": "sine", "phase": phase}} for phase in (1.2, 0.9, 0.6)]
LEARNERS: dict[str, list[Trial]] = {  # nine trials each
    "SPSA": trials("spsa", {"directions": (1, 8, 32)}, adam(6e-3, 2e-2, 6e-2)),
    "weight perturbation": trials("spsa", {"directions": (1, 8, 32)}, adam(6e-3, 2e-2, 6e-2), perturbation="normal"),
    "PEPG": trials("pepg", {"directions": (2, 8, 32)}, adam(6e-3, 2e-2, 6e-2)),
    "CMA-ES": trials("cma_es", {"size": (0.05, 0.1, 0.2), "population": (10, 24, 50)}, PLAIN),
    "aDFA": trials("adfa", {"feedback": G}, adam(6e-4, 2e-3, 6e-3)),
    "DFA, slope of the twin": trials("dfa", {}, adam(6e-5, 2e-4, 4e-4, 6e-4, 1e-3, 2e-3, 4e-3, 6e-3, 2e-2)),
    "Mono-Forward": trials("mono_forward", {}, adam(6e-5, 2e-4, 4e-4, 6e-4, 1e-3, 2e-3, 4e-3, 6e-3, 2e-2)),
}
ZEROTH = ("SPSA", "weight perturbation", "PEPG", "CMA-ES")


def data() -> Dataset:
    """Digits with more examples for validation and test; those of the usual test split are never trained on."""
    whole = load("digits")
    x, y = (torch.cat([getattr(whole.train, name), getattr(whole.validation, name)]) for name in "xy")
    order = torch.randperm(len(y), generator=generator(0, 0, "larger splits"))
    parts = order.split([TRAIN, VALIDATION, len(y) - TRAIN - VALIDATION])
    first, second, rest = (Split(x[part], y[part]) for part in parts)
    test = Split(torch.cat([rest.x, whole.test.x]), torch.cat([rest.y, whole.test.y]))
    return replace(whole, train=first, validation=second, test=test)


def run(trial: Trial, seed: int, passes: int, given: Dataset, tested: bool) -> tuple[float, float]:
    """Train to the end of the passes; accuracies of the best epoch on the validation split, and on the test split or NaN."""
    learner, optimizer = trial
    sets = (
        f"seed={seed}", f"learner={inline(learner)}", f"optimizer={inline(optimizer)}", "network.widths=[64, 16, 10]",
        f"train.batch={BATCH}", f"train.budget_passes={passes}", "train.epochs=100000", "train.threads=1",
        "decode={zero=0.178, scale=0.178}",
    )  # fmt: skip
    with built(read_experiment(BASE, sets), given=given) as made:
        training = made.training
        for _ in train(training):
            pass
        best = training.best.score or 0.0
        if not tested:
            return best, float("nan")
        load_best(training)
        return best, evaluate(training.net, training.learner, given.test, task=training.task)[0]["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=6_000_000, help="node evaluations of a run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--quick", action="store_true", help="two trials, a hundredth of the passes, one seed")
    parser.add_argument("--record", action="store_true", help="append the table to RESULTS.md")
    chosen = parser.parse_args()
    passes, seeds = (chosen.passes // 100, 1) if chosen.quick else (chosen.passes, chosen.seeds)
    given, rows = data(), {}
    for name in chosen.only:
        begin, tried = time.perf_counter(), LEARNERS[name][:2] if chosen.quick else LEARNERS[name]
        scores = [run(trial, TUNED_ON, passes, given, False)[0] for trial in tried]
        best = tried[scores.index(max(scores))]
        found = [run(best, seed, passes, given, True) for seed in range(seeds)]
        rows[name] = [test for _, test in found]
        told = ", ".join(f"{score:.3f}" for score in scores)
        print(f"{name}: validation of the trials {told}; {inline(best[0])}, {inline(best[1])}", flush=True)
        print(f"    test {rows[name]}, {time.perf_counter() - begin:.0f} s", flush=True)
    lines = table(rows, passes)
    print("\n".join(lines))
    if chosen.record:
        record("Learners that ask for losses alone, at equal device passes", lines)


def table(rows: Mapping[str, Sequence[float]], passes: int) -> list[str]:
    ranked = sorted(rows, key=lambda name: -statistics.mean(rows[name]))
    lines = [
        f"| learner, {passes:,} node evaluations each | mean | std | worst | seeds |",
        "|---|---|---|---|---|",
    ]
    for name in ranked:
        tests = rows[name]
        std = statistics.stdev(tests) if len(tests) > 1 else 0.0
        lines.append(f"| {name} | {statistics.mean(tests):.4f} | {std:.4f} | {min(tests):.4f} | {len(tests)} |")
    asked = [name for name in ranked if name in ZEROTH]
    return [*lines, "", f"By losses alone, the best first: {', '.join(asked)}."]


if __name__ == "__main__":
    main()
