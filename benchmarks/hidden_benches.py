"""Benches whose specimens the calibration does not know: served over HiSLIP, calibrated blind, then held against the truth.

    pull = (estimate - truth) / sigma           a parameter is recovered within 1 % or 3 sigma
    coverage = share of |pull| <= 1             0.683 if sigmas are what they say and errors are normal

The truth comes over the control port after the last step: of the bias the phase as it is then, since it drifts.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.fault import problem_of
from calibration.sequence import Subject, calibrated
from calibration.step import Estimate, Step
from calibration.waveform.sequence import waveform
from hil.build.bench import open_bench
from hil.build.shapes.waveform import OnPlant
from hil.config.bench import BenchFile, bench_of
from hil.config.read import read_toml
from hil.devices.recovery import Ladder
from hil.devices.resilient import resilient
from hil.errors import MeasurementError
from hil.twin import Fittable
from sim_devices.bench.control import ControlClient

BENCH = Path(__file__).resolve().parent.parent / "benches" / "mzm_awg_scope.toml"
TRUTH = {"phase_rad": "state.0", "delay_s": "cable.delay_s"}
RELATIVE, SIGMAS = 0.01, 3.0


@dataclass(frozen=True)
class Parameter:
    """One parameter of one bench."""

    name: str
    estimate: Estimate
    truth: float

    @property
    def pull(self) -> float:
        return (self.estimate.value - self.truth) / self.estimate.sigma

    @property
    def recovered(self) -> bool:
        off = abs(self.estimate.value - self.truth)
        return off <= max(RELATIVE * abs(self.truth), SIGMAS * self.estimate.sigma)


@dataclass(frozen=True)
class Bench:
    """A calibrated bench: its steps, and every parameter beside its truth; none if the twin was not fitted."""

    number: int
    steps: tuple[Step, ...]
    parameters: tuple[Parameter, ...]
    took_s: float

    @property
    def good(self) -> bool:
        return all(step.good for step in self.steps)


def hidden(number: int, path: Path = BENCH) -> BenchFile:
    """The bench of a file, with specimen and noise of this number."""
    table = read_toml(path)
    return bench_of({**table, "virtual": {**table["virtual"], "specimen": number, "seed": number}}, path)


def calibrate(number: int, path: Path = BENCH) -> Bench:
    """Open bench `number`, do the waveform steps blind, then ask what is true. A bench that cannot be measured is a bad one."""
    try:
        return _calibrated(number, path)
    except MeasurementError as error:
        step = Step("open", error.what, success=(False,), problems=(problem_of(error),))
        return Bench(number, (step,), (), 0.0)


def _calibrated(number: int, path: Path) -> Bench:
    with open_bench(hidden(number, path)) as opened:
        assert isinstance(opened.device, OnPlant)
        assert opened.twin is not None
        nominal: object = opened.twin.choice.build()
        assert isinstance(nominal, Fittable)
        began = time.perf_counter()
        steps = tuple(calibrated(waveform(), Subject(resilient(opened.device, Ladder), nominal, number)))
        took_s = time.perf_counter() - began
        return Bench(number, steps, tuple(_held_against(steps, opened.device.control)), took_s)


def _held_against(steps: Sequence[Step], plant: ControlClient) -> Iterator[Parameter]:
    by_name = {step.name: step for step in steps}
    found = {**by_name["twin"].estimates, **{n: e for n, e in by_name["delay"].estimates.items() if n == "delay_s"}}
    for name, estimate in found.items():
        yield Parameter(name, estimate, plant.get(TRUTH.get(name, f"node.{name}")))


def table(benches: Sequence[Bench]) -> list[str]:
    """Per parameter: recovered, coverage, pulls, median sigma."""
    rows = [
        "| parameter | recovered | within 1 sigma | pull: mean | std | worst | median sigma |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(p.name for b in benches for p in b.parameters):
        each = [p for b in benches for p in b.parameters if p.name == name]
        pulls = [p.pull for p in each]
        sigma = Estimate(0.0, statistics.median(p.estimate.sigma for p in each), each[0].estimate.unit)
        spread = statistics.stdev(pulls) if len(pulls) > 1 else 0.0
        rows.append(
            f"| {name} | {sum(p.recovered for p in each)}/{len(each)} | {coverage(each):.0%} | {statistics.mean(pulls):+.2f} "
            f"| {spread:.2f} | {max(pulls, key=abs):+.2f} | {str(sigma).split('± ')[1]} |"
        )
    return rows


def coverage(parameters: Sequence[Parameter]) -> float:
    """Share within one sigma."""
    return sum(abs(p.pull) <= 1 for p in parameters) / max(1, len(parameters))


def summary(benches: Sequence[Bench]) -> dict[str, object]:
    """benches, recovered, coverage_1sigma, pull_std, chi2_worst (farthest from 1), seconds a bench."""
    every = [p for b in benches for p in b.parameters]
    chi2 = [step.figures["chi2"] for b in benches for step in b.steps if step.name == "twin" and "chi2" in step.figures]
    return {
        "benches": len(benches),
        "good": sum(b.good for b in benches),
        "recovered": sum(bool(b.parameters) and b.good and all(p.recovered for p in b.parameters) for b in benches),
        "coverage_1sigma": round(coverage(every), 4),
        "pull_std": round(math.sqrt(statistics.mean(p.pull**2 for p in every)), 3) if every else None,
        "chi2_worst": round(max(chi2, key=lambda c: abs(c - 1)), 3) if chi2 else None,
        "seconds_mean": round(statistics.mean(b.took_s for b in benches), 2),
        "seconds_worst": round(max(b.took_s for b in benches), 2),
    }
