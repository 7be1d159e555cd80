"""What a chip that strays from its design costs: learning through it, against weights learned on the ideal twin and deployed.

    python benchmarks/mismatch.py [--quick] [--seeds N] [--epochs N] [--record]

The chip: 10 % spread of thresholds and leaks between neurons, membrane noise. aDFA-SNN learns through the ideal chip and
through the strayed one; BPTT learns on the ideal twin and its weights are then used on the strayed chip. Same network, same
data (MNIST, HIL_DATA), same epochs; the epoch is chosen on validation on the chip that was learned on, the test split is read
once per row. Last line: JSON with the mean test accuracies as fractions, and adfa_snn_loss and bptt_loss in points.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from recording import record

from hil.config import read_experiment
from hil.experiment import built
from hil.run import checkpoint
from hil.run.checkpoint import under
from hil.run.loop import evaluate

ROOT = Path(__file__).resolve().parent.parent
STRAYED = ("device.threshold_mismatch=0.1", "device.leak_mismatch=0.1", "device.noise=0.05")
SAME = ("network.widths=[784, 800, 10]", "device.leak=0.5", "learner.time_steps=5", "train.threads=1")
QUICK = ("data.train_examples=4000",)


def train(learner: str, seed: int, folder: Path, sets: tuple[str, ...]) -> Path:
    """A finished run; returns its folder."""
    target = folder / f"{learner}-{seed}-{len(sets)}"
    command = [sys.executable, "-m", "hil", "train", f"experiments/mnist_{learner}.toml", "--run", str(target)]
    extra = ("learner.leak=0.5",) if learner == "bptt" else ()
    options = [f"--set={text}" for text in (f"seed={seed}", *SAME, *extra, *sets)]
    subprocess.run(command + options, cwd=ROOT, check=True, stdout=sys.stderr, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return target


def score(run: Path) -> float:
    found: float = json.loads((run / "summary.json").read_text())["test_accuracy"]
    return found


def deployed(run: Path) -> float:
    """Test accuracy of the run's best weights on a strayed chip."""
    experiment = read_experiment(run / "config.toml", STRAYED)
    best = checkpoint.load(run / "checkpoints" / "best.json")
    with built(experiment, run / "config.toml") as made:
        made.training.net.load_state_dict(dict(best.tensors))
        made.training.learner.load_state_dict(under("learner", checkpoint.load(newest(run)).tensors))
        return evaluate(made.training.net, made.training.learner, made.training.data.test)[0]["accuracy"]


def newest(run: Path) -> Path:
    return checkpoint.latest(run / "checkpoints")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4,000 examples, one epoch, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="append the table to RESULTS.md")
    chosen = parser.parse_args()
    seeds, epochs = (1, 1) if chosen.quick else (chosen.seeds, chosen.epochs)
    sets = (f"train.epochs={epochs}", *(QUICK if chosen.quick else ()))
    rows: dict[str, list[float]] = {"adfa_snn_ideal": [], "adfa_snn_strayed": [], "bptt_ideal": [], "bptt_deployed": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(seeds):
            rows["adfa_snn_ideal"].append(score(train("adfa_snn", seed, folder, sets)))
            rows["adfa_snn_strayed"].append(score(train("adfa_snn", seed, folder, (*sets, *STRAYED))))
            ideal = train("bptt", seed, folder, sets)
            rows["bptt_ideal"].append(score(ideal))
            rows["bptt_deployed"].append(deployed(ideal))
    found: dict[str, float] = {key: statistics.mean(values) for key, values in rows.items()}
    found["adfa_snn_loss"] = 100 * (found["adfa_snn_ideal"] - found["adfa_snn_strayed"])
    found["bptt_loss"] = 100 * (found["bptt_ideal"] - found["bptt_deployed"])
    found |= {"seeds": seeds, "epochs": epochs}
    if chosen.record:
        lines = [
            f"| {key} | {statistics.mean(v):.4f} | {statistics.stdev(v) if len(v) > 1 else 0:.4f} | {min(v):.4f} |"
            for key, v in rows.items()
        ]
        loss = f"Lost by the chip's stray, points: aDFA-SNN {found['adfa_snn_loss']:.2f}, BPTT {found['bptt_loss']:.2f}."
        head = ["| MNIST test | mean | std | worst |", "|---|---|---|---|"]
        record("Mismatch: 10 % thresholds and leaks, membrane noise 0.05", [*head, *lines, "", f"{seeds} seeds. {loss}"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
