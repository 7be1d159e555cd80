"""Nodes with memory: NARMA10, equalisation of a channel and memory of a simulated delay loop, and its speed beside reservoirpy.

    python benchmarks/memory.py [--quick] [--record] [--peer PYTHON] [--seeds N] [--only NAME ...]

narma10_50, narma10_200    test NRMSE of experiments/narma10_delay_loop.toml, 50 and 200 virtual nodes; seeds of mask and series
narma10_50_noisy           the same with a detection noise of 1e-3 of the full scale
narma10_bench_vs_twin      test NRMSE of experiments/narma10_bench.toml (10-bit oscilloscope, detection noise) over that of the
                           same loop called directly with the same noise, mask and series; "bench" and "twin" by themselves
narma10_50_trained, narma10_50_noisy_trained    both with masks that were trained: by bptt_memory, by pat_memory
ser_28db                   share of the symbols read wrong behind a nonlinear channel, 28 dB, 50 nodes
memory_over_theory         memory capacity of a linear loop over what its equations give, with a detection noise of 1e-4
loop_vs_reservoirpy        nodes times steps a second, 32 sequences in a loop of 50 nodes with a low-pass over a reservoir of
                           reservoirpy with as many nodes; by_case: other batches and nodes

PYTHON has reservoirpy: without --peer an environment of its own is made under .venv/ on first use. Every figure is a mean over
seeds, with the standard deviation and the worst. The last line is one JSON object. Ratios of times: rounds of both in turn,
median of the rounds' ratios, of processor time with one thread each, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from learners import ONE_THREAD
from recording import record
from torch import Tensor

from hil.build.shapes.waveform import WaveformBench
from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.seeding import generator
from hil.training.loop import evaluate, train
from hil.training.session import load_best
from sim_devices.delay_loop import DelayLoop
from sim_devices.simulated import Simulated

HERE = Path(__file__).resolve().parent
FILE, ON_BENCH = (HERE.parent / "experiments" / name for name in ("narma10_delay_loop.toml", "narma10_bench.toml"))
PEERS = HERE.parent / ".venv" / "memory_peers"
PACKAGES = ("reservoirpy==0.4.2", "numpy", "scipy", "joblib", "cloudpickle", "loky", "threadpoolctl")
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
CHANNEL = (
    'data.use="channel_equalisation"', 'data.targets="numbers"', "data.number=60", "data.steps=2000", "data.split.test=0.8",
    "data.split.validation=0.1", "task.washout=100", 'task.metric=["symbol_error_rate", "nrmse"]',
    'network.levels="uniform"', "network.offset=1.0", 'device.delay_s="6.7 us"', "device.gain=0.1", 'device.phase="0.6 rad"',
    'encode.gain="0.15 V"',
)  # fmt: skip


SCORES: dict[str, tuple[tuple[str, ...], str]] = {
    "narma10_50": ((), "nrmse"),
    "narma10_200": (TWO_HUNDRED, "nrmse"),
    "narma10_50_noisy": (NOISY, "nrmse"),
    "narma10_50_trained": (TRAINED, "nrmse"),
    "narma10_50_noisy_trained": (NOISY_TRAINED, "nrmse"),
    "ser_28db": (CHANNEL, "symbol_error_rate"),
}
SPEED, THEORY, BENCH = "loop_vs_reservoirpy", "memory_over_theory", "narma10_bench_vs_twin"
NAMES = [*SCORES, THEORY, BENCH, SPEED]


def score(seed: int, overrides: tuple[str, ...], metric: str, file: Path = FILE) -> float:
    """The test score of the experiment with other settings: mask, series and noise of this seed."""
    experiment = read_experiment(file, [f"seed={seed}", f"data.seed={seed}", *overrides])
    with built(experiment) as made:
        training = made.training
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
    experiment = read_experiment(FILE, [f"seed={seed}", f"data.seed={seed}", *overrides])
    with built(experiment) as made:
        mask, device = made.training.net.stack[0].synapse, made.training.devices[0]
        spread = noise * float(device.spec.outputs.high) / 1.25
        theory = capacity(mask.weight.detach()[:, 0].double(), 0.95, nodes + 1, spread, 3 * nodes)
    return score(seed, overrides, "memory_capacity") / theory


def bench_over_twin(seeds: int) -> dict[str, dict[str, float]]:
    """Scores over the wire of the virtual bench, of its loop called directly, and the ratio of the two, seed by seed."""
    bench = read_experiment(ON_BENCH).bench
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


def peer_python() -> Path:
    """The Python of the peer's environment; made if it is not there."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "ready").exists():
        venv.create(PEERS, with_pip=False, clear=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", *PACKAGES]
        subprocess.run(pip, check=True)
        (PEERS / "ready").touch()
    return python


@contextlib.contextmanager
def peer(python: Path, nodes: int) -> Iterator[Callable[[int], float]]:
    """A reservoir of reservoirpy in a process of its own: steps -> seconds."""
    process = subprocess.Popen(
        [str(python), str(HERE / "memory_peer.py"), str(nodes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env={**os.environ, **ONE_THREAD, "PYTHONPATH": ""},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    def seconds(steps: int) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{steps}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    try:
        yield seconds
    finally:
        process.stdin.close()
        process.wait()


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
    with peer(python, nodes) as seconds:
        for number in range(rounds + 1):
            theirs = nodes * 4000 / seconds(4000)
            for name, (device, batch) in cases.items():
                drive = torch.rand(steps, batch, nodes, generator=generator(0, number, "drive"))
                ratios.setdefault(name, []).append(nodes * steps * batch / loop_seconds(device, drive) / theirs)
    return {name: round(statistics.median(found[1:]), 2) for name, found in ratios.items()}


def over(seeds: int, one: Callable[[int], float], worst: Callable[[list[float]], float] = max) -> dict[str, float]:
    found = [one(seed) for seed in range(seeds)]
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    return {"mean": round(statistics.mean(found), 5), "std": round(spread, 5), "worst": round(worst(found), 5)}


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--record", action="store_true")
    asked.add_argument("--peer", type=Path)
    asked.add_argument("--seeds", type=int)
    asked.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    args = asked.parse_args()
    torch.set_num_threads(1)
    seeds, rounds = args.seeds or (2 if args.quick else 10), 3 if args.quick else 11
    found: dict[str, object] = {}
    if SPEED in args.only:
        python = args.peer or peer_python()
        speeds = speed(python, 50, rounds) | speed(python, 200, rounds)
        found = {SPEED: speeds["50 nodes, batch 32, low-pass"], f"{SPEED}_by_case": speeds}
    for name, (overrides, metric) in SCORES.items():
        if name in args.only:
            found[name] = over(seeds, partial(score, overrides=overrides, metric=metric))
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
