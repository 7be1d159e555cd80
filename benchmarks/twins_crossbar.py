"""The part "crossbar" of benchmarks/twins.py: forward of sim_devices/crossbar.py beside the torch tile of aihwkit.

8 bit in, product, normal noise on the output, 8 bit out; without wires, as that tile has none. Without noise both answer alike
to one step of the output. "with wires": our wires, as a divider along rows and columns, beside aihwkit's tile with an IR drop
over time, which is another and finer model; our error is that against Kirchhoff's equations.

Without `--aihwkit FOLDER`, which has the package aihwkit, its source distribution is downloaded to .venv/ on first use.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import torch
from peers import Peer
from torch import Tensor

from sim_devices.crossbar import Crossbar, fast, solved

AIHWKIT = Path(__file__).resolve().parent.parent / ".venv" / "twins_peers"
VERSION = "1.2.0"
V, SPAN = 0.2, 24e-6  # full input in V, full weight in S
BOUND, NOISE, BITS = 12.0, 0.06, 8  # as aihwkit has them: in products of a full input and a full weight
SIZES = ((32, 16, 32), (64, 64, 64), (128, 128, 128), (512, 512, 64))  # rows, outputs, batch


def aihwkit() -> Path:
    """The folder of the sources of aihwkit; downloaded if they are not there."""
    found = AIHWKIT / f"aihwkit-{VERSION}" / "src"
    if not found.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(AIHWKIT), f"aihwkit=={VERSION}"]
        subprocess.run(pip, check=True)
        with tarfile.open(AIHWKIT / f"aihwkit-{VERSION}.tar.gz") as archive:
            archive.extractall(AIHWKIT, filter="data")
    return found


def case_of(rows: int, outputs: int, batch: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    case = {"rows": rows, "outputs": outputs, "batch": batch, "seed": seed, "bits": BITS, "bound": BOUND, "noise": NOISE}
    return {**case, "wires": False, "times": 10, **more}


def tile_of(case: dict[str, Any]) -> tuple[Crossbar, Tensor, Tensor]:
    """The same tile: twin, parameters and drive."""
    made = Crossbar(
        rows=case["rows"], outputs=case["outputs"], dac_bits=case["bits"], adc_bits=case["bits"], gain_spread=0.0,
        range_a=case["bound"] * V * SPAN, noise_a=NOISE * V * SPAN, noise=1.0 if case["noise"] else 0.0, relative_noise=0.0,
        wire_ohm=1.0 if case["wires"] else 0.0,
    )  # fmt: skip
    rng = torch.Generator().manual_seed(case["seed"])
    weights = torch.rand(case["rows"], case["outputs"], generator=rng) * 2 - 1
    x = torch.rand(case["batch"], case["rows"], generator=rng) * 2 - 1
    middle = (made.g_min + made.g_max) / 2
    return made, torch.stack([middle + weights * SPAN / 2, middle - weights * SPAN / 2], -1).flatten(), V * x


@torch.no_grad()
def seconds(twin: Crossbar, params: Tensor, x: Tensor, times: int) -> float:
    rng = torch.Generator().manual_seed(0)
    start = time.process_time()
    for _ in range(times):
        twin.respond((), params, x, rng)
    return time.process_time() - start


def steps_apart(peer: Peer, rows: int, outputs: int, batch: int) -> float:
    """Largest distance of both without noise, in steps of the output."""
    case = case_of(rows, outputs, batch, noise=0.0, times=0)
    twin, params, x = tile_of(case)
    ours = twin.respond((), params, x, torch.Generator())[0] / (V * SPAN)
    return float((ours - torch.tensor(peer.ask(case)["outputs"])).abs().max()) / (BOUND / (2 ** (BITS - 1) - 1))


def ratio_of(peer: Peer, rounds: int, times: int, **case: Any) -> tuple[float, float]:
    """Median ratio of the times, and our time of a forward in s."""
    asked = case_of(**case, times=times)
    twin, params, x = tile_of(asked)
    ratios, ours = [], []
    for _ in range(rounds + 1):
        theirs, mine = peer.ask(asked)["s"], seconds(twin, params, x, times)
        ratios.append(theirs / mine)
        ours.append(mine / times)
    return statistics.median(ratios[1:]), statistics.median(ours[1:])


def wires_error(rows: int, outputs: int, wire_ohm: float) -> tuple[float, float]:
    """Return the error of the divider and what the wires take, as shares of the currents' rms; cells as formed."""
    twin = Crossbar(rows=rows, outputs=outputs)
    cells, along, down = twin.formed.double(), wire_ohm * twin.along.double(), wire_ohm * twin.down.double()
    exact, near = (each[:, ::2] - each[:, 1::2] for each in (solved(cells, along, down), fast(cells, along, down)))
    without = cells[:, ::2] - cells[:, 1::2]
    size = float(exact.square().mean().sqrt())
    return tuple(float((each - exact).square().mean().sqrt()) / size for each in (near, without))  # type: ignore[return-value]


def crossbar(folder: Path | None, quick: bool) -> tuple[dict[str, Any], list[str]]:
    rounds, times = (3, 5) if quick else (11, 40)
    lines = [
        "| rows x outputs, batch | us a forward | times as fast as aihwkit's tile | apart without noise, steps |",
        "|---|---|---|---|",
    ]
    found: dict[str, Any] = {}
    with Peer("twins_crossbar_peer.py", path=folder or aihwkit()) as peer:
        for rows, outputs, batch in SIZES[: 2 if quick else None]:
            name = f"{rows} x {outputs}, {batch}"
            size = {"rows": rows, "outputs": outputs, "batch": batch}
            ratio, took = ratio_of(peer, rounds, times, **size)
            apart = steps_apart(peer, **size)
            found[name] = round(ratio, 2)
            lines.append(f"| {name} | {1e6 * took:.0f} | {ratio:.2f} | {apart:.2g} |")
        ratio, took = ratio_of(peer, 3, 2, rows=32, outputs=16, batch=32, wires=True)
        found["32 x 16, 32, with wires"] = round(ratio, 1)
        lines.append(f"| 32 x 16, 32, with wires, two models | {1e6 * took:.0f} | {ratio:.0f} | |")
    lines += ["", "| rows x columns | wire, ohm a cell | wires take | divider is off by |", "|---|---|---|---|"]
    for rows, outputs, ohm in ((16, 8, 1.0), (32, 16, 1.0), (32, 16, 5.0), *(() if quick else ((64, 10, 1.0), (64, 10, 5.0)))):
        off, taken = wires_error(rows, outputs, ohm)
        found[f"wires of {rows} x {2 * outputs}, {ohm:g} ohm"] = f"{off:.1e}"
        lines.append(f"| {rows} x {2 * outputs} | {ohm:g} | {100 * taken:.2g} % | {off:.1e} |")
    return found, lines
