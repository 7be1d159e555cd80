"""Benches of many instruments, from their files: what goes on and off in which order, and what is refused before that.

The boxes are served from this process; to a trainer they are boxes on a table, at addresses.
"""

from __future__ import annotations

import json
import os
import signal
import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from small import Command, until

from drivers.keysight_n7776c import KeysightN7776C
from drivers.links.memory import MemoryLink
from hil.build.auxiliaries import _nothing_set, _tolerance, _values
from hil.build.bench import open_bench
from hil.build.calibration import settings_of
from hil.build.training import built
from hil.config.bench import InstrumentTable, bench_of, read_bench
from hil.config.experiment import read_experiment
from hil.data.dataset import Split
from hil.device import ArraySpec
from hil.errors import Changed, CommandRefused, ConfigError, OutOfRange
from hil.training.loop import train
from sim_devices.bench.served import RunningBench, build
from sim_devices.instruments.keysight_n7776c import KeysightN7776C as SimulatedLaser

ROOT = Path(__file__).parents[2]
BENCH, LEVELS = (ROOT / "benches" / name for name in ("mzm_bias_laser.toml", "mesh_levels.toml"))
NAMES = {"33622A": "awg", "E36312A": "bias", "N7776C": "laser", "MODEL": "pd", "LabLaser": "laser", "SPIKING-BOARD": "board"}
EXPERIMENT = """
[data]
train_examples = 48
[network]
widths = [64, {width}, 10]
{answers}
[device]
bench = "bench.toml"
[encode]
overflow = "clip"
{decode}
[learner]
use = "adfa"
[train]
epochs = 500
batch = 16
threads = 1
checkpoint_every = 1
"""
DECODE = '[decode]\nzero = "{}"\nscale = "{}"'
STARTED = [("bias", True), ("laser", True), ("awg", True)]
ENDED = [("laser", False), ("awg", False), ("bias", False)]


def on_the_table(path: Path, folder: Path, change: Callable[[dict[str, Any]], None] = lambda table: None) -> RunningBench:
    """Serve the boxes of a shipped bench, and write the bench.toml of a trainer who knows their addresses."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    change(table)
    shipped = bench_of(table, path)
    described = __import__(f"hil.build.shapes.{table['shape']}", fromlist=["description"]).description(shipped)
    running = build(replace(described, log_path=str(folder / "bench.log")))
    del table["virtual"]
    for name, one in table["instruments"].items():
        one["resource"] = running.resources[name]
    (folder / "bench.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    return running


def switched(log: Path) -> list[tuple[str, bool]]:
    """Which outputs went on and off, oldest first, as the bench itself wrote down."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [(NAMES[line["box"].split()[0]], line["on"]) for line in lines if "box" in line]


def test_the_bias_is_on_before_the_laser_and_the_laser_is_off_first(folder: Path, stack: ExitStack) -> None:
    """At the start, in a recovery, and after a Ctrl-C."""
    running = stack.enter_context(on_the_table(BENCH, folder))
    bench = read_bench(folder / "bench.toml")
    assert settings_of(bench)["laser"]["set"] == {"power": "1 mW", "wavelength": "1.55 µm"}
    with pytest.raises(KeyboardInterrupt), open_bench(bench) as opened:  # noqa: PT012
        device: Any = opened.device
        assert list(opened.resources) == ["awg", "scope", "bias", "laser"]
        lit = device.forward(torch.full((1, 4), 1.0))
        assert float(lit.max()) > 0.05  # there is light
        running.boxes["laser"].press(":SOUR0:POW 0.0005")  # type: ignore[attr-defined]
        device.attend()
        with pytest.raises(Exception, match=r"power 0\.001 W -> 0\.0005 W"):
            device.forward(torch.full((1, 4), 1.0))
        device.reinstate()
        assert "changed by another hand: power" in device.verify()
        os.kill(os.getpid(), signal.SIGINT)
    assert switched(folder / "bench.log") == STARTED + ENDED + STARTED + ENDED


def test_after_a_sigkill_the_guardian_keeps_the_order(folder: Path, stack: ExitStack) -> None:
    stack.enter_context(on_the_table(BENCH, folder))
    (folder / "e.toml").write_text(
        EXPERIMENT.format(width=8, answers="", decode=DECODE.format("0 V", "300 mV")), encoding="utf-8"
    )
    log = folder / "bench.log"
    command = Command("train", folder / "e.toml", "--run", folder / "r")
    assert until(lambda: len(switched(log)) == 3 or command.poll() is not None), command.said()
    command.kill()
    assert until(lambda: len(switched(log)) == 6), command.said()
    assert switched(log) == STARTED + ENDED


def lab_laser(folder: Path, stack: ExitStack) -> None:
    """The laser of that bench is an instrument that a package drives, whose module lies beside the bench file."""
    stack.enter_context(on_the_table(BENCH, folder, lambda table: table["virtual"]["laser"].pop("feeds")))
    (folder / "lab_package.py").write_bytes((ROOT / "tests" / "drivers" / "lab_package.py").read_bytes())
    table = tomllib.loads((folder / "bench.toml").read_text(encoding="utf-8"))
    table["instruments"]["laser"] = {
        "use": "lab_package:Adapter", "driver": "lab_package:Laser", "resource": str(folder / "laser.json"),
        "options": {"log": str(folder / "bench.log")}, "set": {"power": "3 dBm"}, "safe": {"output": False},
        "holds": {
            "power": {"of": "power", "low": -10, "high": 6, "unit": "dBm"}, "output": {"of": "on", "on": "on", "off": "off"},
        },
    }  # fmt: skip
    (folder / "bench.toml").write_text(tomli_w.dumps(table), encoding="utf-8")


def test_a_laser_of_a_package_is_on_last_and_off_first(folder: Path, stack: ExitStack) -> None:
    lab_laser(folder, stack)
    with pytest.raises(KeyboardInterrupt), open_bench(read_bench(folder / "bench.toml")) as opened:  # noqa: PT012
        device: Any = opened.device
        assert opened.resources["laser"].startswith("Lab LabLaser")
        device.forward(torch.full((1, 4), 1.0))
        held = json.loads((folder / "laser.json").read_text(encoding="utf-8"))
        assert held == {"power": 3.0, "bias": 0.0, "on": "on"}
        (folder / "laser.json").write_text(json.dumps({**held, "power": 2.0}), encoding="utf-8")
        device.attend()
        with pytest.raises(Changed, match=r"power 3\.0 -> 2\.0"):
            device.forward(torch.full((1, 4), 1.0))
        device.reinstate()
        device.verify()
        os.kill(os.getpid(), signal.SIGINT)
    assert switched(folder / "bench.log") == STARTED + ENDED + STARTED + ENDED


def test_the_guardian_switches_a_laser_of_a_package_off_first(folder: Path, stack: ExitStack) -> None:
    lab_laser(folder, stack)
    (folder / "e.toml").write_text(
        EXPERIMENT.format(width=8, answers="", decode=DECODE.format("0 V", "300 mV")), encoding="utf-8"
    )
    log = folder / "bench.log"
    command = Command("train", folder / "e.toml", "--run", folder / "r")
    assert until(lambda: len(switched(log)) == 3 or command.poll() is not None), command.said()
    command.kill()
    assert until(lambda: len(switched(log)) == 6), command.said()
    assert switched(log) == STARTED + ENDED


def test_a_driver_of_a_package_without_names_is_refused_as_the_file_is_read() -> None:
    table = tomllib.loads(BENCH.read_text(encoding="utf-8"))
    table["instruments"]["laser"] = {"use": "drivers.pymeasure:Adapter", "set": {"power": "3 dBm"}}
    with pytest.raises(ConfigError, match=r"\[instruments.laser\].*no driver, holds"):
        bench_of(table, Path("test.toml"))


def test_the_guardian_opens_a_driver_of_pymeasure_and_switches_its_laser_off_first(folder: Path, stack: ExitStack) -> None:
    pytest.importorskip("pymeasure")
    stack.enter_context(on_the_table(BENCH, folder))
    table = tomllib.loads((folder / "bench.toml").read_text(encoding="utf-8"))
    table["instruments"]["laser"] = {
        "use": "drivers.pymeasure:Adapter", "driver": "pymeasure.instruments.keysight:KeysightN7776C",
        "resource": table["instruments"]["laser"]["resource"], "options": {"visa_library": "@py"},
        "setup": {"wavelength": 1550.0}, "set": {"power": "0 dBm"}, "safe": {"output": False},
        "holds": {
            "power": {"of": "output_power_dBm", "low": -10, "high": 6, "unit": "dBm"}, "output": {"of": "output_enabled"},
        },
    }  # fmt: skip
    (folder / "bench.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    with open_bench(read_bench(folder / "bench.toml")) as opened:
        assert "N7776C" in opened.resources["laser"]
        assert opened.provenance == "twin"
        assert opened.device is not None
        assert float(opened.device.forward(torch.full((1, 4), 1.0)).max()) > 0.05
    log = folder / "bench.log"
    assert switched(log) == STARTED + ENDED
    (folder / "e.toml").write_text(
        EXPERIMENT.format(width=8, answers="", decode=DECODE.format("0 V", "300 mV")), encoding="utf-8"
    )
    command = Command("train", folder / "e.toml", "--run", folder / "r")
    assert until(lambda: len(switched(log)) == 9 or command.poll() is not None), command.said()
    command.kill()
    assert until(lambda: len(switched(log)) == 12), command.said()
    assert switched(log) == (STARTED + ENDED) * 2


def test_a_network_trains_on_levels_and_all_is_off_at_the_end(folder: Path, stack: ExitStack) -> None:
    def quick(table: dict[str, Any]) -> None:
        for instrument in table["instruments"].values():
            instrument.pop("slew", None)

    stack.enter_context(on_the_table(LEVELS, folder, quick))
    (folder / "e.toml").write_text(
        EXPERIMENT.format(width=6, answers="answers = 3", decode=DECODE.format("0 A", "50 µA")), encoding="utf-8"
    )
    with built(read_experiment(folder / "e.toml")) as made:
        data = made.training.data
        few = Split(data.validation.x[:32], data.validation.y[:32])
        made.training.data = replace(data, validation=few, test=few)
        assert len(list(islice(train(made.training), 3))) == 3
        assert made.node.source is not None
        assert made.node.source.spec.provenance == "twin"
    found = switched(folder / "bench.log")
    on, off = [name for name, up in found if up], [name for name, up in found if not up]
    assert on == off == ["laser", *["bias"] * 6, *["pd"] * 3]


def spiking(folder: Path) -> Path:
    """A virtual board of neurons, with a bias and a laser beside it."""
    bench, board = (
        tomllib.loads((ROOT / "benches" / name).read_text(encoding="utf-8")) for name in (BENCH.name, "spiking_board.toml")
    )
    for name in ("bias", "laser"):
        board["instruments"][name] = bench["instruments"][name]
        board["virtual"][name] = {key: value for key, value in bench["virtual"][name].items() if key != "feeds"}
    board |= {"start": bench["start"], "safe": {"order": ["laser", "board", "bias"]}}
    (folder / "board.toml").write_text(tomli_w.dumps(board), encoding="utf-8")
    return folder / "board.toml"


ARMED = [("bias", True), ("laser", True), ("board", True)]
DISARMED = [("laser", False), ("board", False), ("bias", False)]


def test_a_board_is_armed_after_the_laser_and_disarmed_before_the_bias(folder: Path) -> None:
    """At the start, in a recovery after another hand, and at the end."""
    with open_bench(read_bench(spiking(folder)), folder) as opened:
        chip: Any = opened.chip
        assert list(opened.resources) == ["board", "bias", "laser"]
        array = chip.array(ArraySpec(4))
        array.reset()
        spikes = array.forward(torch.full((3, 2, 4), 0.8))
        assert chip._inner._watch._panels[1:]  # it looks at what they hold, with the board
        driver = chip._inner._beside._members[1].driver
        driver._scpi.send(":SOUR0:POW 0.0005")  # as another hand does
        chip._inner._watch.attend()
        with pytest.raises(Changed, match=r"power 0\.001 W -> 0\.0005 W"):
            array.forward(torch.full((3, 2, 4), 0.8))
        assert "N7776C" in chip.identify()
        chip.reinstate()
        chip.verify()
        array.reset()
        assert torch.equal(array.forward(torch.full((3, 2, 4), 0.8)), spikes)
    assert switched(folder / "bench.log") == ARMED + DISARMED + ARMED + DISARMED


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table["virtual"].pop("laser"), r"no \[virtual.laser\]"),
        (lambda table: table["virtual"]["laser"].update(feeds={"path": "node.laser_w"}), "feeds"),
        (lambda table: table["instruments"]["laser"].pop("set"), "without a role"),
        (lambda table: table["instruments"]["board"].update(use="test_auxiliaries:Alone", leak=0.5), "beside its board"),
    ],
)
def test_what_a_board_cannot_have_beside_it(folder: Path, change: Callable[[dict[str, Any]], None], said: str) -> None:
    table = tomllib.loads(spiking(folder).read_text(encoding="utf-8"))
    change(table)
    with pytest.raises(ConfigError, match=said), open_bench(bench_of(table, folder / "board.toml")):
        raise AssertionError("it must not be opened")


class Alone:
    """A driver of a board that knows nothing of what stands beside it."""

    def __init__(self, link: Any, leak: float, v_th: float, provenance: str, expect: Any = None) -> None:
        raise AssertionError("it must not be opened")


def test_after_a_sigkill_the_guardian_keeps_the_order_around_a_board(folder: Path) -> None:
    spiking(folder)
    text = (ROOT / "experiments" / "digits_board_adfa_snn.toml").read_text(encoding="utf-8")
    (folder / "e.toml").write_text(text.replace("benches/spiking_board.toml", "board.toml"), encoding="utf-8")
    log = folder / "r" / "bench.log"
    command = Command("train", folder / "e.toml", "--run", folder / "r")
    assert until(lambda: (log.exists() and len(switched(log)) == 3) or command.poll() is not None), command.said()
    command.kill()
    assert until(lambda: len(switched(log)) == 6), command.said()
    assert switched(log) == ARMED + DISARMED


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("instruments.laser.set", {}, r"instruments without a role.*laser"),
        ("instruments.awg.set", {"voltage": "1 V"}, "an instrument with a role"),
        ("instruments.awg.safe", {"output": False}, "an instrument with a role"),
        (
            "instruments.scop",
            {"use": "drivers.keysight_infiniivision:InfiniiVision", "set": {"range": "1 V"}},
            "driver that holds",
        ),
        ("start.order", ["lasr"], r"\[start\] order: no such instrument"),
        ("start.order", ["awg"], "started by the shape"),
        ("instruments.laser.sete", {}, "unknown key"),
        ("virtual", {"node": {"use": "mach_zehnder"}}, r"no \[virtual.awg\]"),
    ],
)
def test_what_the_file_says_wrong_is_refused_before_anything_is_opened(path: str, value: object, said: str) -> None:
    table = tomllib.loads(BENCH.read_text(encoding="utf-8"))
    *way, last = path.split(".")
    at = table
    for key in way:
        at = at[key]
    at[last] = value
    if path == "instruments.scop":
        table["virtual"]["scop"] = table["virtual"]["scope"]
    with pytest.raises(ConfigError, match=said):
        bench_of(table, Path("test.toml"))


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"power": "6 mW"}, OutOfRange, r"\[instruments.laser\] set power"), ({"power": "1 A"}, ConfigError, "set power"),
        ({"powr": "1 mW"}, ConfigError, "did you mean power"), ({"output": 1}, ConfigError, "on or off"),
    ],
)  # fmt: skip
def test_a_value_that_an_instrument_does_not_have(given: dict[str, object], kind: type[Exception], said: str) -> None:
    ports = KeysightN7776C(MemoryLink(SimulatedLaser()), high_w=5e-3).holdable()
    with pytest.raises(kind, match=said) as refused, _nothing_set():
        _values(given, ports, "test.toml: [instruments.laser] set")
    assert "Outputs: off; nothing was set." in str(refused.value)  # they are open by then, and reset
    table = InstrumentTable(use="x", tolerance={"power": "0 W"})
    with pytest.raises(ConfigError, match="above 0"):
        _tolerance(table, {"power": 1e-3}, ports)


def test_a_bias_that_does_not_hold_leaves_the_laser_off(folder: Path, stack: ExitStack) -> None:
    def shorted(table: dict[str, Any]) -> None:
        table["virtual"]["bias"]["short"] = 1

    stack.enter_context(on_the_table(BENCH, folder, shorted))
    with pytest.raises(CommandRefused, match=r"bias voltage: .*got 0\.15 V"), open_bench(read_bench(folder / "bench.toml")):
        raise AssertionError("it must not be opened")
    assert switched(folder / "bench.log") == [("bias", True), ("bias", False)]
