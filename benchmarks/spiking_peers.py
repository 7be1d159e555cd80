"""One step of backpropagation through time in a library for spiking networks; run in the peers' own environment.

    python benchmarks/spiking_peers.py spikingjelly|snntorch WIDTHS BATCH T repeated|once
    stdin: a number of steps, a line each; stdout: seconds per step, a line each

The net: Linear, leaky neurons with soft reset and the library's own surrogate, a linear readout of the mean rate. WIDTHS as
784,1000,1000,10. "repeated": the network sees the image in every step, as in the tutorials of both; "once": the first layer is
evaluated once a batch, as ours is. No optimiser, as for ours.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

Step = Callable[[], None]
REPEATED, ONCE = "repeated", "once"


def spikingjelly(linears: list[nn.Linear], x: Tensor, label: Tensor, steps: int, way: str) -> Step:
    """Multi-step mode: all steps of a layer at once, which is its fast way on a CPU."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    nodes = [neuron.LIFNode(2.0, decay_input=False, v_reset=None, surrogate_function=surrogate.ATan(), step_mode="m")
             for _ in linears[:-1]]  # fmt: skip

    def step() -> None:
        drive = linears[0](x).expand(steps, -1, -1) if way == ONCE else linears[0](x.expand(steps, -1, -1))
        for node, following in zip(nodes, linears[1:], strict=True):
            spikes = node(drive)
            drive = following(spikes)
        nn.functional.cross_entropy(drive.mean(0), label).backward()
        for node in nodes:
            functional.reset_net(node)

    return step


def snntorch(linears: list[nn.Linear], x: Tensor, label: Tensor, steps: int, way: str) -> Step:
    """Its usual loop over time."""
    import snntorch as snn

    nodes = [snn.Leaky(beta=0.5, reset_mechanism="subtract") for _ in linears[:-1]]

    def step() -> None:
        membranes = [node.reset_mem() for node in nodes]
        first, total = linears[0](x), torch.zeros(())
        for t in range(steps):
            drive = first if way == ONCE or not t else linears[0](x)
            for number, node in enumerate(nodes):
                spikes, membranes[number] = node(drive, membranes[number])
                drive = linears[number + 1](spikes)
            total = total + drive
        nn.functional.cross_entropy(total / steps, label).backward()

    return step


def main() -> None:
    peer, widths, batch, steps = sys.argv[1], [int(w) for w in sys.argv[2].split(",")], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    linears = [nn.Linear(a, b) for a, b in pairwise(widths)]
    x, label = torch.rand(batch, widths[0]), torch.arange(batch) % widths[-1]
    step = {"spikingjelly": spikingjelly, "snntorch": snntorch}[peer](linears, x, label, steps, sys.argv[5])
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            for linear in linears:
                linear.zero_grad(set_to_none=True)
            step()
        print((time.perf_counter() - start) / int(line), flush=True)


if __name__ == "__main__":
    main()
