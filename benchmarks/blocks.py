"""Networks that are not a chain, with the node as the activation of every block, trained in plain torch by hil.nn.

    residual      h + node( W norm h ), on the pixels
    mixer         h + node( W_t norm h ) over patches, then h + node( W_c norm h ) over channels
    conv          h + node( conv norm h ), a residual network of 3 x 3 convolutions

Rules: aDFA and DFA by hil.nn.DirectFeedback, a matrix for each node; "pat" for backpropagation through the twin; the last
layer alone. One device stands behind every node of a network. A row is a network, a data set and a rule. A finished training is
a JSON file in the folder of the study and is not made again; a stopped one begins anew. The last epoch counts, and the test
split is read once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jobs import markdown, said, statistics_of
from recording import record
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, unfold

import hil
from hil.files import write_atomic
from hil.nn import DirectFeedback, Physical
from sim_devices.mach_zehnder import MachZehnder

RULES = {"aDFA": "adfa", "DFA": "dfa", "backpropagation": "pat", "last layer": "straight_through"}
FEEDBACK = {"g": {"family": "sine", "frequency": 1.3, "phase": 1.2}}
Shape = tuple[int, ...]


class Nodes:
    """Makes the nodes of a network, all through one device."""

    def __init__(self, rule: str, seed: int) -> None:
        self._device: MachZehnder | Physical = MachZehnder(v_pi_v=3.52)
        self._rule, self._seed = rule, seed

    def __call__(self, features: int) -> Physical:
        made = Physical(
            self._device, self._rule, gain=1.5, overflow="fold", period=7.04, features=features, seed=self._seed  # type: ignore[arg-type]
        )  # fmt: skip
        self._device = made
        return made


class Block(nn.Module):
    """h + node( mix( norm( h ) ) ); without `skip` node( mix( norm( h ) ) ).

    Args:
        mix: the synapses; it keeps the shape if there is a skip.
        shape: of one example of what `mix` gives.
        nodes: makes the node.
        skip: adds the input.
    """

    def __init__(self, mix: nn.Module, shape: Shape, nodes: Nodes, skip: bool = True) -> None:
        super().__init__()
        self.mix, self.skip = mix, skip
        self.node = nodes(torch.Size(shape).numel())

    def forward(self, h: Tensor) -> Tensor:
        pre = self.mix(nn.functional.layer_norm(h, h.shape[1:]))
        answer = self.node(pre.flatten(1)).view_as(pre)
        return h + answer if self.skip else answer


class Turned(nn.Module):
    """A linear map over the patches of (batch, patches, channels)."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.linear = nn.Linear(patches, patches)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h.mT).mT


class Patches(nn.Module):
    """(batch, pixels) -> (batch, patches, pixels of a patch)."""

    def __init__(self, shape: Shape, side: int) -> None:
        super().__init__()
        self.shape, self.side = shape, side

    def forward(self, x: Tensor) -> Tensor:
        return unfold(x.unflatten(1, self.shape), self.side, stride=self.side).mT


class Pooled(nn.Module):
    """The mean over 2 x 2 pixels."""

    def forward(self, h: Tensor) -> Tensor:
        return avg_pool2d(h, 2)


def residual(shape: Shape, nodes: Nodes, width: int, blocks: int) -> nn.Sequential:
    """A residual network of dense blocks."""
    first = Block(nn.Linear(torch.Size(shape).numel(), width), (width,), nodes, skip=False)
    rest = [Block(nn.Linear(width, width), (width,), nodes) for _ in range(blocks)]
    return nn.Sequential(first, *rest, nn.Linear(width, 10))


def mixer(shape: Shape, nodes: Nodes, width: int, blocks: int) -> nn.Sequential:
    """A mixer of 16 patches with `width` // 4 channels."""
    side, channels = shape[1] // 4, width // 4
    one = (16, channels)
    parts: list[nn.Module] = [Patches(shape, side), Block(nn.Linear(shape[0] * side**2, channels), one, nodes, skip=False)]
    for _ in range(blocks):
        parts += [Block(Turned(16), one, nodes), Block(nn.Linear(channels, channels), one, nodes)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(16 * channels, 10))


def conv(shape: Shape, nodes: Nodes, width: int, blocks: int) -> nn.Sequential:
    """A residual network of convolutions with `width` // 16 channels at half the resolution."""
    channels, rows = width // 16, shape[1] // 2
    one = (channels, rows, rows)
    first = Block(nn.Conv2d(shape[0], channels, 3, stride=2, padding=1), one, nodes, skip=False)
    rest = [Block(nn.Conv2d(channels, channels, 3, padding=1), one, nodes) for _ in range(blocks)]
    readout = nn.Linear(channels * (rows // 2) ** 2, 10)
    return nn.Sequential(nn.Unflatten(1, shape), first, *rest, Pooled(), nn.Flatten(), readout)


NETWORKS: dict[str, Callable[[Shape, Nodes, int, int], nn.Sequential]] = {"residual": residual, "mixer": mixer, "conv": conv}


@dataclass(frozen=True)
class Size:
    """How wide a network is, and how it is trained by Adam; examples: None is all."""

    width: int
    blocks: int
    epochs: int
    examples: int | None
    batch: int
    rate: float


def trained(network: str, data: str, rule: str, seed: int, size: Size) -> dict[str, Any]:
    """Train a network and return its test accuracy, the time, and the device's passes."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    found, begin = hil.load(data, train_examples=size.examples), time.monotonic()
    chain = NETWORKS[network](found.shape, Nodes(RULES[rule], seed), size.width, size.blocks)
    if rule == "last layer":
        chain.requires_grad_(False)[-1].requires_grad_(True)
    direct = RULES[rule] in ("adfa", "dfa")
    net = DirectFeedback(chain, outputs=10, feedback=FEEDBACK, seed=seed) if direct else chain
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], size.rate)
    steps = size.epochs * -(-len(found.train) // size.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(size.epochs):
        for rows in torch.randperm(len(found.train)).split(size.batch):
            optimizer.zero_grad()
            cross_entropy(net(found.train.x[rows]), found.train.y[rows]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        right = sum(
            int((net(x).argmax(1) == y).sum()) for x, y in zip(found.test.x.split(500), found.test.y.split(500), strict=True)
        )
    passes = next(part for part in chain.modules() if isinstance(part, Physical)).passes
    return {"test_accuracy": right / len(found.test), "wall_s": time.monotonic() - begin, "device_passes": passes}


def study(chosen: argparse.Namespace, folder: Path) -> None:
    """Make, or list, the rows: every network by every rule, on MNIST and on CIFAR-10."""
    size = Size(64, 2, 1, 1000, 20, 3e-3) if chosen.quick else Size(256, 4, chosen.epochs, None, 128, 1e-3)
    seeds = range(chosen.first, chosen.first + (1 if chosen.quick else chosen.seeds))
    data_sets = ("mnist",) if chosen.quick else ("mnist", "cifar10")
    rows: dict[str, list[float]] = {}
    paces: list[float] = []
    due = 0
    for seed, data, network, rule in itertools.product(seeds, data_sets, NETWORKS, RULES):
        if chosen.only not in (row := f"{network}, {data}, {rule}"):
            continue
        asked = {"network": network, "data": data, "rule": rule, "seed": seed, "size": asdict(size)}
        path = folder / f"{network}-{data}-{rule.lower().replace(' ', '_')}-{seed}.json"
        done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if done.get("asked") != asked:
            if chosen.list:
                print(f"{path.stem:<40} waiting")
                due += 1
                continue
            done = {"asked": asked, **trained(network, data, rule, seed, size)}
            write_atomic(path, json.dumps(done).encode())
        print(f"{path.stem:<40} test {done['test_accuracy']:.4f}, {done['wall_s']:.0f} s", flush=True)
        rows.setdefault(row, []).append(done["test_accuracy"])
        paces.append(done["wall_s"])
    if chosen.list:
        guess = f"about {said(due * sum(paces) / len(paces))}" if paces else "unknown"
        print(f"{due} trainings are left: {guess}, one at a time")
        return
    table = markdown({name: statistics_of(scores) for name, scores in rows.items()}, "network, data, rule")
    print("\n".join(table))
    if chosen.record:
        record("aDFA in networks that are not a chain", table)
