"""Faults of the physics, seen in the records of the scope; and what the bench remembers of its own outputs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hil.errors import ConfigError
from sim_devices.bench.control import ControlClient
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import RunningBench, build

NODE = Part(
    "sim_devices.mach_zehnder:MachZehnder",
    {"v_pi_v": 3.5, "phase_rad": -math.pi / 2, "bandwidth_hz": 1e9, "noise": 0.0, "drift_rad_per_s": 1.0},
)
BOXES = (
    VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600"),
    VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision", {"adc_bits": 12}),
)
POINTS, RATE_HZ, RANGE_V = 256, 50e6, 1.0


def description(**more: object) -> VirtualBench:
    return VirtualBench(BOXES, (VirtualWire("awg", "scope", NODE),), seed=3, **more)  # type: ignore[arg-type]


class Table:
    """A bench in this process, set up for one burst a shot."""

    def __init__(self, bench: RunningBench) -> None:
        self.bench = bench
        self.awg, self.scope = bench.boxes["awg"], bench.boxes["scope"]
        payload = np.linspace(-32767, 32767, POINTS).astype("<i2").tobytes()
        self.awg.execute(b":FORM:BORD SWAP;:SOUR1:DATA:ARB:DAC ramp,#%d%d%s" % (len(str(len(payload))), len(payload), payload))
        self.awg.execute(b":SOUR1:FUNC:ARB ramp;:SOUR1:FUNC ARB;:SOUR1:FUNC:ARB:FILT OFF;SRAT 50E6;:SOUR1:VOLT 4")
        self.awg.execute(b":SOUR1:BURS:MODE TRIG;NCYC 1;STAT 1;:TRIG1:SOUR BUS;:OUTP:SYNC 1;:OUTP1 1")
        self.scope.execute(b":CHAN1:RANG 1;OFFS 0.2;COUP DC;:TIM:RANG 5.12E-6;REF LEFT;:TIM:POS 0.512E-6")
        self.scope.execute(
            b":TRIG:EDGE:SOUR EXT;LEV 0.5;:TRIG:SWE NORM;:WAV:FORM WORD;BYT LSBF;UNS 1;POIN:MODE RAW;:WAV:POIN 256"
        )
        assert self.scope.execute(b"SYST:ERR?") == self.awg.execute(b"SYST:ERR?") == b'+0,"No error"'

    def fault(self, box: str, kind: str, **settings: object) -> str:
        return self.bench.faults.add({"box": box, "kind": kind, **settings})

    def trigger(self) -> bool:
        """Arm, play; was it seen?"""
        self.scope.execute(b":SING")
        self.awg.execute(b"*TRG")
        return self.scope.execute(b":OPER:COND?") == b"+0"

    def words(self) -> NDArray[np.int64]:
        assert self.trigger()
        answer = self.scope.execute(b":WAV:DATA?")
        assert answer is not None
        return np.frombuffer(answer[10:], "<u2").astype(np.int64)

    def extremes(self, channel: str = "1") -> tuple[float, float]:
        seen = self.bench.control.extremes()["awg"]
        assert isinstance(seen, dict)
        return seen[channel]["low_v"], seen[channel]["high_v"]


@pytest.fixture
def table() -> Iterator[Table]:
    with build(description()) as bench:
        yield Table(bench)


def volts(words: NDArray[np.int64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (words - 32768) * (RANGE_V / 65536) + 0.2
    return found


def test_a_stuck_channel_reads_one_value(table: Table) -> None:
    table.fault("scope", "stuck", volts=0.1, times=2, after=1)
    alive = [len(set(table.words())) > 50 for _ in range(4)]
    assert alive == [True, False, False, True]
    table.fault("scope", "stuck", volts=0.1)
    assert abs(volts(table.words())[0] - 0.1) < RANGE_V / 4096


def test_a_stuck_channel_beside_a_live_one(table: Table) -> None:
    table.fault("scope", "stuck", channel=2)
    assert len(set(table.words())) > 50


def test_saturation_clips(table: Table) -> None:
    table.fault("scope", "saturation")
    assert set(table.words()) == {65535}
    table.fault("scope", "saturation", volts=0.4)
    part = table.words()
    assert 0 < (part == 65535).sum() < POINTS
    table.fault("scope", "saturation", volts=-0.5)
    assert (table.words() == 1).any()  # clipped low; 0 would be a hole


def test_a_memory_that_lags_behind_gives_the_record_before(table: Table) -> None:
    first = table.words()
    table.fault("scope", "behind", times=2)
    second, third, fourth = (table.words() for _ in range(3))
    assert (second == first).all()
    assert not (third == first).all()  # that of the second shot, in which the node had drifted on
    assert not (fourth == third).all()


def test_holes_are_zeros_at_seeded_places(table: Table) -> None:
    before = table.words()
    table.fault("scope", "holes", points=5)
    holed = table.words()
    assert (holed == 0).sum() == 5
    assert not (before == 0).any()


def test_sentinels_in_preamble_and_words(table: Table) -> None:
    table.fault("scope", "sentinel")
    assert set(table.words()) == {0}
    fields = (table.scope.execute(b":WAV:PRE?") or b"").split(b",")
    assert (float(fields[7]), float(fields[8]), int(fields[2])) == (9.9e37, 9.9e37, POINTS)
    assert float((table.scope.execute(b":WAV:FORM ASC;:WAV:DATA?") or b"")[10:].split(b",")[3]) == 9.9e37
    json.loads(json.dumps(table.scope.snapshot()))
    table.scope.execute(b":WAV:FORM WORD")
    assert table.words().all()


def test_edges_are_missed(table: Table) -> None:
    table.fault("scope", "missed_trigger", times=2, after=1)
    assert [table.trigger() for _ in range(4)] == [True, False, False, True]
    table.fault("scope", "missed_trigger")
    assert not table.trigger()
    table.awg.execute(b"*TRG")  # it still waits, and sees the next one
    assert table.scope.execute(b":OPER:COND?") == b"+0"


def test_a_mode_hop_steps_power_and_phase_raises_the_noise_and_keeps_the_drift(table: Table) -> None:
    undisturbed = build(description())
    other = Table(undisturbed)
    for each in (table, other):
        each.bench.plant.set("node.noise", 0.2)
    table.fault("node", "mode_hop", after=1, times=3, phase_rad=0.5, power=0.6, noise=30)
    mine, theirs = [[volts(t.words()) for _ in range(5)] for t in (table, other)]
    undisturbed.close()
    hopped = [not np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)]
    assert hopped == [False, True, True, True, False]  # the drift went on as if there had been none
    drive = np.linspace(-2, 2, POINTS)
    was = np.polyfit(drive, mine[0], 9)
    now = np.polyfit(drive, mine[1], 9)
    assert np.std(mine[1] - np.polyval(now, drive)) > 3 * np.std(mine[0] - np.polyval(was, drive))
    peak_v = 1000 * 0.9e-3 * 10**-0.4
    expected = 0.6 * 0.5 * peak_v * (1 + np.cos(math.pi * drive / 3.5 - math.pi / 2 + 0.5))
    assert np.abs(np.polyval(now, drive) - expected).max() < 0.05 * peak_v


def test_a_rate_of_holes_is_the_same_twice() -> None:
    found = []
    for _ in range(2):
        with build(description(faults=({"box": "scope", "kind": "holes", "rate": 0.4, "points": 3},))) as bench:
            table = Table(bench)
            found.append([table.words() for _ in range(12)])
            log = bench.faults.log()
    assert np.array_equal(*found)
    assert 0 < len(log) < 12
    assert [entry["exchange"] for entry in log] == [i for i, words in enumerate(found[0]) if (words == 0).any()]


def test_a_node_says_which_hop_it_can_make(table: Table) -> None:
    with pytest.raises(ConfigError, match="no step at all"):
        table.fault("node", "mode_hop")
    with pytest.raises(ConfigError, match="must be positive"):
        table.fault("node", "mode_hop", power=0)
    with pytest.raises(ConfigError, match="does not apply to a box"):
        table.fault("awg", "stuck")


# -- What the bench watches of its own outputs ------------------------------------------------------------------------


def test_extremes_are_what_was_really_at_the_connector(table: Table) -> None:
    assert table.extremes() == pytest.approx((-2, -2), abs=1e-3)  # on, and at rest at its first point
    table.trigger()
    assert table.extremes() == pytest.approx((-2, 2), abs=1e-3)
    table.awg.execute(b":SOUR1:VOLT:OFFS 1")
    assert table.extremes() == pytest.approx((-2, 2), abs=1e-3)  # it rests at -1 now
    table.awg.execute(b":SOUR1:VOLT:OFFS -1;OFFS 0")  # for a moment only
    assert table.extremes() == pytest.approx((-3, 2), abs=1e-3)
    table.awg.execute(b":OUTP1 0;:SOUR1:VOLT 9;*TRG")
    assert table.extremes() == pytest.approx((-3, 2), abs=1e-3)  # off


def test_extremes_know_the_real_load_and_a_free_running_output(table: Table) -> None:
    table.awg.execute(b":SOUR2:FUNC SIN;:SOUR2:VOLT 1;:OUTP2 1")
    assert table.extremes("2") == pytest.approx((-1, 1), abs=1e-3)  # nothing is connected: twice what was asked for
    table.awg.execute(b":OUTP2 0")
    table.awg.execute(b":SOUR1:BURS:STAT 0")
    assert table.extremes() == pytest.approx((-2, 2), abs=1e-3)
    table.awg.execute(b":SOUR1:FUNC:ARB:FILT NORM;:SOUR1:FUNC:ARB ramp")
    low, high = table.extremes()
    assert low < -2.05  # the filter overshoots where the ramp jumps back
    assert high > 2.05


def test_extremes_faults_and_log_over_the_control_port(tmp_path: Path) -> None:
    log = tmp_path / "bench.log"
    with build(description(log_path=str(log))) as bench:
        table = Table(bench)
        with ControlClient(*bench.control.address) as control:
            id = control.fault("scope", "missed_trigger")
            assert not table.trigger()
            assert [(e["box"], e["kind"], e["id"]) for e in control.faults()["log"]] == [("scope", "missed_trigger", id)]
            assert control.heal(id) == 1
            assert control.faults()["faults"] == []
            assert control.extremes()["scope"] == {}
            assert control.extremes()["awg"]["1"]["high_v"] == pytest.approx(2, abs=1e-3)  # type: ignore[index]
            with pytest.raises(ConfigError, match="did you mean"):
                control.fault("scope", "hole")
            lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
            assert [(line["channel"], line["on"]) for line in lines] == [(1, True)]
            control.reboot("awg")
            assert len(log.read_text(encoding="utf-8").splitlines()) == 2
