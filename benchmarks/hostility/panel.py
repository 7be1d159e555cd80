"""Settings changed by another hand while shots go on, through the virtual bench: how soon does each become a fault?

A second session on the same instruments sets one of CHANGES while shots go on behind the recovery ladder, as `open_bench` gives
the device: guardian, real drivers, HiSLIP. The clock runs from the answer to that command until the ladder hears of the
fault. What is restored must then answer as before the change; an output that was switched off must still be off at the end.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drivers.links.visa_link import VisaLink
from hil.build.bench import open_bench
from hil.build.shapes.waveform import OnPlant
from hil.config.bench import bench_of
from hil.config.read import read_toml
from hil.device import Device
from hil.devices.recovery import Ladder
from hil.devices.resilient import resilient
from hil.errors import SwitchedOff

BENCH = Path(__file__).resolve().parent.parent.parent / "benches" / "mzm_awg_scope.toml"
EVERY_S, QUICK_EVERY_S = 2.0, 0.5
NOTICED_S = 5.0  # a change that takes longer counts as not noticed
CHANGES = (
    ("awg", ":SOUR1:VOLT 7.9"),
    ("scope", ":CHAN1:RANG 0.6"),
    ("awg", ":OUTP1:POL INV"),
    ("scope", ":TRIG:EDGE:LEV 0.6"),
    ("awg", ":SOUR1:VOLT:LIM:STAT 0"),
    ("awg", ":SOUR1:VOLT 4"),
    ("awg", ":SOUR1:VOLT 7;:SOUR1:VOLT:OFFS 0.1"),
    ("awg", ":SOUR1:VOLT 7.99;:SOUR1:VOLT:OFFS 0.005"),
    ("awg", ":SOUR1:VOLT:HIGH 3.9"),
    ("awg", ":SOUR1:VOLT:LIM:HIGH 5"),
    ("awg", ":SOUR1:VOLT:LIM:LOW -4.5"),
    ("awg", ":OUTP1:LOAD INF"),
    ("awg", ":OUTP1:LOAD 51"),
    ("awg", ":SOUR1:FUNC:ARB:FILT STEP"),
    ("awg", ":TRIG1:SOUR IMM"),
    ("awg", ":OUTP:SYNC 0"),
    ("scope", ":CHAN1:OFFS 0.185"),
    ("scope", ":CHAN1:OFFS 0.175"),
    ("scope", ":CHAN1:SCAL 0.07"),
    ("scope", ":CHAN1:INV 1"),
    ("scope", ":CHAN1:COUP AC"),
    ("scope", ":TRIG:EDGE:SLOP NEG"),
    ("scope", ":TRIG:EDGE:SOUR CHAN2"),
    ("scope", ":TIM:POS 1E-6"),
)
QUICK = 5  # of CHANGES
OFF = ("awg", ":OUTP1 0")


@dataclass
class Heard:
    """When the ladder heard of a change, and whether it named the change."""

    at_s: float | None = None
    shots: int = 0

    def __call__(self, kind: str, **facts: object) -> None:
        if kind in ("recovering", "lost") and self.at_s is None and " -> " in str(facts.get("got")):
            self.at_s = time.monotonic()


@dataclass(frozen=True)
class Noticed:
    """after_s: from the change to the fault; None: it never became one that names it. shots: meanwhile. right: what came then
    was as it must be."""

    after_s: float | None
    shots: int
    right: bool

    @property
    def counts(self) -> bool:
        return self.after_s is not None and self.after_s <= NOTICED_S and self.right


@contextmanager
def opened(every_s: float, heard: list[Heard]) -> Iterator[tuple[OnPlant, Device]]:
    table = read_toml(BENCH)
    table["virtual"]["node"] |= {"drift_rad_per_s": 0.0, "noise": 0.0}
    with open_bench(bench_of({**table, "panel": {"every": every_s}}, BENCH)) as found:
        plant = found.device
        assert isinstance(plant, OnPlant)
        yield plant, resilient(plant, lambda inner: Ladder(inner, told=lambda kind, **f: heard[-1](kind, **f)))


def changed(plant: OnPlant, device: Device, heard: list[Heard], box: str, command: str, x: torch.Tensor) -> Noticed:
    """Shots before, the change between two of them, shots until it was noticed, and one more."""
    heard.append(Heard())
    answer = device.forward(x)
    for _ in range(20):
        device.forward(x)
    hand = VisaLink(plant._served.resources[box])
    try:
        hand.write(command.encode())
        hand.write(b"*OPC?")
        hand.read_text(encoding="utf-8")
    finally:
        hand.close()
    begin, shots = time.monotonic(), 0
    try:
        while heard[-1].at_s is None and time.monotonic() - begin < 2 * NOTICED_S:
            device.forward(x)
            shots += 1
        right = device.forward(x).equal(answer)
    except SwitchedOff:
        right = command == OFF[1] and not any(output["on"] for output in plant.control.outputs()["awg"].values())  # type: ignore[attr-defined]
        shots += 1
    at_s = heard[-1].at_s
    return Noticed(None if at_s is None else at_s - begin, shots, right)


def look_ms(plant: OnPlant, looks: int = 50) -> float:
    """Return the time that one look at both instruments takes."""
    waveform, times = plant._inner, []
    for _ in range(looks):
        begin = time.perf_counter()
        waveform._worker.submit(waveform._watch.look).result()
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def measure(quick: bool) -> dict[str, Any]:
    every_s = QUICK_EVERY_S if quick else EVERY_S
    x = torch.rand(64, 24, generator=torch.Generator().manual_seed(0)) * 6 - 3
    heard, found = list[Heard](), list[Noticed]()
    with opened(every_s, heard) as (plant, device):
        took_ms = look_ms(plant)
        for box, command in CHANGES[: QUICK if quick else None]:
            found.append(changed(plant, device, heard, box, command, x))
        found.append(changed(plant, device, heard, *OFF, x))
    if not quick:
        with opened(every_s, heard) as (plant, device):
            found.append(changed(plant, device, heard, *OFF, x))
    times = [noticed.after_s for noticed in found if noticed.after_s is not None]
    return {
        "panel_changes": len(found),
        "panel_noticed": sum(noticed.counts for noticed in found),
        "panel_worst_s": round(max(times, default=float("inf")), 3),
        "panel_worst_shots": max(noticed.shots for noticed in found),
        "panel_look_ms": round(took_ms, 3),
        "panel_cost": round(took_ms / 1e3 / EVERY_S, 6),
    }
