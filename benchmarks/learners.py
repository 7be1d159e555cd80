"""Time and memory of a training step, beside what it is to be compared with, side by side in one run.

    python benchmarks/learners.py [--quick] [--record]

Every round takes a step by each way in turn, one thread each, so that a busy machine slows all alike; a ratio is the median of
the rounds' ratios. A step is from a batch to `.grad` of every parameter; no optimiser. The peers run in an environment of their
own, made here on first use under .venv/, which takes torch from this one. The last line is one JSON object:

    saf_f_vs_spikingjelly        time of BPTT in SpikingJelly over that of SAF-F; 784-1000-1000-10, batch 128, T = 20
    saf_f_vs_snntorch            the same with snnTorch
    ..._first_layer_once         the same, the peer sparing itself the repeated first layer, which its tutorials do not
    adfa_vs_autograd             time of autograd over that of aDFA, the same net and noiseless modulator; 784-1000-1000-10
    saf_memory_t50_vs_t5         peak memory of a SAF-F step above rest, T = 50 over T = 5
    adfa_snn_memory_t50_vs_t5    the same for aDFA on spiking neurons
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch
from peers import ONE_THREAD, Peer
from recording import record
from torch import nn

from hil.device import ArraySpec
from hil.encoding import Decode, Encode
from hil.feedback.feedback import Feedback, Sine
from hil.learner import Learner
from hil.learners.adfa import ADFA
from hil.learners.adfa_snn import ADFASNN, ADFASNNSettings
from hil.learners.parts.rate_learner import RateSettings
from hil.learners.saf import SAFF
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.spiking_array import TwinChip

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".venv" / "peers"
PACKAGES = ("spikingjelly==2.0.0", "snntorch==1.0.0", "loguru")
WIDTHS, BATCH, STEPS = (784, 1000, 1000, 10), 128, 20
GIVEN_BACK = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 17)
}  # what is freed leaves the process: else the allocator's hoard is measured


def peers() -> Path:
    """The Python of the peers' environment; made if it is not there."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "ready").exists():
        venv.create(PEERS, with_pip=False, clear=True)
        site = next((PEERS / "lib").glob("python*")) / "site-packages"
        site.joinpath("host.pth").write_text(
            sysconfig.get_path("purelib") + "\n", encoding="utf-8"
        )  # torch is not downloaded twice
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", *PACKAGES]
        subprocess.run(pip, check=True)
        (PEERS / "ready").touch()
    return python


def spiking_network(seed: int = 0) -> Network:
    """784-1000-1000-10 on leaky neurons, leak 1/2."""
    torch.manual_seed(seed)
    chip, layers = TwinChip(), []
    for a, b in pairwise(WIDTHS[:-1]):
        array = chip.array(ArraySpec(b))
        layers.append(Layer(nn.Linear(a, b), array, Encode.onto(array.spec.inputs)))
    return Network([*layers, Layer(nn.Linear(WIDTHS[-2], WIDTHS[-1]))])


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(BATCH, WIDTHS[0], generator=generator(0, 0, "x")), torch.arange(BATCH) % WIDTHS[-1]


def timed(step: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def spiking(rounds: int) -> dict[str, float]:
    """SAF-F beside BPTT in both libraries, both ways."""
    net, (x, label) = spiking_network(), batch()
    learner = SAFF(RateSettings(time_steps=STEPS), WIDTHS[-1])
    shape = [",".join(map(str, WIDTHS)), str(BATCH), str(STEPS)]
    names = {
        f"saf_f_vs_{peer}{suffix}": (peer, way)
        for peer in ("spikingjelly", "snntorch")
        for way, suffix in (("repeated", ""), ("once", "_first_layer_once"))
    }
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(Peer("spiking_peers.py", peer, *shape, way, python=peers()))
            for name, (peer, way) in names.items()
        }
        ratios: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds + 1):  # the first warms up
            ours = timed(lambda: learner.step(net, x, label, generator(0, 0, "step")), 2)
            for name, child in children.items():
                ratio = child.ask(2) / ours
                if number:
                    ratios[name].append(ratio)
    return {name: statistics.median(values) for name, values in ratios.items()}


class Noiseless:
    """The modulator as a device without noise: what is timed is learning, not the drawing of noise."""

    def __init__(self, twin: MachZehnder) -> None:
        self._twin, self.spec = twin, twin.spec

    def program(self, params: torch.Tensor) -> None:
        raise NotImplementedError("a modulator is fixed")

    def reset(self) -> None:
        """It has no past."""

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._twin.ideal(self.spec.inputs.check(x))

    def close(self) -> None:
        """Nothing to make safe."""


def static(rounds: int) -> dict[str, float]:
    """aDFA and autograd on the noiseless response of the modulator's twin: a black box for one, a graph for the other."""
    twin, (x, label) = MachZehnder(), batch()
    torch.manual_seed(0)
    linears = [nn.Linear(a, b) for a, b in pairwise(WIDTHS)]
    device = Noiseless(twin)
    encode, decode = Encode.onto(device.spec.inputs, overflow="clip"), Decode(0.5, 0.5)
    net = Network([*(Layer(linear, device, encode, decode) for linear in linears[:-1]), Layer(linears[-1])])
    learner = ADFA(Feedback(Sine(phase=1.2)), WIDTHS[1:-1], WIDTHS[-1], generator(0, 0, "learner"))

    def autograd() -> None:
        net.zero_grad(set_to_none=True)
        h = x
        for linear in linears[:-1]:
            h = decode(twin.ideal(encode(linear(h))))
        nn.functional.cross_entropy(linears[-1](h), label).backward()

    ratios = []
    for number in range(rounds + 1):
        ours = timed(lambda: learner.step(net, x, label, generator(0, 0, "step")), 10)
        ratio = timed(autograd, 10) / ours
        if number:
            ratios.append(ratio)
    return {"adfa_vs_autograd": statistics.median(ratios)}


def memory_bytes(what: str, steps: int) -> int:
    """Peak of a step above rest, in a fresh process."""
    command = [sys.executable, __file__, "--memory", what, str(steps)]
    env = {**os.environ, **ONE_THREAD, **GIVEN_BACK}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def measure_memory(what: str, steps: int) -> int:
    """Of this process, which has taken no step yet."""
    net, (x, label) = spiking_network(), batch()
    settings = {"time_steps": steps}
    learner: Learner = (
        SAFF(RateSettings(**settings), 10)
        if what == "saf"
        else ADFASNN.build(net, ADFASNNSettings(**settings), 10, generator(0, 0, "learner"))
    )
    before = status_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    for number in range(3):
        learner.step(net, x, label, generator(0, number, "step"))
    return (status_kb("VmHWM") - before) * 1024


def status_kb(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1])


def memories(repeats: int) -> dict[str, float]:
    """Medians over fresh processes."""
    found = {}
    for what, name in (("saf", "saf_memory_t50_vs_t5"), ("adfa_snn", "adfa_snn_memory_t50_vs_t5")):
        pairs = [(memory_bytes(what, 50), memory_bytes(what, 5)) for _ in range(repeats)]
        found[name] = statistics.median(long / short for long, short in pairs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--record", action="store_true", help="append the figures to RESULTS.md")
    parser.add_argument("--memory", nargs=2, metavar=("LEARNER", "T"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.memory:
        print(measure_memory(chosen.memory[0], int(chosen.memory[1])))
        return
    rounds = 3 if chosen.quick else 11
    found = {**spiking(rounds), **static(rounds), **memories(1 if chosen.quick else 3)}
    found = {name: round(value, 3) for name, value in found.items()}
    if chosen.record:
        lines = ["| figure | value |", "|---|---|", *(f"| `{name}` | {value} |" for name, value in found.items())]
        record("Learners: time and memory of a step", [*lines, "", f"torch {version('torch')}, {', '.join(PACKAGES)}."])
    print(json.dumps({**found, "quick": chosen.quick}))


if __name__ == "__main__":
    main()
