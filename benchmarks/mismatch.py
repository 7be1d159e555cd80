"""What a chip that strays from its design costs: learning through it, against weights learned on the ideal twin and deployed.

    python benchmarks/mismatch.py [--quick] [--seeds N] [--first N] [--chips N] [--epochs N] [--noise V] [--hidden N ...]
                                  [--set KEY=VALUE ...] [--split validation] [--jobs N] [--record]

The chip: 10 % spread of thresholds and leaks between neurons, membrane noise. aDFA-SNN learns through the ideal chip and
through the strayed one; BPTT learns on the ideal twin and its weights are then used on strayed chips, several of them, as a
chip is a draw of its own. Same network, same data (MNIST, HIL_DATA), same epochs; the epoch is chosen on validation on the chip
that was learned on, the test split is read once per row and chip; --split validation is for looking for a setting. A loss is
the difference within a seed, in points, with the standard error over seeds. Last line: JSON with the mean accuracies as
fractions, adfa_snn_loss and bptt_loss, their errors, and the p of Welch's test that the losses are alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import scipy.stats
import torch
from recording import record

from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.run import checkpoint
from hil.run.checkpoint import under
from hil.training.loop import evaluate

ROOT = Path(__file__).resolve().parent.parent
STRAY = ("device.threshold_mismatch=0.1", "device.leak_mismatch=0.1")
KEYS = {"test": "test_accuracy", "validation": "validation_accuracy"}  # in summary.json
SAME = ("device.leak=0.5", "learner.time_steps=5", "train.threads=1")
QUICK = ("data.train_examples=4000",)


def train(learner: str, seed: int, folder: Path, sets: tuple[str, ...]) -> Path:
    """A finished run; returns its folder."""
    target = folder / f"{learner}-{seed}-{len(sets)}"
    command = [sys.executable, "-m", "hil", "train", f"experiments/mnist_{learner}.toml", "--run", str(target)]
    extra = ("learner.leak=0.5",) if learner == "bptt" else ()
    options = [f"--set={text}" for text in (f"seed={seed}", *SAME, *extra, *sets)]
    done = subprocess.run(command + options, cwd=ROOT, stdout=sys.stderr, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{learner}, seed {seed}: exit {done.returncode}; hil said why, above")
    return target


def score(run: Path, split: str) -> float:
    found: float = json.loads((run / "summary.json").read_text(encoding="utf-8"))[KEYS[split]]
    return found


def deployed(run: Path, strayed: tuple[str, ...], chip: int, split: str) -> float:
    """Accuracy of the run's best weights on strayed chip number `chip`."""
    experiment = read_experiment(run / "config.toml", (*strayed, f"seed={1000 + chip}"))
    best = checkpoint.load(run / "checkpoints" / "best.json")
    with built(experiment) as made:
        made.training.net.load_state_dict(dict(best.tensors))
        made.training.learner.load_state_dict(under("learner", checkpoint.load(newest(run)).tensors))
        return evaluate(made.training.net, made.training.learner, getattr(made.training.data, split))[0]["accuracy"]


def newest(run: Path) -> Path:
    return checkpoint.latest(run / "checkpoints")


@dataclass(frozen=True)
class Seed:
    """Accuracies of one seed."""

    adfa_snn_ideal: float
    adfa_snn_strayed: float
    bptt_ideal: float
    bptt_deployed: float

    @property
    def losses(self) -> tuple[float, float]:
        """Of aDFA-SNN and of BPTT, points."""
        return 100 * (self.adfa_snn_ideal - self.adfa_snn_strayed), 100 * (self.bptt_ideal - self.bptt_deployed)


def one_seed(seed: int, folder: Path, sets: tuple[str, ...], strayed: tuple[str, ...], chips: int, split: str) -> Seed:
    ideal = train("bptt", seed, folder, sets)
    found = Seed(
        adfa_snn_ideal=score(train("adfa_snn", seed, folder, sets), split),
        adfa_snn_strayed=score(train("adfa_snn", seed, folder, (*sets, *strayed)), split),
        bptt_ideal=score(ideal, split),
        bptt_deployed=statistics.mean(deployed(ideal, strayed, 10 * seed + chip, split) for chip in range(chips)),
    )
    print(f"seed {seed}: {found}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4,000 examples, one epoch, one seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--examples", type=int, help="for training; all of them unless given")
    parser.add_argument("--noise", type=float, default=0.2, help="of the membrane, in thresholds")
    parser.add_argument("--hidden", type=int, nargs="+", default=[800], help="widths of the hidden layers")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in the files of both learners")
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--split", choices=sorted(KEYS), default="test")
    parser.add_argument("--jobs", type=int, default=1, help="seeds side by side, one thread each")
    parser.add_argument("--record", action="store_true", help="append the table to RESULTS.md")
    chosen = parser.parse_args()
    seeds, epochs = (1, 1) if chosen.quick else (chosen.seeds, chosen.epochs)
    examples = (f"data.train_examples={chosen.examples}",) if chosen.examples else ()
    sets = (
        f"network.widths={[784, *chosen.hidden, 10]}",
        f"train.epochs={epochs}",
        *(QUICK if chosen.quick else examples),
        *chosen.set,
    )
    strayed = (*STRAY, f"device.noise={chosen.noise}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(chosen.jobs) as pool:
        each = range(chosen.first, chosen.first + seeds)
        rows = list(pool.map(lambda seed: one_seed(seed, Path(name), sets, strayed, chosen.chips, chosen.split), each))
    losses = [[row.losses[k] for row in rows] for k in (0, 1)]
    errors = [statistics.stdev(each) / math.sqrt(seeds) if seeds > 1 else math.nan for each in losses]
    p = float(scipy.stats.ttest_ind(*losses, equal_var=False).pvalue) if seeds > 1 else math.nan
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in dataclasses.fields(Seed)}
    found: dict[str, object] = {key: statistics.mean(values) for key, values in columns.items()}
    found |= {"adfa_snn_loss": statistics.mean(losses[0]), "adfa_snn_loss_error": errors[0]}
    found |= {"bptt_loss": statistics.mean(losses[1]), "bptt_loss_error": errors[1], "p": p}
    found |= {"seeds": seeds, "epochs": epochs, "chips": chosen.chips, "noise": chosen.noise, "hidden": chosen.hidden}
    found |= {"split": chosen.split, "set": chosen.set}
    if chosen.record:
        lines = [
            f"| {key} | {statistics.mean(v):.4f} | {statistics.stdev(v) if len(v) > 1 else 0:.4f} | {min(v):.4f} |"
            for key, v in columns.items()
        ]
        loss = (
            "Lost by the chip's stray, points with standard error: "
            f"aDFA-SNN {statistics.mean(losses[0]):.2f} ± {errors[0]:.2f}, "
            f"BPTT {statistics.mean(losses[1]):.2f} ± {errors[1]:.2f}; alike with p = {p:.3g} (Welch)."
        )
        head = [f"| MNIST {chosen.split} | mean | std | worst |", "|---|---|---|---|"]
        title = f"Mismatch: 10 % thresholds and leaks, membrane noise {chosen.noise:g}, hidden layers {chosen.hidden}"
        record(title, [*head, *lines, "", f"{seeds} seeds, {chosen.chips} chips each for the deployment. {loss}"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
