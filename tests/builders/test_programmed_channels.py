"""A vector bench whose heaters are programmed: driven, calibrated as a mesh, and made safe, over the wires of its bench file.

The boxes are served from this process; to a trainer they are boxes on a table, at addresses.
"""

from __future__ import annotations

import json
import tomllib
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from small import Command, until
from test_auxiliaries import on_the_table

import calibration.mesh.crossing
import calibration.mesh.crosstalk
import calibration.mesh.photodiodes
from calibration.certificate import Certificate
from drivers.keysight_e36300 import KeysightE36312A
from drivers.links.memory import MemoryLink
from drivers.vector.device import Vector
from hil.build.bench import Opened, open_bench
from hil.build.shapes.vector import VectorBench, channels, description
from hil.commands.calibrate import calibrate
from hil.config.bench import bench_of, read_bench
from hil.conformance import check_device
from hil.device import program, reads_back
from hil.devices.programming import Programming, Spent, Verify
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient
from hil.errors import ConfigError, ContractError, OutOfRange
from sim_devices.bench.description import assemble
from sim_devices.bench.served import RunningBench
from sim_devices.mzi_mesh import MZIMesh

BENCH, LEVELS = (Path(__file__).parents[2] / "benches" / name for name in ("mesh_heaters.toml", "mesh_levels.toml"))
ORDER = ["heaters", "heaters", "i1", "i2", "q1", "q2", "pd1", "pd2"]
X = torch.tensor([[1.0, 0.2, -0.5, 0.3], [0.0, -1.0, 0.7, 0.1]])
HEAT = torch.tensor([3.0, 5.0])


def without_noise(table: dict[str, Any]) -> None:
    table["virtual"]["node"]["noise"] = 0.0
    table["instruments"]["heaters"]["slew"] = "400 V/s"


@pytest.fixture
def quiet(folder: Path, stack: ExitStack) -> tuple[RunningBench, Opened]:
    """The bench without noise, its heaters with a slew, opened."""
    running = stack.enter_context(on_the_table(BENCH, folder, without_noise))
    return running, stack.enter_context(open_bench(read_bench(folder / "bench.toml")))


def wanted(heat: torch.Tensor) -> torch.Tensor:
    twin = MZIMesh(modes=2, specimen=11, noise=0.0)
    rng = torch.Generator()
    return twin.respond(twin.rest(len(X), rng), heat, X, rng)[0]


def switched(log: Path, on: bool) -> list[str]:
    """Names of the boxes whose outputs went on, or off, in order."""
    serials = {"SIM-E36312A-0001": "heaters"} | {
        f"SIM-2400-000{k}": name for k, name in enumerate(("i1", "i2", "q1", "q2", "pd1", "pd2"), 1)
    }
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [serials[line["box"].split()[-1]] for line in lines if line.get("on") is on]


def test_what_is_programmed_is_held_kept_to_its_slew_and_set_again_after_a_power_cut(
    quiet: tuple[RunningBench, Opened],
) -> None:
    running, opened = quiet
    inner: Any = opened.device
    device = resilient(inner, lambda rungs: Ladder(rungs, Patience(), lambda kind, **facts: None))
    assert device.spec.params is not None
    assert (device.spec.params.size, device.spec.params.unit, device.spec.params.high) == (2, "V", (8.0, 8.0))
    assert device.forward(X) == pytest.approx(wanted(torch.zeros(2)), rel=1e-4, abs=1e-9)  # type: ignore[arg-type]
    program(device, HEAT)
    assert device.forward(X) == pytest.approx(wanted(HEAT), rel=1e-4, abs=1e-9)  # type: ignore[arg-type]
    heaters: Any = running.boxes["heaters"]
    levels = [value for _, channel, value in heaters.history if channel == 3]
    assert levels[-1] == 5.0
    assert max(b - a for a, b in pairwise([0.0, *levels])) <= 2.001  # 400 V/s in steps of 5 ms
    heaters.reboot()
    inner.attend()  # else it is seen within [panel] every
    assert device.forward(X) == pytest.approx(wanted(HEAT), rel=1e-4, abs=1e-9)  # type: ignore[arg-type]
    assert heaters.stands(2) == 3.0


def fresh() -> Vector:
    """The device of the bench file, without wires."""
    bench = read_bench(BENCH)
    assert isinstance(bench, VectorBench)
    boxes = assemble(description(bench)).boxes
    drivers: dict[str, Any] = {
        name: one.choice.made(MemoryLink(boxes[name]), **one.choice.settings) for name, one in bench.instruments.items()
    }
    drive, read, programs = (
        list(channels(named, drivers)) for named in (bench.node.drive, bench.node.read, bench.node.program)
    )
    return Vector(drivers, drive, read, bench.timing, program=programs)


def test_it_keeps_the_contract_of_a_device() -> None:
    assert check_device(fresh).passed


@pytest.mark.parametrize("short", [0, 3])
def test_what_is_programmed_is_verified_by_what_the_supply_measures(folder: Path, stack: ExitStack, short: int) -> None:
    def shorted(table: dict[str, Any]) -> None:
        without_noise(table)
        table["virtual"]["heaters"]["short"] = short

    running = stack.enter_context(on_the_table(BENCH, folder, shorted))
    heaters: Any = running.boxes["heaters"]
    device = stack.enter_context(open_bench(read_bench(folder / "bench.toml"))).device
    assert device is not None
    programming = Programming(device)
    programming.verify = Verify(tolerance=0.01, tries=2)
    spent = programming.to(HEAT)
    assert spent == (Spent(2 + 2, 2 * 3, 2, 1) if short else Spent(2, 2, 0, 0))
    assert reads_back(device).held().tolist() == pytest.approx([3.0, 0.5 if short else 5.0])
    assert (heaters.stands(2), heaters.stands(3)) == (3.0, 5.0)  # written once more, and no more than was asked for
    before = len(heaters.history)
    with pytest.raises(ContractError, match="only what was programmed"):
        reads_back(device).rewrite(torch.tensor([3.0, 6.0]), torch.tensor([False, True]))
    assert len(heaters.history) == before


def test_a_source_that_does_not_measure_cannot_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeysightE36312A, "measures", False)
    with pytest.raises(ContractError, match="cannot be read back"):
        reads_back(fresh())


def test_a_voltage_beyond_the_limit_of_one_heater_sends_nothing(quiet: tuple[RunningBench, Opened]) -> None:
    running, opened = quiet
    heaters: Any = running.boxes["heaters"]
    device = opened.device
    assert device is not None
    program(device, HEAT)
    with pytest.raises(OutOfRange, match="channel 2"):
        program(device, torch.tensor([1.0, 8.5]))
    assert (heaters.stands(2), heaters.stands(3)) == (3.0, 5.0)
    device.close()
    with pytest.raises(ContractError, match="closed"):
        program(device, HEAT)
    assert heaters.outputs()["3"]["on"] is False


def test_the_mesh_is_calibrated_over_the_wires(folder: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer readings than on a table: the shots are the same, and the verdicts hold."""
    for module, name, few in (
        (calibration.mesh.photodiodes, "SHOTS", 64), (calibration.mesh.photodiodes, "SETTINGS", 24),
        (calibration.mesh.photodiodes, "REPEATS", 4), (calibration.mesh.crossing, "DRAWN", 8),
        (calibration.mesh.crossing, "SHOTS", 4), (calibration.mesh.crosstalk, "LEAST_SETTINGS", 16),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, few)
    stack.enter_context(on_the_table(BENCH, folder))
    saved = calibrate(folder / "bench.toml", folder / "calibrations", 3, Console(quiet=True))
    made = Certificate.load_good(saved)
    assert [step.name for step in made.steps] == ["photodiodes", "heaters", "crosstalk", "mesh"]
    assert made.provenance == "twin"
    assert made.instruments["heaters"].serial == "SIM-E36312A-0001"
    assert made.settings["node"]["program"] == ["heaters"]
    truth = MZIMesh(modes=2, specimen=11)
    for k, name in enumerate(("theta 0", "phi 0")):
        own = made.steps[-1].estimates[f"{name} own"]
        assert own.unit == "rad/V²"
        assert own.away(float(truth.matrix[k, k])) < 5
    assert made.steps[-1].figures["fidelity_worst"] > 0.999
    assert switched(folder / "bench.log", on=False) == ORDER


def test_a_bench_of_levels_is_calibrated_as_what_it_is(folder: Path, stack: ExitStack) -> None:
    def quick(table: dict[str, Any]) -> None:
        for instrument in table["instruments"].values():
            instrument.pop("slew", None)

    stack.enter_context(on_the_table(LEVELS, folder, quick))
    made = Certificate.load_good(calibrate(folder / "bench.toml", folder / "calibrations", 3, Console(quiet=True)))
    assert [step.name for step in made.steps] == ["rest", "settling", "inputs", "repeats"]
    assert len(made.steps[2].success) == 6
    assert made.steps[0].estimates["noise 3"].unit == "A"


def test_a_calibration_that_is_killed_leaves_the_heaters_off_first(folder: Path, stack: ExitStack) -> None:
    running = stack.enter_context(on_the_table(BENCH, folder))
    heaters: Any = running.boxes["heaters"]
    log = folder / "bench.log"
    command = Command("calibrate", folder / "bench.toml", "--out", folder / "c")
    assert until(lambda: heaters.stands(3) > 0.0 or command.poll() is not None), command.said()
    command.kill()
    assert until(lambda: len(switched(log, on=False)) == len(ORDER)), command.said()
    assert switched(log, on=False) == ORDER
    assert heaters.stands(3) == 0.0


def test_a_program_that_makes_no_sense_is_refused_before_anything_is_opened() -> None:
    table = tomllib.loads(BENCH.read_text(encoding="utf-8"))
    table["node"]["program"] = ["heater"]
    with pytest.raises(ConfigError, match=r"\[node\] program: no such instrument"):
        bench_of(table, BENCH)
    table["node"]["program"] = ["heaters.2"]
    bench = bench_of(table, BENCH)
    assert isinstance(bench, VectorBench)
    with pytest.raises(ConfigError, match="another number of parameters"):
        assemble(description(bench))
