"""What a walk of the bias by V_pi / 2 costs, in training and in use, with the sentinel and without it.

    training   aDFA on digits through the noisy modulator, whose bias walks evenly from first step to last; tested at the
               end of the walk, with the weights of the best epoch by validation and with those of the last
    use        weights learned without drift, frozen; examples that nothing was learned from or chosen by, round after round,
               while the bias walks from the first round to the last; the worst round counts
    alarms     training without drift for ALARM_STEPS steps at the real cadence, and as many looks one after the other

The walk is V_pi / 2 by construction: the drift is set to a quarter turn over the virtual time that the same work takes
without drift. The same seed gives the same weights, order and B with and without.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from math import pi
from pathlib import Path
from typing import Any

import torch

from hil.build.shapes.waveform import OnPlant
from hil.build.training import Built, built
from hil.config.experiment import Experiment, experiment_of
from hil.data.dataset import Dataset, Split, load, subset
from hil.errors import MeasurementError
from hil.training.loop import TrainingStep, evaluate, train
from hil.training.session import load_best
from hil.training.use import use

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "experiments" / "digits_drift.toml"
BENCH = ROOT / "benches" / "mzm_awg_scope.toml"
LEARNED, BATCH = 900, 60
SHOT_S, VALUE_S = 5e-3, 10e-9  # of virtual time, see sim_devices/mach_zehnder.py
TABLE: Mapping[str, Any] = {
    "network": {"widths": [64, 100, 100, 10]},
    "device": {"use": "mach_zehnder", "v_pi": "3.5 V"},
    "encode": {"overflow": "fold", "period": "7 V"},
    "learner": {"use": "adfa"},
    "optimizer": {"lr": 3e-3},
    "train": {"epochs": 20, "batch": 64, "threads": 1},
}


@dataclass(frozen=True)
class Size:
    """rounds: of use. alarm_steps: of training without drift, and looks. epochs: of a training."""

    rounds: int
    alarm_steps: int
    epochs: int


FULL, QUICK = Size(200, 10_000, 20), Size(40, 100, 1)


@dataclass(frozen=True)
class Case:
    """drift: rad/s of virtual time. sentinel: it watches."""

    seed: int
    size: Size
    drift: float = 0.0
    sentinel: bool = False

    def experiment(self, device: Mapping[str, Any] | None = None) -> Experiment:
        given = {**TABLE["device"], "drift_rad_per_s": self.drift} if device is None else device
        train = {**TABLE["train"], "epochs": self.size.epochs}
        table = {**TABLE, "seed": self.seed, "device": given, "train": train}
        return experiment_of({**table, "sentinel": {}} if self.sentinel else table, HERE)


def data() -> tuple[Dataset, Split]:
    """Digits with fewer to learn from, and what was left over with the test split, for use."""
    whole = load("digits")
    rest = Split(
        torch.cat([whole.train.x[LEARNED:], whole.test.x]), torch.cat([whole.train.y[LEARNED:], whole.test.y])
    )  # fmt: skip
    return subset(whole, LEARNED), rest


def elapsed_s(made: Built) -> float:
    """Virtual time that the device has spent."""
    return sum(device.count.calls * SHOT_S + device.count.passes * VALUE_S for device in made.training.devices)


def trained(case: Case) -> tuple[float, float, dict[str, torch.Tensor], float]:
    """Test accuracy of the last weights, and of the best by validation; those weights; the virtual time."""
    learned, _ = data()
    with built(case.experiment(), given=learned) as made:
        training = made.training
        for _ in train(training):
            pass
        took_s = elapsed_s(made)
        last, _ = evaluate(training.net, training.learner, training.data.test)
        load_best(training)
        best, _ = evaluate(training.net, training.learner, training.data.test)
        return last["accuracy"], best["accuracy"], dict(training.best.tensors), took_s


def rounds(case: Case, weights: Mapping[str, torch.Tensor], bench: Path | None = None) -> list[float]:
    """Accuracy of each round with frozen weights; fewer if the bench stopped."""
    learned, rest = data()
    device = None if bench is None else {"bench": str(bench)}
    with ExitStack() as stack:
        made = stack.enter_context(built(case.experiment(device), given=learned))
        made.training.net.load_state_dict(dict(weights))
        done: list[float] = []
        try:
            done.extend(each.score for each in islice(use(made.training, rest, BATCH), case.size.rounds))
        except MeasurementError as error:  # an unwatched bench whose markers fade stops by itself
            print(f"stopped in round {len(done) + 1}: {error.what}", flush=True)
        return done


def used_s(case: Case, weights: Mapping[str, torch.Tensor]) -> float:
    """Virtual time of all rounds."""
    learned, rest = data()
    with built(case.experiment(), given=learned) as made:
        made.training.net.load_state_dict(dict(weights))
        before = elapsed_s(made)
        next(use(made.training, rest, BATCH))
        return case.size.rounds * (elapsed_s(made) - before)


def alarms(seed: int, size: Size) -> dict[str, int]:
    """False ones, in steps of a training and in looks."""
    learned, _ = data()
    quiet = Case(seed, size, sentinel=True).experiment()
    long = quiet.model_copy(update={"train": quiet.train.model_copy(update={"epochs": 10**6, "batch": 16})})
    with built(long, given=learned) as made:
        steps = (point for point in train(made.training) if isinstance(point, TrainingStep))
        looks = [point.look for point in islice(steps, size.alarm_steps) if point.look is not None]
        wrong = sum(look.state == "act" or bool(look.did) for look in looks)
        watching = made.training.sentinel
        assert watching is not None
        every = int(str(watching.summary()["every"]))
        more = [watching.after(every * k, 10**6, 10**9) for k in range(1, size.alarm_steps + 1)]
        wrong_looks = sum(look is not None and (look.state == "act" or bool(look.did)) for look in more)
    wrong += wrong_looks
    return {"steps": size.alarm_steps, "looks_in_steps": len(looks), "looks": size.alarm_steps, "false_alarms": wrong}


@dataclass(frozen=True)
class Seed:
    """Drift-free, with the sentinel, without it. last, best: test accuracy after training. use: of each round."""

    last: tuple[float, float, float]
    best: tuple[float, float, float]
    use: tuple[list[float], list[float], list[float]]


def one(seed: int, size: Size) -> Seed:
    free = trained(Case(seed, size))
    weights, rate = free[2], pi / 2 / free[3]
    watched, alone = trained(Case(seed, size, rate, sentinel=True)), trained(Case(seed, size, rate))
    rate = pi / 2 / used_s(Case(seed, size), weights)
    a, b, c = (
        rounds(case, weights) for case in (Case(seed, size), Case(seed, size, rate, sentinel=True), Case(seed, size, rate))
    )
    last, best = ((free[k], watched[k], alone[k]) for k in (0, 1))
    behind = max(x - y for x, y in zip(a, b, strict=True))
    print(f"seed {seed}: {best} {last}; use, worst {min(a):.4f} {min(b):.4f} {min(c):.4f}, behind {behind:.4f}", flush=True)
    return Seed(last, best, (a, b, c))


def served(seed: int, folder: Path, size: Size) -> tuple[list[float], list[float], list[float]]:
    """Use through a bench over HiSLIP: its plant's own drift, and the walk that it really made."""
    weights = trained(Case(seed, size))[2]
    text = BENCH.read_text(encoding="utf-8").replace('v_pi = "3.52 V"', 'v_pi = "3.5 V"')
    found = []
    for name, drift, sentinel in (("free", 0.0, False), ("watched", 1.0, True), ("alone", 1.0, False)):
        rate = drift * pi / 2 / (_served_s(weights, folder, Case(seed, size)) if drift else 1.0)
        path = folder / f"{name}.toml"
        path.write_text(text.replace("drift_rad_per_s = 4e-4", f"drift_rad_per_s = {rate}"), encoding="utf-8")
        found.append(rounds(Case(seed, size, sentinel=sentinel), weights, path))
    return found[0], found[1], found[2]


def _served_s(weights: Mapping[str, torch.Tensor], folder: Path, case: Case) -> float:
    """Virtual time of all rounds, from how far the plant walks in one at a known rate."""
    learned, rest = data()
    path, rate = folder / "rate.toml", 1e-3
    path.write_text(
        BENCH.read_text(encoding="utf-8").replace("drift_rad_per_s = 4e-4", f"drift_rad_per_s = {rate}"), encoding="utf-8"
    )
    with built(case.experiment({"bench": str(path)}), given=learned) as made:
        made.training.net.load_state_dict(dict(weights))
        plant = _plant(made)
        before = plant.control.get("state.0")
        next(use(made.training, rest, BATCH))
        return case.size.rounds * (plant.control.get("state.0") - before) / rate


def _plant(made: Built) -> OnPlant:
    device: Any = made.training.devices[0]
    while not isinstance(device, OnPlant):
        device = device._inner  # through the wrappers, to ask the plant what no learner may know
    return device


def drawn(seeds: Sequence[Seed], path: Path) -> None:
    """The four curves of use, and of training the bars beside them."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(1, 2))
    names = ("no drift", "drift, sentinel", "drift, alone")
    colours = ("#555555", "#1a7f5a", "#b8452f")
    for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
        values = [100 * seed.best[k] for seed in seeds]
        left.bar(k, statistics.mean(values), color=colour, yerr=statistics.stdev(values) if len(values) > 1 else 0.0)
        mean = [100 * statistics.mean(column) for column in zip(*(seed.use[k] for seed in seeds), strict=True)]
        right.plot([90 * (n + 1) / len(mean) for n in range(len(mean))], mean, color=colour, label=name)
    left.set_xticks(range(3), names, rotation=25, ha="right")
    left.set_ylim(0, 100)
    left.set_ylabel("test accuracy (%)")
    left.set_title("walk by V_pi/2 during training", fontsize=10)
    right.set_xlabel("walk of the bias so far (degrees)")
    right.set_ylabel("accuracy (%)")
    right.set_title("frozen weights in use", fontsize=10)
    right.legend(frameon=False)
    fig.savefig(path, dpi=80)


def drift(count: int, size: Size = FULL, figure: Path | None = None) -> tuple[dict[str, object], list[str]]:
    """Figures and the lines of a table, over `count` seeds."""
    torch.set_num_threads(1)
    seeds = [one(seed, size) for seed in range(count)]
    cried = alarms(0, size)
    if figure is not None:
        drawn(seeds, figure)

    def mean(values: Iterator[float]) -> float:
        return round(statistics.mean(values), 4)

    table = ["| | no drift | drift, sentinel | drift, alone |", "|---|---|---|---|"]
    last, best = ([mean(getattr(seed, kind)[k] for seed in seeds) for k in range(3)] for kind in ("last", "best"))
    worst = [mean(min(seed.use[k]) for seed in seeds) for k in range(3)]
    behind = max(a - b for seed in seeds for a, b in zip(seed.use[0], seed.use[1], strict=True))
    table.append("| walk during training, test, weights of the best epoch | " + " | ".join(f"{v:.4f}" for v in best) + " |")
    table.append("| the same, weights of the last epoch | " + " | ".join(f"{v:.4f}" for v in last) + " |")
    table.append("| frozen weights in use, worst round | " + " | ".join(f"{value:.4f}" for value in worst) + " |")
    with tempfile.TemporaryDirectory() as name:
        wires = served(0, Path(name), size)
    stops = ["" if len(each) == size.rounds else f", stopped in round {len(each) + 1}" for each in wires]
    cells = (f"{min(each):.4f}{stop}" for each, stop in zip(wires, stops, strict=True))
    table.append("| the same over HiSLIP, seed 0 | " + " | ".join(cells) + " |")
    figures: dict[str, object] = {
        "drift_seeds": count,
        "drift_free": worst[0], "drift_with_sentinel": worst[1], "drift_without_sentinel": worst[2],
        "drift_most_behind": round(behind, 4),
        "drift_training_best": best, "drift_training_last": last,
        "drift_served": [round(min(each), 4) for each in wires], "drift_served_rounds": [len(each) for each in wires],
        "false_alarms": cried["false_alarms"], "alarm_steps": cried["steps"], "alarm_looks": cried["looks"],
    }  # fmt: skip
    return figures, table
