"""One minibatch of the CIFAR-10 network of SAF's paper, by five rules: time, memory, and the angles between the directions.

    python benchmarks/saf.py [--batch N] [--rounds N] [--quick] [--record]

The network is that of experiments/cifar10_saf_e.toml: VGG-11 with scaled weight standardisation, 64-128-256-256-512-512-512-512
channels, T = 6, leak 1/2, at its first weights. Two cores do not train it, so this looks at one minibatch: of 16 images where
the paper has 128 (--batch), all else as large. --quick: digits through 16-32 channels.

SAF-E, OTTT-O            a direction at each time step, the weights left as they are; compared is the sum
OTTT-A, SAF-F, spike representation      one direction

By the paper SAF-E and OTTT give one direction (Theorem 1), and so do SAF-F and the spike representation (Theorem 2): cosine 1.
OTTT-A and OTTT-O differ only where the weights move in between. The references are those of hil/learners/.

Time: processor seconds of a step on one thread, rounds interleaved, medians. Memory: peak of a step above rest, each rule in a
fresh process that gives back what it frees, after a step of one example. HIL_DATA names the folder of CIFAR-10.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from jobs import ROOT
from learners import GIVEN_BACK, status_kb
from peers import ONE_THREAD
from recording import record
from safetensors.torch import load_file, save_file
from torch import Tensor

from hil.config.experiment import read_experiment
from hil.data.dataset import load
from hil.device import ArraySpec
from hil.encoding import Encode
from hil.learners.ottt import OTTTA, OTTTO, OTTTOSettings
from hil.learners.parts.rate_learner import OnlineLearner, OnlineSettings, RateLearner, RateSettings
from hil.learners.saf import SAFE, SAFF, SAFESettings
from hil.learners.spike_representation import SpikeRepresentation
from hil.network import Layer, Network
from hil.seeding import generator
from hil.synapses import conv, flat_widths
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip

STEPS, CLASSES = 6, 10
FILE = ROOT / "experiments" / "cifar10_saf_e.toml"
SMALL: dict[str, Any] = {"channels": [16, 32], "strides": 2, "pool": "average", "weights": "standardised", "gain": 2.74}
RULES: dict[str, tuple[type[RateLearner], type[RateSettings]]] = {
    "SAF-E": (SAFE, SAFESettings),
    "OTTT-O": (OTTTO, OTTTOSettings),
    "OTTT-A": (OTTTA, OnlineSettings),
    "SAF-F": (SAFF, RateSettings),
    "spike representation": (SpikeRepresentation, RateSettings),
}
EQUAL = (("SAF-E", "OTTT-O"), ("SAF-E", "OTTT-A"), ("SAF-F", "spike representation"))
BESIDE = (("SAF-E", "OTTT-O"), ("SAF-F", "OTTT-A"))  # what the paper compares in time and memory


def network(quick: bool) -> tuple[Network, tuple[int, ...]]:
    """The network and the shape of an example."""
    settings = SMALL if quick else dict(read_experiment(FILE).network.choice.settings)
    shape = (1, 8, 8) if quick else (3, 32, 32)
    torch.manual_seed(0)
    synapses = conv(**{**settings, "shape": shape, "readout": CLASSES})
    chip, layers = TwinChip(Neuron(leak=0.5, v_th=1.0)), []
    for synapse, width in zip(synapses[:-1], flat_widths(synapses, math.prod(shape))[1:], strict=False):
        array = chip.array(ArraySpec(width))
        layers.append(Layer(synapse, array, Encode.onto(array.spec.inputs)))
    return Network([*layers, Layer(synapses[-1])]), shape


def rule(name: str, net: Network) -> RateLearner:
    kind, settings = RULES[name]
    return kind.build(net, settings(time_steps=STEPS, chunk=1, leak=0.5, v_th=1.0), CLASSES, generator(0, 0, "learner"))


def direction(learner: RateLearner, net: Network, x: Tensor, label: Tensor) -> Tensor:
    """One step; the sum of its directions, all weights in a row."""
    if not isinstance(learner, OnlineLearner):
        learner.step(net, x, label, generator(0, 0, "step"))
        return gradient(net)
    total = torch.zeros(())
    for _ in learner.updates(net, x, label, generator(0, 0, "step")):
        total = total + gradient(net)
    return total


def gradient(net: Network) -> Tensor:
    return torch.cat([param.grad.flatten() for param in net.parameters() if param.grad is not None])


def images(quick: bool, batch: int) -> dict[str, Tensor]:
    split = load("digits" if quick else "cifar10").train
    return {"x": split.x[:batch].clone(), "label": split.y[:batch].clone()}


def memory_bytes(name: str, place: Path, quick: bool) -> int:
    """Peak of a step above rest, in a fresh process."""
    command = [sys.executable, __file__, "--memory", name, str(place), *(["--quick"] if quick else [])]
    env = {**os.environ, **ONE_THREAD, **GIVEN_BACK}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def measure_memory(name: str, place: Path, quick: bool) -> int:
    """Of this process, once a step of one example has loaded what torch loads."""
    net, _ = network(quick)
    learner, batch = rule(name, net), load_file(place)
    direction(learner, net, batch["x"][:1], batch["label"][:1])
    net.zero_grad(set_to_none=True)
    before = status_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    if isinstance(learner, OnlineLearner):
        for _ in learner.updates(net, batch["x"], batch["label"], generator(0, 0, "step")):
            pass
    else:
        learner.step(net, batch["x"], batch["label"], generator(0, 0, "step"))
    return (status_kb("VmHWM") - before) * 1024


def measured(batch: dict[str, Tensor], rounds: int, quick: bool) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Processor seconds of a step, and the direction, of every rule."""
    net, _ = network(quick)
    learners = {name: rule(name, net) for name in RULES}
    seconds: dict[str, list[float]] = {name: [] for name in RULES}
    found = {}
    for _ in range(rounds):
        for name, learner in learners.items():
            begin = time.process_time()
            found[name] = direction(learner, net, batch["x"], batch["label"])
            seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(some) for name, some in seconds.items()}, found


def cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / (a.norm() * b.norm()))


def longer(a: Tensor, b: Tensor) -> float:
    return float(a.double().norm() / b.double().norm())


def lines(seconds: dict[str, float], memory: dict[str, float], found: dict[str, Tensor]) -> list[str]:
    """Two tables, and the ratios that the paper gives."""
    rows = [f"| {name} | {seconds[name]:.2f} | {memory[name] / 1e6:.1f} |" for name in RULES]
    cosines = [
        f"| {name} | {' | '.join(f'{cosine(found[name], found[other]):.6f}' for other in RULES)} |" for name in RULES
    ]  # fmt: skip
    ratios = [
        f"{ours} over {other}: time {seconds[ours] / seconds[other]:.3f}, memory {memory[ours] / memory[other]:.3f}."
        for ours, other in BESIDE
    ]
    apart = [
        f"{a} and {b}: 1 - cosine {1 - cosine(found[a], found[b]):.1e}, ratio of lengths {longer(found[a], found[b]):.6f}."
        for a, b in EQUAL
    ]
    return [
        "| rule | processor s | MB above rest |", "|---|---|---|", *rows, "",
        f"| cosine | {' | '.join(RULES)} |", f"|{'---|' * (len(RULES) + 1)}", *cosines, "", *ratios, "", *apart,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a small network on digits")
    parser.add_argument("--record", action="store_true", help="append the figures to RESULTS.md")
    parser.add_argument("--memory", nargs=2, metavar=("RULE", "BATCH"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.memory:
        print(measure_memory(chosen.memory[0], Path(chosen.memory[1]), chosen.quick))
        return
    batch = images(chosen.quick, chosen.batch)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "batch.safetensors"
        save_file(batch, place)
        memory = {name: float(memory_bytes(name, place, chosen.quick)) for name in RULES}
    seconds, found = measured(batch, chosen.rounds, chosen.quick)
    told = lines(seconds, memory, found)
    print("\n".join(told))
    if chosen.record:
        record("SAF: one minibatch of the CIFAR-10 network", told)
    print(json.dumps({"cosines": [cosine(found[a], found[b]) for a, b in EQUAL], "quick": chosen.quick}))


if __name__ == "__main__":
    main()
