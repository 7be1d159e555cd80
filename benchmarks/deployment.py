"""In silico against in the loop: the same network, four ways to its weights, all used on the same hidden bench.

    data sheet     backpropagation in the twin that the data sheet describes
    calibrated     backpropagation in the twin that the calibration of this bench found
    PAT            forward on the bench, backward through the calibrated twin
    aDFA           on the bench, no twin at all

Benches are specimens whose parameters nobody reads (hidden_benches.py), served over HiSLIP. Zero and scale of a reading are
measured on the bench in every case. Accuracy is on examples that nothing was learned from or chosen by.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
import torch
from drift import FULL, HERE, TABLE, data
from hidden_benches import BENCH, calibrate

from hil.build.training import built
from hil.config.experiment import Experiment, experiment_of
from hil.config.read import read_toml
from hil.training.loop import evaluate, train
from hil.training.session import load_best

EPOCHS = FULL.epochs
WAYS = ("data sheet", "calibrated", "PAT", "aDFA")
TWIN = "sim_devices.mach_zehnder:MachZehnder"


def learned(learner: str, device: Mapping[str, Any], seed: int, epochs: int) -> dict[str, torch.Tensor]:
    """The best weights by validation."""
    examples, _ = data()
    with built(_experiment(learner, device, seed, epochs), given=examples) as made:
        for _ in train(made.training):
            pass
        load_best(made.training)
        return {name: value.clone() for name, value in made.training.net.state_dict().items()}


def deployed(weights: Mapping[str, torch.Tensor], bench: Path, seed: int) -> float:
    """Accuracy on the bench."""
    examples, held = data()
    with built(_experiment("adfa", {"bench": str(bench)}, seed), given=examples) as made:
        made.training.net.load_state_dict(dict(weights))
        return evaluate(made.training.net, made.training.learner, held)[0]["accuracy"]


def _experiment(learner: str, device: Mapping[str, Any], seed: int, epochs: int = EPOCHS) -> Experiment:
    train = {**TABLE["train"], "epochs": epochs}
    return experiment_of({**TABLE, "seed": seed, "device": dict(device), "learner": {"use": learner}, "train": train}, HERE)


def one(number: int, folder: Path, epochs: int = EPOCHS) -> dict[str, float] | None:
    """Accuracies on hidden bench `number` by way; None if it could not be calibrated."""
    found = calibrate(number)
    if not found.good:
        return None
    sheet = {key: value for key, value in read_toml(BENCH)["twin"].items() if key != "use"}
    fitted = {**sheet, **{p.name: p.estimate.value for p in found.parameters if p.name != "delay_s"}}
    fitted = {key: value for key, value in fitted.items() if key != "v_pi"}
    bench = folder / f"bench-{number}.toml"
    table = read_toml(BENCH)
    virtual = {**table["virtual"], "specimen": number, "seed": number}
    bench.write_text(tomli_w.dumps({**table, "virtual": virtual, "twin": {"use": TWIN, **fitted}}), encoding="utf-8")
    still = {key: value for key, value in fitted.items() if not key.startswith("drift")}
    weights = {
        "data sheet": learned("backprop", {"use": TWIN, **sheet}, number, epochs),
        "calibrated": learned("backprop", {"use": TWIN, **still}, number, epochs),
        "PAT": learned("pat", {"bench": str(bench)}, number, epochs),
        "aDFA": learned("adfa", {"bench": str(bench)}, number, epochs),
    }
    scores = {way: deployed(weights[way], bench, number) for way in WAYS}
    print(f"bench {number}: " + ", ".join(f"{way} {score:.4f}" for way, score in scores.items()), flush=True)
    return scores


def summary(benches: list[dict[str, float]]) -> tuple[dict[str, object], list[str]]:
    """Figures and a table."""
    rows = ["| weights from | mean | std | worst | benches |", "|---|---|---|---|---|"]
    figures: dict[str, object] = {}
    for way in WAYS:
        values = [bench[way] for bench in benches]
        mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append(f"| {way} | {mean:.4f} | {spread:.4f} | {min(values):.4f} | {len(values)} |")
        figures[f"deployed_{way.lower().replace(' ', '_')}"] = round(mean, 4)
    return figures, rows


def drawn(benches: list[dict[str, float]], path: Path) -> None:
    """A dot a bench, a column a way."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(5, 3.2), layout="constrained")
    axes = fig.add_subplot()
    for k, bench in enumerate(benches):
        axes.plot(range(len(WAYS)), [100 * bench[way] for way in WAYS], "o-", lw=0.7, ms=5, label=f"bench {k}")
    axes.set_xticks(range(len(WAYS)), [f"in silico,\n{way}" if way in WAYS[:2] else f"in the loop,\n{way}" for way in WAYS])
    axes.set_ylabel("accuracy on the bench (%)")
    axes.legend(frameon=False, fontsize=8)
    fig.savefig(path, dpi=80)
