"""A long run with faults: no wrong answer accepted, no fault unaccounted for, no memory lost.

    python benchmarks/soak.py [--quick] [--shots N] [--rate R] [--wires hislip socket pty] [--minutes M] [--seed S] [--record]

Of the shots 15 % go to a waveform bench over HiSLIP, 15 % to one over raw sockets, 70 % to a spiking board on a serial line,
each bench in a process of its own. With --minutes a wire ends after so long, whatever it has done.

Before a shot, with the probability `rate`, one fault is scheduled that strikes in it. Every shot drives other random values,
and its answer is compared with the twin's, called directly: physics is the check. A fault is accounted for when it struck and
the journal, a file, tells of it; those that a wire puts right by itself (a duplicate that carries an old number) are counted
as harmless. Memory is the resident size of this process after 20,000 shots against that at the end.

Last line: JSON with shots, faults, accounted, harmless, wrong_accepted, memory_growth, and the same for every wire.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from recording import record

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.links.serial_link import SerialLink
from drivers.links.visa_link import VisaLink
from drivers.spiking.device import SpikingBoard
from drivers.waveform.device import Waveform, WaveformSettings
from hil.device import ArraySpec, Device
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient, resilient_chip
from hil.run.journal import Journal
from sim_devices.bench.board import VirtualBoard, spawn_board
from sim_devices.bench.control import ControlClient
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import spawn
from sim_devices.lif_array import Neuron
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated
from sim_devices.spiking_array import TwinChip

LIMIT_V, RANGE_V, OFFSET_V, BITS = 4.0, 0.5, 0.18, 12
NODE = {"v_pi_v": 3.52, "phase_rad": -1.2, "noise": 0.0}
TOLERANCE_V = 4 * RANGE_V / (1 << BITS)  # steps of both converters; another shot's answer is a hundred times further off
READ, UPLOAD = ":WAV:DATA?", ":SYST:ERR?"
TIMEOUT_S = 0.2
SEQUENCE = 8  # shots of the board between two resets
SHARES = {"pty": 70, "hislip": 15, "socket": 15}
KINDS: dict[str, list[tuple[str, str, dict[str, object]]]] = {
    "boxes": [
        ("scope", "drop", {"match": READ}),
        ("scope", "truncate", {"match": READ}),
        ("scope", "pad", {"match": READ}),
        ("scope", "flip", {"match": READ, "position": "header", "bits": 3}),
        ("scope", "swap", {"match": READ}),
        ("scope", "garbage", {"match": READ}),
        ("scope", "duplicate", {"match": READ}),
        ("scope", "delay", {"match": READ, "seconds": 2 * TIMEOUT_S}),
        ("scope", "stale", {"match": ":OPER:COND?", "seconds": 2 * TIMEOUT_S}),
        ("scope", "reset", {"match": READ}),
        ("scope", "half_close", {"match": READ}),
        ("awg", "reset", {"match": UPLOAD}),
        ("awg", "drop", {"match": UPLOAD}),
        ("awg", "flood", {"match": UPLOAD}),
        ("awg", "reboot", {"match": UPLOAD, "quiet": True}),
        ("scope", "reboot", {"match": READ, "quiet": True}),
        ("scope", "holes", {}),
        ("scope", "sentinel", {}),
        ("scope", "stuck", {"volts": 0.2}),
        ("scope", "missed_trigger", {}),
        ("node", "mode_hop", {"power": 0.4}),
    ],
    "board": [
        ("board", "drop", {"match": "STEP"}),
        ("board", "truncate", {"match": "STEP"}),
        ("board", "flip", {"match": "STEP", "bits": 2}),
        ("board", "garbage", {"match": "STEP"}),
        ("board", "duplicate", {"match": "STEP"}),
        ("board", "mangle", {"match": "STEP", "bits": 2}),
        ("board", "delay", {"match": "STEP", "seconds": 2 * TIMEOUT_S}),
        ("board", "reboot", {"match": "STEP", "seconds": 0.1}),
    ],
}
HARMLESS = {("hislip", "duplicate"), ("pty", "duplicate"), ("hislip", "sentinel"), ("socket", "sentinel")}


@dataclass
class Tally:
    """Of one wire. kinds: faults that struck. unaccounted: those that the journal does not know of."""

    shots: int = 0
    faults: int = 0
    accounted: int = 0
    harmless: int = 0
    wrong_accepted: int = 0
    memory_growth: float = 0.0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    unaccounted: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Rig:
    """shot: drives random values, true if the answer is the twin's. told: lines in the journal so far."""

    shot: Callable[[torch.Generator], bool]
    control: ControlClient
    faults: list[tuple[str, str, dict[str, object]]]
    told: Callable[[], int]


class Told:
    """The journal, and how many lines it was given."""

    def __init__(self, path: Path) -> None:
        self._journal, self.lines = Journal(path), 0

    def __call__(self, kind: str, **facts: object) -> None:
        self.lines += 1
        self._journal.note(kind, **facts)


@contextmanager
def waveform(transport: str, folder: Path) -> Iterator[Rig]:
    boxes = (
        VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600", {"dac_bits": BITS}),
        VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision", {"adc_bits": BITS}),
    )
    wire = VirtualWire("awg", "scope", Part("sim_devices.mach_zehnder:MachZehnder", NODE), delay_s=12.4e-9)
    with spawn(VirtualBench(boxes, (wire,), transport=transport)) as bench:  # type: ignore[arg-type]
        links = [VisaLink(bench.resources[name], timeout_s=TIMEOUT_S) for name in ("awg", "scope")]
        generator = Keysight33600(links[0], low_v=-LIMIT_V, high_v=LIMIT_V)
        scope = InfiniiVision(links[1], range_v=RANGE_V, offset_v=OFFSET_V)
        told = Told(folder / f"{transport}.jsonl")
        inner = Waveform(generator, scope, WaveformSettings(trigger_timeout_s=0.2), "twin")
        device = resilient(inner, lambda inner: Ladder(inner, Patience(60.0), told))
        twin = Simulated(MachZehnder(**NODE), 0)  # type: ignore[arg-type]

        def shot(rng: torch.Generator) -> bool:
            x = (2 * torch.rand((4, 16), generator=rng) - 1) * LIMIT_V
            return bool((device.forward(x) - twin.forward(x)).abs().max() < TOLERANCE_V)

        try:
            yield Rig(shot, bench.control, KINDS["boxes"], lambda: told.lines)
        finally:
            inner.close()


@contextmanager
def board(folder: Path) -> Iterator[Rig]:
    neuron = Neuron(threshold_mismatch=0.05)
    with spawn_board(VirtualBoard(neuron, seed=3)) as served:
        chip = SpikingBoard(SerialLink(served.port, timeout_s=TIMEOUT_S), provenance="twin")
        told = Told(folder / "pty.jsonl")
        array: Device = resilient_chip(chip, lambda inner: Ladder(inner, Patience(60.0), told)).array(ArraySpec(32))
        twin: Device = TwinChip(neuron, 3).array(ArraySpec(32))
        count = itertools.count()

        def shot(rng: torch.Generator) -> bool:
            """Two time steps more; a new sequence after every eighth shot."""
            if next(count) % SEQUENCE == 0:
                array.reset()
                twin.reset()
            x = 2 * torch.rand((2, 4, 32), generator=rng)
            return bool(array.forward(x).equal(twin.forward(x)))

        try:
            yield Rig(shot, served.control, KINDS["board"], lambda: told.lines)
        finally:
            chip.close()


def soak(rig: Rig, wire: str, shots: int, rate: float, seed: int, minutes: float) -> Tally:
    """`shots` shots, or as many as there is time for; faults before some of them."""
    tally, chance, rng = Tally(), random.Random(seed), torch.Generator().manual_seed(seed)
    begin, warm, shown = time.perf_counter(), 0, time.perf_counter()
    for number in range(shots):
        if time.perf_counter() - begin > 60 * minutes:
            break
        if chance.random() < rate:
            struck(rig, wire, chance, rng, tally)
        else:
            tally.wrong_accepted += not rig.shot(rng)
        tally.shots += 1
        if number == min(20_000, shots // 2):
            warm = resident()
        if time.perf_counter() - shown > 60:
            shown = time.perf_counter()
            print(f"{wire}: {tally.shots:,} shots, {tally.faults} faults, {tally.wrong_accepted} wrong", flush=True)
    tally.memory_growth = resident() / warm - 1 if warm else 0.0
    tally.seconds = time.perf_counter() - begin
    return tally


def struck(rig: Rig, wire: str, chance: random.Random, rng: torch.Generator, tally: Tally) -> None:
    """A shot with one fault in it."""
    box, kind, settings = chance.choice(rig.faults)
    fault = rig.control.fault(box, kind, **settings)
    before = rig.told()
    tally.wrong_accepted += not rig.shot(rng)
    row = next(row for row in rig.control.faults()["faults"] if row["id"] == fault)
    rig.control.heal()
    if not row["injected"]:
        return
    tally.faults += 1
    tally.kinds[kind] += 1
    if rig.told() > before:
        tally.accounted += 1
    elif (wire, kind) in HARMLESS:
        tally.accounted += 1
        tally.harmless += 1
    else:
        tally.unaccounted[kind] += 1


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--wires", nargs="+", choices=["hislip", "socket", "pty"], default=["pty", "hislip", "socket"])
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="append the table to RESULTS.md")
    parser.add_argument("--quick", action="store_true", help="2,000 shots, a fault in one of 50, at most 15 s a wire")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.shots, chosen.rate, chosen.minutes = 2_000, 0.02, 0.25
    torch.set_num_threads(1)
    found: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as name:
        for wire in chosen.wires:
            shots = round(chosen.shots * SHARES[wire] / sum(SHARES[name] for name in chosen.wires))
            with board(Path(name)) if wire == "pty" else waveform(wire, Path(name)) as rig:
                found[wire] = soak(rig, wire, shots, chosen.rate, chosen.seed, chosen.minutes)
            print(f"{wire}: {found[wire]}", flush=True)
    total = {
        "shots": sum(t.shots for t in found.values()),
        "faults": sum(t.faults for t in found.values()),
        "accounted": sum(t.accounted for t in found.values()),
        "harmless": sum(t.harmless for t in found.values()),
        "wrong_accepted": sum(t.wrong_accepted for t in found.values()),
        "memory_growth": round(max(t.memory_growth for t in found.values()), 4),
    }
    if chosen.record:
        head = [
            "| wire | shots | faults | accounted | harmless | wrong accepted | memory growth | ms a shot |",
            "|---" * 8 + "|",
        ]
        rows = [
            f"| {wire} | {t.shots:,} | {t.faults} | {t.accounted} | {t.harmless} | {t.wrong_accepted} | {t.memory_growth:.1%} "
            f"| {1e3 * t.seconds / t.shots:.2f} |"
            for wire, t in found.items()
        ]
        record(f"Soak: faults in {chosen.rate:.1%} of the shots", [*head, *rows])
    print(json.dumps({**total, "wires": {wire: vars(t) for wire, t in found.items()}}))


if __name__ == "__main__":
    main()
