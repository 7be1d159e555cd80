"""Specimens: hidden, repeatable, as far from the data sheet as it says."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest

from hil.build.shapes.waveform import WaveformBench, description
from hil.config.bench import bench_of
from hil.config.read import read_toml
from hil.errors import ConfigError
from hil.twin import Fittable, Noisy, Unknown
from sim_devices.bench.specimen import node_specimen, specimen
from sim_devices.delay_loop import DelayLoop
from sim_devices.mach_zehnder import MachZehnder

BENCH = Path("benches/mzm_awg_scope.toml")


def bench(**virtual: object) -> WaveformBench:
    table = read_toml(BENCH)
    found = bench_of({**table, "virtual": {**table["virtual"], **virtual}}, Path("test"))
    assert isinstance(found, WaveformBench)
    return found


def test_the_same_number_gives_the_same_specimen_and_another_one_another() -> None:
    sheet = MachZehnder()
    assert node_specimen(sheet, 3, "test") == node_specimen(sheet, 3, "test")
    assert node_specimen(sheet, 3, "test") != node_specimen(sheet, 4, "test")


def test_specimens_stray_by_the_spread_and_stay_inside() -> None:
    sheet, unknowns = MachZehnder(), MachZehnder().unknowns()
    drawn = [specimen(sheet.settings(), unknowns, seed) for seed in range(400)]
    for name, unknown in unknowns.items():
        values = [each[name] for each in drawn]
        assert all(unknown.low <= value <= unknown.high for value in values), name
        assert statistics.stdev(values) == pytest.approx(unknown.spread, rel=0.15), name
    assert {each["laser_w"] for each in drawn} == {sheet.laser_w}  # what is no unknown stays


def test_a_period_is_wrapped() -> None:
    turn = {"phase": Unknown(-math.pi, math.pi, 2.0, "rad", period=2 * math.pi)}
    drawn = [specimen({"phase": 3.0}, turn, seed)["phase"] for seed in range(50)]
    assert min(drawn) < -1
    assert all(-math.pi <= value <= math.pi for value in drawn)


@pytest.mark.parametrize(
    "sheet",
    [
        MachZehnder(v_pi_v=0.3, bandwidth_hz=1e5, dark_a=1e-6, insertion_loss_db=0.0, phase_rad=7.0),
        MachZehnder(v_pi_v=40.0, bandwidth_hz=4e10),
        MachZehnder(noise=0.0),
        DelayLoop(scale_v=0.5),
    ],
)
def test_nodes_of_every_size_have_specimens(sheet: MachZehnder | DelayLoop) -> None:
    drawn = [node_specimen(sheet, seed, "test") for seed in range(30)]
    size = "v_pi_v" if isinstance(sheet, MachZehnder) else "scale_v"
    values = [each[size] for each in drawn]
    assert statistics.stdev(values) == pytest.approx(sheet.settings()[size] / 35, rel=0.5)
    if isinstance(sheet, MachZehnder) and not sheet.noise:
        assert {each["noise"] for each in drawn} == {0.0}, "a node without noise stays so"


def test_a_new_parameter_moves_no_other() -> None:
    one = {"a": Unknown(0.0, 2.0, 0.1)}
    assert specimen({"a": 1.0, "b": 1.0}, {**one, "b": Unknown(0.0, 2.0, 0.1)}, 5)["a"] == specimen({"a": 1.0}, one, 5)["a"]


def test_a_sheet_outside_its_own_limits_is_refused() -> None:
    with pytest.raises(ConfigError, match="outside of its limits"):
        specimen({"a": 3.0}, {"a": Unknown(0.0, 2.0, 0.1)}, 5)


def test_a_bench_file_hides_node_and_cable() -> None:
    plain, hidden = description(bench()).wires[0], description(bench(specimen=17)).wires[0]
    assert hidden.delay_s != plain.delay_s
    assert abs(hidden.delay_s - plain.delay_s) < 3e-9
    assert hidden.node.settings["v_pi_v"] != plain.node.settings["v_pi_v"]
    assert hidden.node.settings["laser_w"] == MachZehnder().laser_w
    assert bench(specimen=17).virtual.node.settings() == bench().virtual.node.settings()  # type: ignore[union-attr]


def test_a_node_without_unknowns_has_no_specimens() -> None:
    node = {"use": "sim_devices.tabulated:Tabulated", "drive": [-4.0, 0.0, 4.0], "reading": [0.0, 0.1, 0.3]}
    with pytest.raises(ConfigError, match="no specimens"):
        description(bench(specimen=1, node=node))


def test_the_modulator_can_be_fitted() -> None:
    node = MachZehnder(hysteresis_v=0.1)
    assert isinstance(node, Fittable)
    assert isinstance(node, Noisy)
    assert set(node.unknowns()) <= set(node.settings())
    again = node.remade({"v_pi_v": 3.7})
    assert again.settings() == {**node.settings(), "v_pi_v": 3.7}
