"""Nodes with memory: NARMA10, equalisation of a channel and memory of a simulated delay loop, and its speed beside reservoirpy.

    python benchmarks/memory.py [--quick] [--record] [--peer PYTHON] [--seeds N] [--only NAME ...]

narma10_50, narma10_200    test NRMSE of experiments/narma10_delay_loop.toml, 50 and 200 virtual nodes; seeds of mask and series
narma10_50_noisy           the same with a detection noise of 1e-3 of the full scale
narma10_bench_vs_twin      test NRMSE of experiments/narma10_bench.toml (10-bit oscilloscope, detection noise) over that of the
                           same loop called directly with the same noise, mask and series; "bench" and "twin" by themselves
narma10_50_trained, narma10_50_noisy_trained    both with masks that were trained: by bptt_memory, by pat_memory
ser_28db                   share of the symbols read wrong behind a nonlinear channel, 28 dB, 50 nodes
ser_28db_fibre             the same by a coherent fibre loop, experiments/channel_fibre_loop.toml
vowels, digits_wires       test accuracy of experiments/vowels_delay_loop.toml, and of digits_memristive_network.toml
digits_phyll               test accuracy of experiments/digits_phyll_delay_loop.toml
digits_ff                  test accuracy of experiments/digits_ff_delay_loop.toml; digits_ff_head: of its head over masks as
                           drawn; digits_ff_open: with an open loop, so without memory; digits_ff_wire: with a linear node
                           without memory
mnist_rows                 test accuracy of experiments/mnist_rows_delay_loop.toml; needs MNIST, and is left out unless named
capacity_over_rcbench      capacities of degree 1 and 2 of the loop of 50 nodes by hil memory over those that RCbench finds in
                           the same 5,000 states, on the last fifth of them and without a threshold
memory_over_theory         memory capacity of a linear loop over what its equations give, with a detection noise of 1e-4
deep_mnist_twin, ...       a deep reservoir by aDFA: the rows of benchmarks/deep_reservoir.py, whose long runs it goes on with;
                           only if they are asked for, and without others
loop_vs_reservoirpy        nodes times steps a second, 32 sequences in a loop of 50 nodes with a low-pass over a reservoir of
                           reservoirpy with as many nodes; by_case: other batches and nodes

PYTHON has reservoirpy and RCbench: without --peer an environment of its own is made under .venv/ on first use. Every figure
is a mean over seeds, with the standard deviation and the worst. The last line is one JSON object. Ratios of times: rounds of
both in turn, median of the rounds' ratios, of processor time with one thread each, so that other work on the machine does not
count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import deep_reservoir
import numpy as np
import torch
from peers import Peer
from recording import record
from torch import Tensor

from hil.build.shapes.waveform import WaveformBench
from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.learners.reservoir import Reservoir
from hil.memory import capacity as capacities
from hil.metric import METRICS
from hil.seeding import generator
from hil.training.loop import evaluate, train
from hil.training.session import load_best
from sim_devices.delay_loop import DelayLoop
from sim_devices.simulated import Simulated

HERE = Path(__file__).resolve().parent
EXPERIMENTS = HERE.parent / "experiments"
NARMA, ON_BENCH, FF = "narma10_delay_loop.toml", "narma10_bench.toml", "digits_ff_delay_loop.toml"
PEERS = HERE.parent / ".venv" / "memory_peers"
PACKAGES = (
    "reservoirpy==0.4.2", "rcbench==1.0.10", "numpy", "scipy", "joblib", "cloudpickle", "loky", "threadpoolctl", "scikit-learn",
    "pandas", "python-dateutil", "six", "tzdata", "pytz", "narwhals", "matplotlib", "contourpy", "cycler", "fonttools",
    "kiwisolver", "packaging", "pillow", "pyparsing",
)  # fmt: skip
TWO_HUNDRED = (
    "network.widths=[1, 200, 1]", 'network.levels="uniform"', "network.offset=0.5", "device.nodes=200", "device.gain=0.533",
    'device.delay_s="21.7 us"', 'device.phase="1.48 rad"', 'encode.gain="0.24 V"',
)  # fmt: skip
NOISY = (
    "device.noise=1e-3", 'network.levels="uniform"', "network.offset=0.16", 'device.delay_s="5.7 us"', "device.gain=0.564",
    'device.phase="1.875 rad"', 'encode.gain="0.47 V"',
)  # fmt: skip
DESCENT = ("train.epochs=80", "train.batch=4", "optimizer.lr=0.1", "schedule.use=cosine")
TRAINED = ("learner.use=bptt_memory", "learner.penalty=1e-6", *DESCENT)
NOISY_TRAINED = (*NOISY, "learner.use=pat_memory", "learner.penalty=1e-4", *DESCENT)
OPEN = ("device.gain=0.0", 'learner.g={family="sine", frequency=0.9, phase=1.68}')
WIRE = (
    'device={use="delay_loop", nodes=100, nonlinearity="linear", gain=0.0, scale="1 V"}', "decode={zero=0.0, scale=1.0}",
    'learner.g={family="constant"}', "learner.sharpness=4.0",
)  # fmt: skip
CHANNEL = (
    'data.use="channel_equalisation"', 'data.targets="numbers"', "data.number=60", "data.steps=2000", "data.split.test=0.8",
    "data.split.validation=0.1", "task.washout=100", 'task.metric=["symbol_error_rate", "nrmse"]',
    'network.levels="uniform"', "network.offset=1.0", 'device.delay_s="6.7 us"', "device.gain=0.1", 'device.phase="0.6 rad"',
    'encode.gain="0.15 V"',
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """A score over seeds: of an experiment with other settings.

    Args:
        overrides: of the experiment.
        metric: its name.
        file: of the experiment.
        made: the data have a seed.
    """

    overrides: tuple[str, ...] = ()
    metric: str = "nrmse"
    file: str = NARMA
    made: bool = True

    @property
    def worst(self) -> Callable[[Sequence[float]], float]:
        return METRICS[self.metric].worst

    def of(self, seed: int) -> float:
        """The test score: mask, series and noise of this seed."""
        return score(seed, self.overrides, self.metric, self.file, self.made)


SCORES = {
    "narma10_50": Score(),
    "narma10_200": Score(TWO_HUNDRED),
    "narma10_50_noisy": Score(NOISY),
    "narma10_50_trained": Score(TRAINED),
    "narma10_50_noisy_trained": Score(NOISY_TRAINED),
    "ser_28db": Score(CHANNEL, "symbol_error_rate"),
    "ser_28db_fibre": Score((), "symbol_error_rate", "channel_fibre_loop.toml"),
    "vowels": Score((), "accuracy", "vowels_delay_loop.toml"),
    "digits_wires": Score((), "accuracy", "digits_memristive_network.toml", False),
    "digits_phyll": Score((), "accuracy", "digits_phyll_delay_loop.toml", False),
    "digits_ff": Score((), "accuracy", FF, False),
    "digits_ff_head": Score(('learner.g={family="constant", value=0.0}', "learner.readout=head"), "accuracy", FF, False),
    "digits_ff_open": Score(OPEN, "accuracy", FF, False),
    "digits_ff_wire": Score(WIRE, "accuracy", FF, False),
    "mnist_rows": Score((), "accuracy", "mnist_rows_delay_loop.toml", False),
}
SPEED, THEORY, MEASURES, BENCH = "loop_vs_reservoirpy", "memory_over_theory", "capacity_over_rcbench", "narma10_bench_vs_twin"
NAMES = [*SCORES, THEORY, MEASURES, BENCH, SPEED]
USUAL = [name for name in NAMES if name != "mnist_rows"]


def score(seed: int, overrides: tuple[str, ...], metric: str, file: str = NARMA, made: bool = True) -> float:
    """The test score of the experiment with other settings: mask, series and noise of this seed."""
    data = [f"data.seed={seed}"] if made else []
    experiment = read_experiment(EXPERIMENTS / file, [f"seed={seed}", *data, *overrides])
    with built(experiment) as found:
        training = found.training
        for _ in train(training):
            pass
        load_best(training)
        return evaluate(training.net, training.learner, training.data.test, task=training.task)[0][metric]


def memory(seed: int, nodes: int, steps: int, noise: float = 1e-4) -> float:
    """Memory capacity of a linear loop over what its equations give."""
    overrides = (
        'data.use="memory_capacity"', f"data.delays={3 * nodes}", f"data.steps={steps}", 'task.metric="memory_capacity"',
        f"network.widths=[1, {nodes}, {3 * nodes}]", 'network.levels="uniform"', "network.offset=0.0", 'encode.gain="3.5 V"',
        f"device.nodes={nodes}", 'device.nonlinearity="linear"', "device.gain=0.95", f'device.delay_s="{(nodes + 1) / 10} us"',
        f"device.noise={noise}", "device.low=-350.0", "device.high=350.0",
    )  # fmt: skip
    experiment = read_experiment(EXPERIMENTS / NARMA, [f"seed={seed}", f"data.seed={seed}", *overrides])
    with built(experiment) as made:
        mask, device = made.training.net.stack[0].synapse, made.training.devices[0]
        spread = noise * float(device.spec.outputs.high) / 1.25
        theory = capacity(mask.weight.detach()[:, 0].double(), 0.95, nodes + 1, spread, 3 * nodes)
    return score(seed, overrides, "memory_capacity") / theory


def bench_over_twin(seeds: int) -> dict[str, dict[str, float]]:
    """Scores over the wire of the virtual bench, of its loop called directly, and the ratio of the two, seed by seed."""
    bench = read_experiment(EXPERIMENTS / ON_BENCH).bench
    assert isinstance(bench, WaveformBench)
    assert bench.virtual is not None
    node = bench.virtual.node.settings()
    direct = [f"device.{key}={json.dumps(value)}" for key, value in node.items()]
    same = ('network.levels="uniform"', "network.offset=0.16", 'encode.gain="0.47 V"', *direct)
    wire = [score(seed, (), "nrmse", ON_BENCH) for seed in range(seeds)]
    twin = [score(seed, same, "nrmse") for seed in range(seeds)]
    ratio = [one / other for one, other in zip(wire, twin, strict=True)]
    return {name: over(seeds, values.__getitem__) for name, values in (("bench", wire), ("twin", twin), ("ratio", ratio))}


def capacity(mask: Tensor, gain: float, delay: int, noise: float, delays: int) -> float:
    """Sum over delays k of c_k^T C^-1 c_k, for nodes r = sum_k c_k u(t - k) + noise and white u of variance 1/3.

    A node hears what was in the loop `delay` samples ago, so c_k follows from c_{k-1}: the same samples, later by the delay.
    """
    nodes = len(mask)
    history = torch.zeros(delay + nodes, dtype=torch.float64)
    responses = []
    for k in range(20 * delays):
        history = history.roll(-nodes)
        for node in range(nodes):
            history[delay + node] = gain * history[node] + (mask[node] if k == 0 else 0.0)
        responses.append(history[delay:].clone())
    c = torch.stack(responses, 1) * (1 / 3) ** 0.5
    cov = c @ c.t() + noise**2 * torch.eye(nodes, dtype=torch.float64)
    return float((c * torch.linalg.solve(cov, c)).sum(0)[1 : delays + 1].sum())


def measures(seed: int, python: Path, steps: int = 5000, delays: tuple[int, int] = (40, 15)) -> tuple[float, float]:
    """Capacities of degree 1 and 2 over those of RCbench, whose delays begin at 1."""
    u = torch.rand(steps + delays[0], generator=generator(seed, 0, "capacity input"), dtype=torch.float64) * 2 - 1
    experiment = read_experiment(EXPERIMENTS / NARMA, [f"seed={seed}", "data.steps=250"])
    with built(experiment) as made:
        learner = made.training.learner
        assert isinstance(learner, Reservoir)
        states = learner.trace(made.training.net, (0.25 * (u + 1)).float().view(1, -1, 1)).inputs[-1][delays[0] :, 0]
    ours = capacities.capacity(states, u[:-1], (delays[0] - 1, delays[1] - 1)).by_degree
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "states.npz"
        np.savez(path, u=u[delays[0] :].numpy(), states=states.numpy())
        command = [str(python), str(HERE / "memory_measures_peer.py"), str(path), *map(str, delays)]
        told = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    one, two = json.loads(told.stdout.splitlines()[-1])
    return ours[1] / one, ours[2] / two


def peer_python() -> Path:
    """The Python of the peer's environment; made if it is not there."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "ready").exists():
        venv.create(PEERS, with_pip=False, clear=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", *PACKAGES]
        subprocess.run(pip, check=True)
        (PEERS / "ready").touch()
    return python


def loop_seconds(device: Simulated, drive: Tensor) -> float:
    device.reset()
    start = time.process_time()
    device.forward(drive)
    return time.process_time() - start


def speed(python: Path, nodes: int, rounds: int) -> dict[str, float]:
    """Nodes times steps a second of the loop over those of the peer, by batch and low-pass; medians of the rounds."""
    steps, ratios = 1000, dict[str, list[float]]()
    cases = {
        f"{nodes} nodes, batch {batch}{', low-pass' * (hertz > 0)}": (
            Simulated(DelayLoop(nodes=nodes, lowpass_hz=hertz)),
            batch,
        )
        for batch in (1, 32, 128)
        for hertz in (0.0, 2e6)
    }
    with Peer("memory_peer.py", nodes, python=python) as child:
        for number in range(rounds + 1):
            theirs = nodes * 4000 / child.ask(4000)
            for name, (device, batch) in cases.items():
                drive = torch.rand(steps, batch, nodes, generator=generator(0, number, "drive"))
                ratios.setdefault(name, []).append(nodes * steps * batch / loop_seconds(device, drive) / theirs)
    return {name: round(statistics.median(found[1:]), 2) for name, found in ratios.items()}


def over(seeds: int, one: Callable[[int], float], worst: Callable[[Sequence[float]], float] = max) -> dict[str, float]:
    found = [one(seed) for seed in range(seeds)]
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    return {"mean": round(statistics.mean(found), 5), "std": round(spread, 5), "worst": round(worst(found), 5)}


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--record", action="store_true")
    asked.add_argument("--peer", type=Path)
    asked.add_argument("--seeds", type=int)
    asked.add_argument("--only", nargs="+", choices=(*NAMES, *deep_reservoir.NAMES), default=USUAL, metavar="NAME")
    args, more = asked.parse_known_args()
    deep = [name for name in args.only if name in deep_reservoir.NAMES]
    if deep and len(deep) == len(args.only):
        flags = [*["--quick"] * args.quick, *["--record"] * args.record, *(["--seeds", str(args.seeds)] if args.seeds else [])]
        deep_reservoir.main([*deep, *flags, *more])
        return
    if deep or more:
        asked.error(f"{' '.join(deep or more)}: rows of the deep reservoir, and their options, go without other rows")
    torch.set_num_threads(1)
    seeds, rounds = args.seeds or (2 if args.quick else 10), 3 if args.quick else 11
    found: dict[str, object] = {}
    python = args.peer or (peer_python() if {SPEED, MEASURES} & set(args.only) else Path())
    if MEASURES in args.only:
        ratios = [measures(seed, python) for seed in range(min(seeds, 5))]
        found[MEASURES] = {
            str(degree): round(statistics.mean(one), 4) for degree, one in enumerate(zip(*ratios, strict=True), 1)
        }
    if SPEED in args.only:
        speeds = speed(python, 50, rounds) | speed(python, 200, rounds)
        found = {SPEED: speeds["50 nodes, batch 32, low-pass"], f"{SPEED}_by_case": speeds}
    for name, one in SCORES.items():
        if name in args.only:
            found[name] = over(seeds, one.of, one.worst)
    if BENCH in args.only:
        rows = bench_over_twin(seeds)
        found |= {BENCH: rows["ratio"], **{f"{BENCH}_{name}": rows[name] for name in ("bench", "twin")}}
    if THEORY in args.only:
        found[THEORY] = over(
            seeds, lambda seed: memory(seed, 20, 6000), lambda values: max(values, key=lambda value: abs(value - 1))
        )
    found["quick"] = args.quick
    for name, value in found.items():
        print(f"{name:<30}{value}")
    line = json.dumps(found)
    print(line)
    if args.record:
        record("Nodes with memory", ["```", line, "```"])


if __name__ == "__main__":
    main()
