"""The part "mesh" of benchmarks/twins.py: powers behind a mesh of interferometers and their gradient, beside neurophox.

Its environment: `python -m venv peer`, `peer/bin/pip install torch==2.13.0 numpy scipy matplotlib`, `peer/bin/pip install
--no-deps neurophox==0.1.0a4`; `--neurophox peer/bin/python`. A ratio is that of the medians of the rounds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from peers import Peer

from sim_devices.mzi_mesh import MZIMesh

ROUNDS = 5
BATCH = 32


def seconds(act: Callable[[], object], times: int) -> float:
    """Seconds of the processor for one `act`, the mean of so many."""
    start = time.process_time()
    for _ in range(times):
        act()
    return (time.process_time() - start) / times


def mesh(python: str, modes: Sequence[int]) -> tuple[dict[str, float], list[str]]:
    """Powers behind a lossless mesh as designed, and the gradient of one to all phases; neurophox 0.1.0a4, RMTorch, in float32.

    The peer's mesh has the same interferometers and N phases more in front of it, which cost next to nothing. Its
    phases are given, those of the twin come from voltages through the crosstalk matrix, in float64.
    """
    ratios: dict[str, float] = {}
    lines = ["| N | what | hil, ms | neurophox, ms | ratio |", "|---|---|---|---|---|"]
    for count in modes:
        own = Own(count)
        found: dict[str, tuple[list[float], list[float]]] = {"forward": ([], []), "forward and gradient": ([], [])}
        with Peer("twins_mesh_peer.py", count, BATCH, python=python) as peer:
            for _ in range(ROUNDS):
                for what, (mine, theirs) in found.items():
                    gradient = what != "forward"
                    mine.append(seconds(own.gradient if gradient else own.forward, 20))
                    theirs.append(peer.ask({"times": 20, "gradient": gradient})["s"])
            light = peer.ask({"times": 1, "gradient": False})["power"] / own.power
        assert math.isclose(light, 1.0, rel_tol=1e-4), f"the peer loses light: {light}"
        for what, pair in found.items():
            hil_s, peer_s = map(statistics.median, pair)
            lines.append(f"| {count} | {what} | {1e3 * hil_s:.2f} | {1e3 * peer_s:.2f} | {peer_s / hil_s:.1f} |")
            ratios[f"{count}, {what}"] = round(peer_s / hil_s, 2)
    return ratios, lines


class Own:
    """The twin with BATCH drives and phases of its own."""

    def __init__(self, modes: int) -> None:
        self._twin = MZIMesh(modes=modes, specimen=-1, dark_w=0.0, loss_db=0.0, input_w=1.0)
        rng = torch.Generator().manual_seed(0)
        self._x = torch.randn(BATCH, 2 * modes, generator=rng)
        self._volts = (8 * torch.rand(modes * (modes - 1), generator=rng)).requires_grad_()
        self.power = float(self._x.square().sum(1).mean())

    @torch.no_grad()
    def forward(self) -> None:
        self._twin.settled(self._x, self._volts)

    def gradient(self) -> None:
        self._volts.grad = None
        self._twin.settled(self._x, self._volts)[:, 0].sum().backward()
