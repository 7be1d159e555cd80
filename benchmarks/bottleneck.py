"""Is the instrument the bottleneck? Training on virtual benches that are as slow as real ones.

    python benchmarks/bottleneck.py [--quick]
    python benchmarks/bottleneck.py --averages [--quick]     16 averages of a record: by the computer, and by the scope

    wall_vs_bound           wall time of an epoch over max( instrument, host ), both of the same training with whole batches:
                            the seconds in which it waited for an instrument, and the rest
    predicted_vs_achieved   wall time of an epoch as `hil doctor EXPERIMENT` predicts it, over what it took
    duty                    share of the wall time in which an instrument worked

    declared_s              of an epoch: what the figures of the timing alone make, without the time of the simulation, its
                            wires and a busy machine, all of which `instrument_s` has; where the figures are given

One training a bench, by aDFA on the digits that hil ships; into how many pieces a batch is cut is what hil chose when it began,
and in every second epoch 1, so that a busy machine slows both alike. Figures are medians over epochs; the last line is one
JSON object: the worst of the benches, and each of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from drivers.waveform.device import Stats
from hil import toml
from hil.build.shapes.waveform import WaveformBench
from hil.build.training import Built, built
from hil.commands.forecast import measured, stats_of
from hil.config.experiment import experiment_of
from hil.training.loop import Epoch, train

ROOT = Path(__file__).resolve().parents[1]
TABLED = {"arm": "10 ms", "trigger": "10 ms", "up": "10 MB/s", "down": "5 MB/s"}
CASES: Mapping[str, tuple[str, Any, list[int], int]] = {  # bench file, timing, widths, batch
    "20 ms, 10 MB/s up, 5 MB/s down; 64-400-400-10, batch 256": ("mzm_awg_scope", TABLED, [64, 400, 400, 10], 256),
    "the same; 64-800-800-10, batch 480": ("mzm_awg_scope", TABLED, [64, 800, 800, 10], 480),
    "siglent_rigol, typical; 64-200-200-10, batch 128": ("siglent_rigol", "typical", [64, 200, 200, 10], 128),
}
AVERAGED = ("afg_mso", TABLED, [64, 100, 100, 10], 128)
FLOORS = {"wall_vs_bound": (0.0, 1.1), "predicted_vs_achieved": (0.85, 1.15), "duty": (0.9, 1.0)}


@dataclass(frozen=True)
class Spent:
    """An epoch: its seconds, those in which an instrument worked, and what the instruments did."""

    wall_s: float
    bench_s: float
    did: Mapping[str, float]

    def declared_s(self, plays: int) -> float:
        """Seconds that it would have taken by TABLED alone, one record after the other, each played so often."""
        did = self.did
        moved_s = did["bytes_up"] / 10e6 + did["bytes_down"] / 5e6
        return moved_s + 10e-3 * (1 + plays) * did["records"] + did["played_s"]


def waited_s(stats: Stats) -> float:
    """Seconds in which an instrument worked; an upload behind a read counts once."""
    return stats.upload_s + stats.wait_s + stats.read_s + stats.settings_s


def epochs_of(made: Built, rounds: int) -> tuple[list[Spent], list[Spent]]:
    """Train in turn as hil chose and with whole batches, so many epochs each."""
    training, (device, *_) = made.training, made.training.devices
    ways, found = (training.net.pieces, 1), (list[Spent](), list[Spent]())
    which: int | None = None
    mark, before = time.perf_counter(), Stats()
    for point in train(training):
        if not isinstance(point, Epoch):
            continue
        stats = stats_of(device)
        assert stats is not None
        now = time.perf_counter()
        if which is not None:
            did = {name: getattr(stats, name) - getattr(before, name) for name in Stats.__dataclass_fields__}
            found[which].append(Spent(now - mark, waited_s(stats) - waited_s(before), did))
        if all(len(one) >= rounds for one in found):
            break
        which = 0 if which is None else 1 - which
        training.net.pieces, before, mark = ways[which], stats, time.perf_counter()
    training.net.pieces = ways[0]
    return found


def case(bench: str, timing: Any, widths: list[int], batch: int, rounds: int, folder: Path, **record: object) -> dict[str, Any]:
    """Measure one bench. record: settings of [waveform] besides those of its file."""
    table = toml.loads((ROOT / "benches" / f"{bench}.toml").read_text("utf-8"))
    table["virtual"]["timing"] = timing
    table["waveform"] |= record
    (folder / "bench.toml").write_text(tomli_w.dumps(table), "utf-8")
    experiment = experiment_of({
        "data": {"use": "digits"}, "network": {"widths": widths}, "device": {"bench": "bench.toml"},
        "encode": {"gain": "1.0 V", "overflow": "fold", "period": "7.04 V"}, "learner": {"use": "adfa"},
        "optimizer": {"use": "Adam", "lr": 2e-3}, "train": {"epochs": 1000, "batch": batch},
    }, folder / "experiment.toml")  # fmt: skip
    with built(experiment, fresh=True) as made:
        forecast = measured(made)
        cut, whole = epochs_of(made, rounds)
        pieces = made.training.net.pieces or 1
    if pieces == 1:  # there is no difference between them
        cut = whole = [*cut, *whole]
    wall_s = statistics.median(one.wall_s for one in cut)
    instrument_s = statistics.median(one.bench_s for one in whole)
    host_s = statistics.median(one.wall_s - one.bench_s for one in whole)
    declared: dict[str, float] = {}
    if timing is TABLED and isinstance(experiment.bench, WaveformBench):
        alone = [one.declared_s(experiment.bench.record.plays) for one in whole]
        declared = {"declared_s": round(statistics.median(alone), 3)}
    return {
        "wall_vs_bound": round(wall_s / max(instrument_s, host_s), 3),
        "predicted_vs_achieved": round(forecast.epoch_s / wall_s, 3),
        "duty": round(statistics.median(one.bench_s / one.wall_s for one in cut), 3),
        "pieces": pieces,
        "epoch_s": round(wall_s, 3),
        "whole_s": round(statistics.median(one.wall_s for one in whole), 3),
        "instrument_s": round(instrument_s, 3),
        "host_s": round(host_s, 3),
        **declared,
        "bottleneck": forecast.bottleneck,
    }


def averages(rounds: int) -> None:
    """Measure one bench with 16 averages of each record, by the computer and by the oscilloscope."""
    for way in ("host", "scope"):
        with tempfile.TemporaryDirectory() as folder:
            found = case(*AVERAGED, rounds, Path(folder), averages=16, averaged_by=way)
        print(f"  averaged_by = {way}: {json.dumps(found)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 epochs each way instead of 9")
    parser.add_argument("--averages", action="store_true", help="16 averages, by the computer and by the oscilloscope")
    asked = parser.parse_args()
    rounds = 3 if asked.quick else 9
    if asked.averages:
        averages(rounds)
        return
    found = {}
    for name, (bench, timing, widths, batch) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = case(bench, timing, widths, batch, rounds, Path(folder))
        print(f"  {name}: {json.dumps(found[name])}", flush=True)
    worst = {
        "wall_vs_bound": max(one["wall_vs_bound"] for one in found.values()),
        "predicted_vs_achieved": max(
            (one["predicted_vs_achieved"] for one in found.values()), key=lambda ratio: abs(ratio - 1)
        ),
        "duty": min(one["duty"] for one in found.values()),
    }
    versions = {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy", "pyvisa-py")}}
    print(json.dumps({**worst, "benches": found, "epochs": rounds, "versions": versions}))
    missed = [
        f"{name} {worst[name]}: {low} to {high}" for name, (low, high) in FLOORS.items() if not low <= worst[name] <= high
    ]
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
