"""Simulated nodes beside public simulators of the same physics, in one run.

    python benchmarks/twins.py [--quick] [--record] [--only PART ...] [--aihwkit FOLDER] [--neurophox PYTHON]

crossbar    forward of sim_devices/crossbar.py beside the torch tile of aihwkit: 8 bit in, product, normal noise on the output,
            8 bit out; without wires, as that tile has none. "equal": without noise both answer alike to one step of the
            output. "with wires": our wires, as a divider along rows and columns, beside aihwkit's tile with an IR drop over
            time, which is another and finer model; our error is that against Kirchhoff's equations
mesh        powers and gradient of sim_devices/mzi_mesh.py beside neurophox: benchmarks/twins_mesh.py

FOLDER has the package aihwkit: left out, its source distribution is downloaded to .venv/ on first use. Ratios are of times of
the processor, with one thread each: rounds of both in turn, the median of the rounds' ratios. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from learners import ONE_THREAD
from recording import record
from torch import Tensor
from twins_mesh import mesh

from sim_devices.crossbar import Crossbar, fast, solved

HERE = Path(__file__).resolve().parent
AIHWKIT = HERE.parent / ".venv" / "twins_peers"
VERSION = "1.2.0"
V, SPAN = 0.2, 24e-6  # full input in V, full weight in S
BOUND, NOISE, BITS = 12.0, 0.06, 8  # as aihwkit has them: in products of a full input and a full weight
SIZES = ((32, 16, 32), (64, 64, 64), (128, 128, 128), (512, 512, 64))  # rows, outputs, batch
Ask = Callable[[dict[str, Any]], dict[str, Any]]


def aihwkit() -> Path:
    """The folder of the sources of aihwkit; downloaded if they are not there."""
    found = AIHWKIT / f"aihwkit-{VERSION}" / "src"
    if not found.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(AIHWKIT), f"aihwkit=={VERSION}"]
        subprocess.run(pip, check=True)
        with tarfile.open(AIHWKIT / f"aihwkit-{VERSION}.tar.gz") as archive:
            archive.extractall(AIHWKIT, filter="data")
    return found


@contextlib.contextmanager
def peer(script: str, folder: Path) -> Iterator[Ask]:
    """A peer in a process of its own, which answers a line of JSON with another."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    writer, reader = process.stdin, process.stdout

    def ask(case: dict[str, Any]) -> dict[str, Any]:
        writer.write(json.dumps(case) + "\n")
        writer.flush()
        answer: dict[str, Any] = json.loads(reader.readline())
        return answer

    try:
        yield ask
    finally:
        writer.close()
        process.wait()


# ---- crossbar -------------------------------------------------------------------------------------------------------------


def crossbar_case(rows: int, outputs: int, batch: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    case = {"rows": rows, "outputs": outputs, "batch": batch, "seed": seed, "bits": BITS, "bound": BOUND, "noise": NOISE}
    return {**case, "wires": False, "times": 10, **more}


def crossbar_of(case: dict[str, Any]) -> tuple[Crossbar, Tensor, Tensor]:
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
def crossbar_seconds(twin: Crossbar, params: Tensor, x: Tensor, times: int) -> float:
    rng = torch.Generator().manual_seed(0)
    start = time.process_time()
    for _ in range(times):
        twin.respond((), params, x, rng)
    return time.process_time() - start


def steps_apart(ask: Ask, rows: int, outputs: int, batch: int) -> float:
    """Largest distance of both without noise, in steps of the output."""
    case = crossbar_case(rows, outputs, batch, noise=0.0, times=0)
    twin, params, x = crossbar_of(case)
    ours = twin.respond((), params, x, torch.Generator())[0] / (V * SPAN)
    return float((ours - torch.tensor(ask(case)["outputs"])).abs().max()) / (BOUND / (2 ** (BITS - 1) - 1))


def crossbar_ratio(ask: Ask, rounds: int, times: int, **case: Any) -> tuple[float, float]:
    """Median ratio of the times, and our time of a forward in s."""
    asked = crossbar_case(**case, times=times)
    twin, params, x = crossbar_of(asked)
    ratios, ours = [], []
    for _ in range(rounds + 1):
        theirs, mine = ask(asked)["s"], crossbar_seconds(twin, params, x, times)
        ratios.append(theirs / mine)
        ours.append(mine / times)
    return statistics.median(ratios[1:]), statistics.median(ours[1:])


def wires_error(rows: int, outputs: int, wire_ohm: float) -> tuple[float, float]:
    """What the divider is off by, and what the wires take, as shares of the currents' rms; conductances all over the range."""
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
    with peer("twins_crossbar_peer.py", folder or aihwkit()) as ask:
        for rows, outputs, batch in SIZES[: 2 if quick else None]:
            name = f"{rows} x {outputs}, {batch}"
            size = {"rows": rows, "outputs": outputs, "batch": batch}
            ratio, took = crossbar_ratio(ask, rounds, times, **size)
            apart = steps_apart(ask, **size)
            found[name] = round(ratio, 2)
            lines.append(f"| {name} | {1e6 * took:.0f} | {ratio:.2f} | {apart:.2g} |")
        ratio, took = crossbar_ratio(ask, 3, 2, rows=32, outputs=16, batch=32, wires=True)
        found["32 x 16, 32, with wires"] = round(ratio, 1)
        lines.append(f"| 32 x 16, 32, with wires, two models | {1e6 * took:.0f} | {ratio:.0f} | |")
    lines += ["", "| rows x columns | wire, ohm a cell | wires take | divider is off by |", "|---|---|---|---|"]
    for rows, outputs, ohm in ((16, 8, 1.0), (32, 16, 1.0), (32, 16, 5.0), *(() if quick else ((64, 10, 1.0), (64, 10, 5.0)))):
        off, taken = wires_error(rows, outputs, ohm)
        found[f"wires of {rows} x {2 * outputs}, {ohm:g} ohm"] = f"{off:.1e}"
        lines.append(f"| {rows} x {2 * outputs} | {ohm:g} | {100 * taken:.2g} % | {off:.1e} |")
    return found, lines


PARTS: dict[str, Callable[[argparse.Namespace], tuple[dict[str, Any], list[str]]]] = {
    "crossbar": lambda args: crossbar(args.aihwkit, args.quick),
    "mesh": lambda args: mesh(args.neurophox, (4,) if args.quick else (4, 8, 16, 32)),
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--record", action="store_true")
    asked.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    asked.add_argument("--aihwkit", type=Path, help="folder that has the package aihwkit")
    asked.add_argument("--neurophox", help="python of the environment that has it; without it the part mesh is left out")
    args = asked.parse_args()
    if args.neurophox is None:
        args.only = [name for name in args.only if name != "mesh"]
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in args.only:
        found[name], lines = PARTS[name](args)
        print("\n".join(lines))
        if args.record:
            record(f"Simulated nodes beside public simulators: {name}", lines)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
