"""Digits trained through every pair of a generator and an oscilloscope: do all dialects carry a network to its floor?

    python benchmarks/instruments.py [--epochs 8] [--only SUBSTRING]
    python benchmarks/instruments.py --wires [--only SUBSTRING]      the contract of drivers, over wires the suite leaves out

aDFA, 64-100-100-10, each hidden activation through the pair and the simulated modulator between them, messages in this process.
The floor is 90 % of the validation split: the test split is not read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "drivers"))
FLOOR = 0.9


def wires() -> list[tuple[str, Callable[[str], Any], str]]:
    """Instrument, its frame, wire: pairs besides those of test_instrument_conformance.py and test_sources.py."""
    import test_instrument_conformance as suite
    import test_sources as sources

    def source(make: Callable[..., Any]) -> Callable[[str], Any]:
        return lambda wire: make(wire=wire)

    def generator(driver: Any, box: Any, model: str) -> Callable[[str], Any]:
        return lambda wire: suite.Generator(driver, box(model=model), wire)

    def scope(driver: Any, box: Any, model: str) -> Callable[[str], Any]:
        return lambda wire: suite.Scope(driver, box(model=model), wire)

    afg = generator(suite.TektronixAFG31000, suite.SimulatedTektronixAFG31000, "AFG31252")
    dsox = scope(suite.InfiniiVision, suite.SimulatedInfiniiVision, "DSOX4024A")
    sds = scope(suite.SiglentSDS, suite.SimulatedSiglentSDS, "SDS824X HD")
    rtb = scope(suite.RohdeSchwarzRTB, suite.SimulatedRohdeSchwarzRTB, "RTB2002")
    return [
        ("Keysight 33622A", suite.keysight_33600, "vxi11"),
        ("Keysight 33522B", suite.keysight_33500, "socket"),
        ("Keysight M8195A", suite.keysight_m8195a, "vxi11"),
        ("Siglent SDG1032X", suite.siglent_sdg1000x, "vxi11"),
        *(("Tektronix AFG31252", afg, wire) for wire in ("hislip", "socket", "vxi11")),
        *(("Keysight DSO-X 4024A", dsox, wire) for wire in ("hislip", "socket", "vxi11")),
        *(("Siglent SDS824X HD", sds, wire) for wire in ("hislip", "socket", "vxi11")),
        *(("Rigol DS1202Z-E", suite.rigol("DS1202Z-E", 0), wire) for wire in ("socket", "vxi11")),
        *(("Rigol DHO802", suite.rigol("DHO802", 0), wire) for wire in ("hislip", "vxi11")),
        *(("Tektronix MSO44", suite.tektronix_mso("MSO44"), wire) for wire in ("hislip", "socket", "vxi11")),
        *(("Tektronix MSO24", suite.tektronix_mso("MSO24"), wire) for wire in ("socket", "vxi11")),
        *(("Tektronix TBS2104", suite.tektronix_tbs("TBS2104", 2), wire) for wire in ("hislip", "socket", "vxi11")),
        *(("R&S RTB2002", rtb, wire) for wire in ("hislip", "socket", "vxi11")),
        *((name, source(make), wire) for name, make, wire in sources.SLOW),
    ]


def check_wires(only: str) -> int:
    """Try the drivers' contract over each pair."""
    from hil.conformance import check_instrument
    from hil.errors import ContractError

    failed = []
    for name, frame, wire in wires():
        pair = f"{name} over {wire}"
        if only not in pair:
            continue
        try:
            report = check_instrument(partial(frame, wire))
            print(f"{pair:40} {len(report.passed)} checks passed", flush=True)
        except ContractError as error:
            failed.append(pair)
            print(f"{pair:40} {error}", flush=True)
    print("failed:", "; ".join(failed) or "none")
    return bool(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", default="", help="pairs whose name has this in it")
    parser.add_argument("--wires", action="store_true", help="check drivers over wires, train nothing")
    asked = parser.parse_args()
    return check_wires(asked.only) if asked.wires else digits(asked.only, asked.epochs)


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
