"""Instruments that a package drives, beside a node: with a package of this folder, whose instruments are files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import lab_package
import pytest
from lab_package import Adapter, Laser

import drivers.package_talk
from drivers.adapter import PackageAdapter
from drivers.auxiliaries import Auxiliaries, Auxiliary, Holdable
from drivers.make_safe import make_safe
from drivers.pymeasure import Adapter as PyMeasureAdapter
from drivers.qcodes import Adapter as QCoDeSAdapter
from drivers.read_back import Care, PanelWatch
from drivers.safe import SafeState
from drivers.scpi import Expect
from hil.errors import (
    Changed,
    CommandRefused,
    ConfigError,
    ContractError,
    InstrumentError,
    LinkError,
    OutOfRange,
    SwitchedOff,
    UnsafeOutputs,
    WrongInstrument,
)

POWER = {"of": "power", "low": -10, "high": 6, "unit": "dBm"}
OUTPUT = {"of": "on", "on": "on", "off": "off"}


def laser(folder: Path, **more: Any) -> PackageAdapter:
    return Adapter(**{
        "address": str(folder / "laser"), "driver": "lab_package:Laser", "holds": {"power": POWER, "output": OUTPUT},
        "called": "laser", **more,
    })  # fmt: skip


def box(folder: Path) -> Laser:
    return Laser(str(folder / "laser"))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "laser.log").read_text(encoding="utf-8").splitlines()]


def test_it_is_set_held_read_back_and_off_at_the_end(tmp_path: Path) -> None:
    box(tmp_path).set("on", "on")  # left so by somebody
    driver = laser(tmp_path, setup={"bias": 0.25})
    assert isinstance(driver, Holdable)
    assert lines(tmp_path)[1:] == [{"box": "LabLaser", "on": False}, {"level": "bias", "value": 0.25}]
    Auxiliaries([Auxiliary("laser", driver, {"output": 1.0, "power": 3.0})], ["laser"]).start()
    assert lines(tmp_path)[3:] == [{"level": "power", "value": 3.0}, {"box": "LabLaser", "on": True}]
    with pytest.raises(OutOfRange):
        driver.hold("power", 6.1)
    assert box(tmp_path).get("power") == 3.0
    driver.close()
    driver.close()
    assert lines(tmp_path)[5:] == [{"box": "LabLaser", "on": False}]
    with pytest.raises((ContractError, LinkError)):
        driver.hold("output", 1.0)


def test_the_guardian_makes_it_safe_with_a_driver_of_its_own(tmp_path: Path) -> None:
    driver = laser(tmp_path)
    driver.rest_at({"power": -10.0, "output": 0.0})
    driver.hold("power", 3.0)
    driver.hold("output", 1.0)
    told = SafeState.from_json(driver.safe_state().to_json())
    assert told == driver.safe_state()
    (outcome,) = make_safe([told], 0.0)
    assert outcome.verified, outcome.why
    assert lines(tmp_path)[-2:] == [{"level": "power", "value": -10.0}, {"box": "LabLaser", "on": False}]
    box(tmp_path).set("serial", "8")
    (outcome,) = make_safe([told], 0.0)
    assert not outcome.verified
    assert "another instrument answers" in outcome.why


def test_a_switch_that_does_not_move_is_unsafe_outputs(tmp_path: Path) -> None:
    driver = laser(tmp_path)
    driver.hold("output", 1.0)
    box(tmp_path).set("stuck", True)
    state = driver.safe_state()
    with pytest.raises(UnsafeOutputs, match="'on' to on"):
        driver.close()
    (outcome,) = make_safe([state], 0.0)
    assert not outcome.verified
    with pytest.raises(CommandRefused, match="did not switch off"):
        laser(tmp_path)


def test_a_driver_that_hangs_does_not_keep_the_next_one_from_being_made_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers.package_talk, "OPEN_S", 0.1)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    made = [laser(tmp_path / name, called=name) for name in "ab"]
    for one in made:
        one.hold("output", 1.0)
    box(tmp_path / "a").set("hang", 0.5)
    first, second = make_safe([one.safe_state() for one in made], 0.0)
    assert "does not return" in first.why
    assert second.verified


def test_a_level_goes_in_steps_and_so_does_its_way_down(tmp_path: Path) -> None:
    bias = {"of": "bias", "low": -1, "high": 1, "unit": "V", "slew_per_s": 5.0}
    driver = laser(tmp_path, holds={"bias": bias, "output": OUTPUT})
    driver.hold("bias", 0.3)
    assert box(tmp_path).get("bias") == 0.0  # while it is off it rests
    driver.hold("output", 1.0)
    make_safe([driver.safe_state()], 0.0)
    values = [0.0, *(line["value"] for line in lines(tmp_path) if "level" in line)]
    assert max(values) == pytest.approx(0.3)
    assert values[-1] == 0.0
    assert max(abs(b - a) for a, b in pairwise(values)) <= 0.1 + 1e-9
    assert lines(tmp_path)[-1] == {"box": "LabLaser", "on": False}


def test_without_a_switch_every_level_needs_a_safe_value(tmp_path: Path) -> None:
    driver = laser(tmp_path, holds={"power": POWER})
    with pytest.raises(ConfigError, match="nothing says what safe means"):
        driver.rest_at({})
    driver.rest_at({"power": -10.0})
    driver.hold("power", 0.0)
    driver.close()
    assert box(tmp_path).get("power") == -10.0


def test_what_another_hand_does_is_seen(tmp_path: Path) -> None:
    driver = laser(tmp_path)
    beside = Auxiliaries([Auxiliary("laser", driver, {"power": 1.0, "output": 1.0})], ["laser"])
    beside.start()
    watch = PanelWatch(beside.looked, Care(0.0))
    watch.begin()
    watch.look()
    box(tmp_path).set("power", 2.0)
    with pytest.raises(Changed, match=r"power 1\.0 -> 2\.0"):
        watch.look()
    beside.reset(lambda: None)
    beside.start()
    watch.begin()
    watch.look()
    box(tmp_path).set("on", "off")
    with pytest.raises(SwitchedOff):
        watch.look()
    for way in (driver.reset, lambda: driver.hold("output", 1.0)):
        with pytest.raises(SwitchedOff):
            way()
    assert box(tmp_path).get("on") == "off"


def test_a_wire_that_breaks_is_opened_anew(tmp_path: Path) -> None:
    driver = laser(tmp_path)
    driver.hold("output", 1.0)
    driver._instrument.left = True
    with pytest.raises(LinkError):
        driver.read_back("output")
    driver.close()
    assert box(tmp_path).get("on") == "off"


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"holds": {"power": {"of": "power"}}}, ConfigError, "a level needs limits"),
        ({"holds": {"power": {"off": "power"}}}, ConfigError, "holds.power"),
        ({"holds": {"power": {**POWER, "of": "a;b"}}}, ConfigError, "no parameter"),
        ({"driver": "lab_package:Lazer"}, ConfigError, "no such driver"),
        ({"expect": Expect(serial="8")}, WrongInstrument, "another instrument"),
        ({"options": {"x": object()}}, ConfigError, "numbers, texts"),
        ({"options": {"x": 1}}, InstrumentError, "TypeError"),
        ({"setup": {"colour": 1}}, InstrumentError, "KeyError"),
        ({"holds": {}}, ConfigError, "holds nothing"),
        ({"holds": {"output": {**OUTPUT, "off": "on"}}}, ConfigError, "on and off are the same"),
        ({"holds": {"power": POWER, "level": POWER, "output": OUTPUT}}, ConfigError, "two names .* power"),
        ({"setup": {"power": 3.0}}, ConfigError, "setup sets power"),
    ],
)
def test_what_is_refused(tmp_path: Path, settings: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        laser(tmp_path, **settings)


@pytest.mark.parametrize(("kind", "module"), [(PyMeasureAdapter, "pymeasure"), (QCoDeSAdapter, "qcodes")])
def test_a_package_that_is_missing_is_named(kind: type[PackageAdapter], module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ConfigError, match="pip install"):
        kind("GPIB::4", driver="nowhere:Laser", holds={"output": {"of": "on"}})
    assert lab_package.Adapter.talk == "lab_package:talk"
