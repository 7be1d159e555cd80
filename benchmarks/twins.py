"""Simulated nodes beside public simulators of the same physics, in one run.

    python benchmarks/twins.py [--quick] [--record] [--only PART ...] [--aihwkit FOLDER] [--neurophox PYTHON]

crossbar    forward of sim_devices/crossbar.py beside the torch tile of aihwkit: benchmarks/twins_crossbar.py
mesh        powers and gradient of sim_devices/mzi_mesh.py beside neurophox: benchmarks/twins_mesh.py

Times are seconds of the processor, with one thread each, in rounds in which both take turns. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from recording import record
from twins_crossbar import crossbar
from twins_mesh import mesh

PARTS: dict[str, Callable[[argparse.Namespace], tuple[dict[str, Any], list[str]]]] = {
    "crossbar": lambda args: crossbar(args.aihwkit, args.quick),
    "mesh": lambda args: mesh(args.neurophox, (4,) if args.quick else (4, 8, 16, 32)),
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--record", action="store_true")
    asked.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART")
    asked.add_argument("--aihwkit", type=Path, help="folder that has the package aihwkit")
    asked.add_argument("--neurophox", help="python of the environment that has it; without it the part mesh is left out")
    args = asked.parse_args()
    parts = args.only or [name for name in PARTS if name != "mesh" or args.neurophox]
    if "mesh" in parts and not args.neurophox:
        asked.error("the part mesh needs --neurophox")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in parts:
        found[name], lines = PARTS[name](args)
        print("\n".join(lines))
        if args.record:
            record(f"Simulated nodes beside public simulators: {name}", lines)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
