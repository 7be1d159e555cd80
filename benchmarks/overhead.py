"""What the framework costs: one aDFA training step on an in-process twin, against the same step written by hand in torch.

    step_vs_bare = median over rounds of ( time of our step / time of the bare step )

Both sides: 784-800-800-10, batch 128, the same weights, data, matrices B, g, twin, noise draws and Adam; the optimiser's step
is timed with them. Rounds alternate, so that a busy machine slows both. The first steps are compared number by number.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.encoding import Decode, Encode
from hil.feedback.feedback import Feedback, Sine
from hil.learners.adfa import ADFA
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

WIDTHS, BATCH, SEED, RATE = (784, 800, 800, 10), 128, 0, 1e-3
GAIN, ZERO_V, SCALE_V, PHASE = 0.5, 0.18, 0.18, 0.6

Step = Callable[[Tensor, Tensor], float]


def synapses() -> list[nn.Linear]:
    torch.manual_seed(SEED)
    return [nn.Linear(a, b) for a, b in itertools.pairwise(WIDTHS)]


def ours(layers: list[nn.Linear]) -> tuple[Step, ADFA]:
    """The framework: Network, Simulated, ADFA."""
    device = Simulated(MachZehnder(), SEED)
    encode = Encode.onto(device.spec.inputs, gain=GAIN, overflow="clip")
    hidden = [Layer(synapse, device, encode, Decode(ZERO_V, SCALE_V)) for synapse in layers[:-1]]
    net = Network([*hidden, Layer(layers[-1])])
    learner = ADFA(Feedback(Sine(phase=PHASE)), WIDTHS[1:-1], WIDTHS[-1], generator(SEED, 0, "learner"))
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    rng = generator(SEED, 0, "step")

    def step(x: Tensor, label: Tensor) -> float:
        loss = learner.step(net, x, label, rng)["loss"]
        optimizer.step()
        return loss

    return step, learner


def bare(layers: list[nn.Linear], matrices: list[Tensor]) -> Step:
    """The same by hand: the twin is called directly; nothing is checked, counted or recorded beyond the loss."""
    twin = MachZehnder()
    optimizer = torch.optim.Adam([p for layer in layers for p in layer.parameters()], lr=RATE)
    state = twin.rest(BATCH, generator(SEED, 0, "rest"))
    calls = 0

    @torch.no_grad()
    def step(x: Tensor, label: Tensor) -> float:
        nonlocal state, calls
        inputs, pre, h = [], [], x
        for layer in layers[:-1]:
            inputs.append(h)
            pre.append(layer(h))
            drive = (pre[-1] * GAIN).clamp(twin.low_v, twin.high_v)
            reading, state = twin.respond(state, None, drive, generator(SEED, calls, "noise"))
            calls += 1
            h = (reading - ZERO_V) * (1 / SCALE_V)
        inputs.append(h)
        logp = layers[-1](h).log_softmax(1)
        loss = functional.nll_loss(logp, label)
        error = (logp.exp() - functional.one_hot(label, WIDTHS[-1])) / len(label)
        optimizer.zero_grad()
        deltas = [(error @ b.t()) * (a + PHASE).sin() for a, b in zip(pre, matrices, strict=True)] + [error]
        for layer, source, delta in zip(layers, inputs, deltas, strict=True):
            layer.weight.grad = delta.t() @ source
            layer.bias.grad = delta.sum(0)
        optimizer.step()
        return float(loss)

    return step


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    rng = generator(SEED, 0, "data")
    return [
        (torch.rand(BATCH, WIDTHS[0], generator=rng), torch.randint(0, WIDTHS[-1], (BATCH,), generator=rng))
        for _ in range(count)
    ]


def spent_s(step: Step, data: list[tuple[Tensor, Tensor]]) -> float:
    begin = time.perf_counter()
    for x, label in data:
        step(x, label)
    return (time.perf_counter() - begin) / len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under a minute")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds, steps = (15, 6) if options.quick else (60, 10)

    layers = synapses()
    framework, learner = ours(layers)
    by_hand = bare(copy.deepcopy(layers), [learner.projection.get_buffer(f"B{n}") for n in range(len(WIDTHS) - 2)])
    data = batches(steps)
    apart = max(abs(framework(x, label) - by_hand(x, label)) for x, label in data[:3])  # also warms both up

    pairs = []
    for number in range(rounds):
        first, second = (framework, by_hand) if number % 2 else (by_hand, framework)
        times = {first: spent_s(first, data), second: spent_s(second, data)}
        pairs.append((times[framework], times[by_hand]))
    ratios = sorted(mine / hand for mine, hand in pairs)
    print(
        f"aDFA step, {'-'.join(map(str, WIDTHS))}, batch {BATCH}, {rounds} rounds of {steps} steps, torch {torch.__version__}"
    )
    result = {
        "step_vs_bare": round(statistics.median(ratios), 4),
        "step_vs_bare_quartiles": [round(ratios[rounds // 4], 4), round(ratios[-1 - rounds // 4], 4)],
        "step_ms": round(1e3 * statistics.median(mine for mine, _ in pairs), 3),
        "bare_ms": round(1e3 * statistics.median(hand for _, hand in pairs), 3),
        "loss_apart": apart,
        "threads": options.threads,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
