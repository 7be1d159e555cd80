"""Digits trained through every pair of a generator and an oscilloscope: do all dialects carry a network to its floor?

    python benchmarks/instruments.py [--epochs 8] [--only SUBSTRING]
    python benchmarks/instruments.py --wires [--only SUBSTRING]      the contract of drivers, over every wire

aDFA, 64-100-100-10, each hidden activation through the pair and the simulated modulator between them, messages in this process.
The floor is 90 % of the validation split: the test split is not read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "drivers"))
FLOOR = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", default="", help="pairs whose name has this in it")
    parser.add_argument("--wires", action="store_true", help="check drivers over wires, train nothing")
    asked = parser.parse_args()
    return contracts(asked.only) if asked.wires else digits(asked.only, asked.epochs)


def contracts(only: str) -> int:
    """Check the drivers of sources and meters over every wire, those of the suite as well. Returns how many failed."""
    from test_sources import PAIRS, SLOW

    from hil.conformance import check_instrument
    from hil.errors import ContractError

    failed = 0
    for name, make, wire in (*PAIRS, *SLOW):
        if only not in name:
            continue
        try:
            said = f"{len(check_instrument(lambda make=make, wire=wire: make(wire=wire)).passed)} checks passed"  # type: ignore[misc]
        except ContractError as error:
            failed, said = failed + 1, str(error)
        print(f"{name:30} {wire:8} {said}", flush=True)
    return failed


def digits(only: str, epochs: int) -> int:
    """Train digits through every pair. Returns 1 if one stayed below the floor."""
    from test_pairs_of_makers import PAIRS, opened

    import hil

    below = []
    print(f"{'pair':45} validation   samples/s")
    for name, generator, scope, _ in PAIRS:
        if only not in name:
            continue
        device, _ = opened(generator, scope)
        with tempfile.TemporaryDirectory() as folder:
            net = hil.dense([64, 100, 100, 10], device, gain=1.0, overflow="fold", period=7.04)
            begin = time.perf_counter()
            run = {"run": f"{folder}/run", "show": False, "report": False}
            with hil.points(net, "adfa", "digits", epochs=epochs, batch=32, lr=2e-3, **run) as points:  # type: ignore[arg-type]
                found = [point.validation["accuracy"] for point in points if hasattr(point, "validation")]
            spent_s = time.perf_counter() - begin
        best = max(found)
        below += [name] if best < FLOOR else []
        print(f"{name:45} {best:10.1%}   {epochs * 1437 / spent_s:9.0f}", flush=True)
        device.close()
    print("below the floor:", "; ".join(below) or "none")
    return bool(below)


if __name__ == "__main__":
    sys.exit(main())
