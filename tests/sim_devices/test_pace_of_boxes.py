"""A simulated box takes the time of the real one where it is asked to, and none else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hil import toml
from hil.config.bench import bench_of
from hil.errors import ConfigError
from sim_devices.bench.description import Assembly, Part, VirtualBench, VirtualBox, VirtualWire, assemble
from sim_devices.instruments.keysight_33600 import Keysight33600
from sim_devices.instruments.timing import ASSUMED, TimedBox, Timing, timed

ROOT = Path(__file__).resolve().parents[2]
BOXES = "sim_devices.instruments."


def bench(timing: object) -> Assembly:
    awg = VirtualBox("awg", f"{BOXES}keysight_33600:Keysight33600")
    scope = VirtualBox("scope", f"{BOXES}keysight_infiniivision:InfiniiVision")
    wires = (VirtualWire("awg", "scope", Part("sim_devices.mach_zehnder:MachZehnder")),)
    told = VirtualBench((awg, scope), wires, timing=timing)  # type: ignore[arg-type]
    return assemble(VirtualBench.from_json(told.to_json()))


def test_a_message_takes_its_latency_and_its_bytes_less_what_the_simulation_took() -> None:
    slept: list[float] = []
    worked = iter([0.0, 1e-3, 0.0, 0.0])
    box = TimedBox(Keysight33600(), Timing(2e-3, 1e3, 1e4), slept.append, lambda: next(worked))
    reply = box.execute(b"*IDN?")
    assert reply is not None
    box.execute(b"*CLS")
    assert slept == pytest.approx([2e-3 + 5 / 1e3 + len(reply) / 1e4 - 1e-3, 2e-3 + 4 / 1e3])
    assert box.name == Keysight33600().name  # all else is the box


def test_an_output_that_moves_settles() -> None:
    slept: list[float] = []
    box = TimedBox(Keysight33600(), Timing(settle_s=1.0), slept.append, lambda: 0.0)
    for message in (b"*CLS", b"OUTP1 1", b"OUTP1 1", b"OUTP1 0"):
        box.execute(message)
    assert slept == [1.0, 1.0]


def test_without_a_timing_a_box_is_served_as_it_is() -> None:
    box = Keysight33600()
    assert timed(box, None) is box
    assert all(box.timing is None for box in bench(None).boxes.values())  # type: ignore[attr-defined]


def test_a_scope_arms_and_a_generator_triggers_after_their_time_while_others_go_on() -> None:
    boxes = bench({"arm_s": 0.02, "trigger_s": 0.02, "acquire_s": 0.5}).boxes
    awg, scope = boxes["awg"], boxes["scope"]
    awg.execute(b"SOUR1:BURS:STAT 1;:TRIG1:SOUR BUS;:OUTP:SYNC 1;:OUTP1 1;:SOUR1:FUNC ARB;:SOUR1:FUNC:ARB:SRAT 1e8")
    scope.execute(b":TRIG:SOUR EXT;:TRIG:LEV 0.5;:TRIG:SWE NORM;:TIM:RANG 1e-6")
    began = time.monotonic()
    assert scope.execute(b":SING;:AER?") == b"+1"
    armed = time.monotonic()
    awg.execute(b"*TRG")
    fired = time.monotonic()
    assert min(armed - began, fired - armed) >= 0.02
    assert int(scope.execute(b":OPER:COND?") or b"0") & 8  # it still runs
    assert scope.execute(b"*OPC?") == b"1"
    assert time.monotonic() - fired >= 0.5
    assert not int(scope.execute(b":OPER:COND?") or b"8") & 8


def test_one_line_of_a_bench_file() -> None:
    path = ROOT / "benches" / "mzm_awg_scope.toml"
    assert described(path, None) is None
    assert described(path, "typical") == "typical"
    assert described(path, {"arm": "10 ms", "up": "10 MB/s", "down_bytes_per_s": 5e6}) == {
        "arm_s": 0.01, "up_bytes_per_s": 1e7, "down_bytes_per_s": 5e6,
    }  # fmt: skip
    awg, scope = bench("typical").boxes.values()
    assert awg.timing is type(awg).typical is not ASSUMED  # type: ignore[attr-defined]
    assert scope.timing is type(scope).typical  # type: ignore[attr-defined]


def described(path: Path, timing: object) -> object:
    table = toml.loads(path.read_text(encoding="utf-8"))
    if timing is not None:
        table["virtual"]["timing"] = timing
    virtual = bench_of(table, path).virtual  # type: ignore[attr-defined]
    return virtual.bench().timing


@pytest.mark.parametrize(
    ("timing", "says"),
    [
        ({"up": "0 B/s"}, "moves no bytes"),
        ({"arm": "-1 ms"}, "arm"),
        ({"latency": "1 ms"}, "latency"),
        ({"up": "10 MHz"}, "data rate"),
        ("slow", "'typical', or a section with keys of its own"),
    ],
)
def test_a_timing_that_makes_no_sense_is_refused(timing: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        described(ROOT / "benches" / "mzm_awg_scope.toml", timing)
