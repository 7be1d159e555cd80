"""A node that is almost what its twin describes: refused, or, where that is allowed, described by twin and network together."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import tomli_w
import torch

from calibration.sequence import Subject, calibrated
from calibration.step import Step
from calibration.twin_check import compare_twin
from calibration.waveform.sequence import waveform
from calibration.waveform.twin_fit import network_of
from hil.cli import run
from hil.config.resolve import twin_choice
from hil.conformance import check_twin
from hil.errors import ConfigError
from sim_devices.corrected import Corrected
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated
from sim_devices.tabulated import Tabulated

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = """
[data]
train_examples = 128
[network]
widths = [64, 12, 10]
[device]
bench = "b.toml"
[encode]
overflow = "clip"
[learner]
use = "pat"
[train]
epochs = 1
"""
USE = "sim_devices.mach_zehnder:MachZehnder"
SHEET = MachZehnder(low_v=-4.0, high_v=4.0)
DRIVE = torch.linspace(-4, 4, 401, dtype=torch.float64)
ALMOST = 0.18 + 0.17 * torch.sin(0.9 * DRIVE) + 0.002 * torch.sin(2.7 * DRIVE)
NETWORK = {"w1": [1.0, -2.0], "b1": [0.5, 0.0], "w2": [0.3, 0.1], "b2": 0.05, "scale": 0.01, "middle": 0.0, "reach": 4.0}


def node() -> Simulated:
    return Simulated(Tabulated(drive=DRIVE.tolist(), reading=ALMOST.tolist(), noise=4e-4), seed=3)


def corrected(**other: object) -> Corrected:
    return Corrected(of=USE, base=SHEET.settings(), **{**NETWORK, **other})  # type: ignore[arg-type]


def steps(network: bool) -> dict[str, Step]:
    return {step.name: step for step in calibrated(waveform(), Subject(node(), SHEET, 1, network))}


def test_a_network_stands_on_top_only_if_it_may() -> None:
    refused = steps(network=False)
    assert [p.kind for p in refused["transfer"].problems] == ["kind"]
    assert not refused["twin"].good
    twin = steps(network=True)["twin"]
    assert twin.good, twin.problems
    assert "is part of it" in twin.said
    assert 0.8 < twin.figures["chi2"] < 1.2
    made = SHEET.remade({name: e.value for name, e in twin.estimates.items()})
    network = network_of(twin)
    assert network is not None
    whole = twin_choice("sim_devices.corrected:Corrected", {"of": USE, "base": made.settings(), **network}, "test").build()
    assert compare_twin(node(), whole).spread < compare_twin(node(), made).spread / 2


def test_a_good_node_gets_none() -> None:
    found = {s.name: s for s in calibrated(waveform(), Subject(Simulated(SHEET, seed=2), SHEET, 0, network=True))}
    assert found["twin"].good
    assert network_of(found["twin"]) is None
    assert "a correction by a network is not needed" in found["twin"].said


def test_it_is_a_twin() -> None:
    check_twin(corrected)


def test_it_differs_from_its_base_by_the_network() -> None:
    x, u = torch.tensor([[1.0]]), 0.25
    by_hand = 0.01 * (0.3 * torch.tanh(torch.tensor(u + 0.5)) + 0.1 * torch.tanh(torch.tensor(-2 * u)) + 0.05)
    assert float(corrected().ideal(x) - SHEET.ideal(x)) == pytest.approx(float(by_hand), rel=1e-4)


@pytest.mark.parametrize("wrong", [{"w2": [1.0]}, {"reach": 0.0}, {"b2": float("nan")}])
def test_a_network_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="makes no sense"):
        corrected(**wrong)


def test_a_node_that_is_programmed_takes_no_network() -> None:
    with pytest.raises(ConfigError, match="no network can stand"):
        Corrected(of="sim_devices.mzi_mesh:MZIMesh", base={"modes": 3}, **NETWORK)  # type: ignore[arg-type]


def test_a_bench_is_certified_with_it_and_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tomllib.loads((ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8"))
    curve = {"use": "sim_devices.tabulated:Tabulated", "drive": DRIVE.tolist(), "reading": ALMOST.tolist(), "noise": 4e-4}
    bench = {**table, "virtual": {**table["virtual"], "node": curve}, "calibration": {"network": True}}
    (tmp_path / "b.toml").write_text(tomli_w.dumps(bench), encoding="utf-8")
    assert run(["calibrate", str(tmp_path / "b.toml"), "--out", str(tmp_path / "c")]) == 0, capsys.readouterr().out
    saved = next((tmp_path / "c").glob("*.toml"))
    assert tomllib.loads(saved.read_text(encoding="utf-8"))["twin"]["use"] == "sim_devices.corrected:Corrected"
    (tmp_path / "b.toml").write_text(
        tomli_w.dumps({**bench, "calibration": {"network": True, "use": str(saved)}}), encoding="utf-8"
    )
    (tmp_path / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    capsys.readouterr()
    assert run(["train", str(tmp_path / "e.toml"), "--run", str(tmp_path / "r")]) == 0, capsys.readouterr().err
    honest = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))["twin_honesty"]
    assert honest["nrmse"] < 0.002  # the modulator alone is 0.005 off
