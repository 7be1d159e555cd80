from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calibration.calibration import Calibrated, Calibration
from hil.device import Device, Port, Restorable, Spec
from hil.errors import ConfigError, ContractError, OutOfRange
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

FITTED = Calibration(
    gain=-2.0,
    offset=0.3,
    zero=0.1,
    scale=0.25,
    residual_rms=1.5e-3,
    input_unit="V",
    output_unit="V",
    provenance="twin",
    taken_at="2026-11-22T01:45:12+00:00",
    serials={"awg": "SIM-33622-0007"},
)


class Recording:
    """Answers half the drive, keeps the last drive."""

    spec = Spec(Port("dac", -1.0, 3.0, "V", 2), Port("adc", -0.5, 1.5, "V", 2))
    last: Tensor | None = None

    def program(self, params: Tensor) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        self.last = x
        return x / 2


def test_logical_in_device_units_to_the_device_logical_out() -> None:
    inner = Recording()
    device: Device = Calibrated(inner, FITTED)
    answer = device.forward(torch.tensor([[0.5, -0.5]]))
    assert inner.last is not None
    assert inner.last.flatten().tolist() == pytest.approx([-0.7, 1.3])
    assert answer.flatten().tolist() == pytest.approx([(-0.35 - 0.1) / 0.25, (0.65 - 0.1) / 0.25])


def test_limits_are_mapped_also_by_a_negative_gain() -> None:
    spec = Calibrated(Recording(), FITTED).spec
    assert (spec.inputs.low, spec.inputs.high) == (pytest.approx(-1.35), pytest.approx(0.65))
    assert (spec.outputs.low, spec.outputs.high) == (pytest.approx(-2.4), pytest.approx(5.6))
    assert (spec.inputs.unit, spec.outputs.unit, spec.inputs.size) == ("1", "1", 2)


@pytest.mark.parametrize("bad", [-1.36, 0.66, float("nan")])
def test_out_of_range_sends_nothing(bad: float) -> None:
    inner = Recording()
    with pytest.raises(OutOfRange, match="calibrated"):
        Calibrated(inner, FITTED).forward(torch.tensor([[0.0, bad]]))
    assert inner.last is None


@pytest.mark.parametrize("gain", [0.1, -0.3, 3.3, 7e-4])
@pytest.mark.parametrize("offset", [0.0, 0.1, -0.7])
def test_the_limits_themselves_are_allowed(gain: float, offset: float) -> None:
    """Rounding of the map must not push the ends of the range over the device's limits."""
    inner = Recording()
    device = Calibrated(inner, dataclasses.replace(FITTED, gain=gain, offset=offset))
    port = device.spec.inputs
    device.forward(torch.tensor([[port.low, port.high]]))
    assert inner.last is not None
    assert sorted(inner.last.flatten().tolist()) == pytest.approx([-1.0, 3.0], abs=1e-6)


def test_another_unit_is_refused() -> None:
    with pytest.raises(ContractError, match="W in, V out"):
        Calibrated(Recording(), dataclasses.replace(FITTED, input_unit="W"))


def test_a_twin_keeps_its_saved_state() -> None:
    device = Calibrated(Simulated(MachZehnder(), seed=4), dataclasses.replace(FITTED, gain=2.0))
    assert isinstance(device, Restorable)
    x = torch.linspace(-1, 1, 12).view(4, 3)
    device.forward(x)
    saved = json.loads(json.dumps(device.snapshot()))
    wanted = device.forward(x)
    device.restore(saved)
    assert torch.equal(device.forward(x), wanted)


def test_file_round_trip(tmp_path: Path) -> None:
    FITTED.save(tmp_path / "mzm.json")
    assert Calibration.load(tmp_path / "mzm.json") == FITTED
    assert [p.name for p in tmp_path.iterdir()] == ["mzm.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[: len(t) // 2], "not a calibration file"),
        (lambda t: "", "not a calibration file"),
        (lambda t: "[]", "format"),
        (lambda t: t.replace('"format": 1', '"format": 2'), "format"),
        (lambda t: t.replace('"gain"', '"gian"'), "gian"),
        (lambda t: t.replace('"gain": -2.0', '"gain": 0.0'), "gain must not be 0"),
        (lambda t: t.replace('"gain": -2.0', '"gain": NaN'), "gain must be a finite number"),
        (lambda t: t.replace('"gain": -2.0', '"gain": "2"'), "gain must be a finite number"),
        (lambda t: t.replace('"twin"', '"guess"'), "provenance"),
        (lambda t: t.replace("2026-11-22T01:45:12+00:00", "yesterday"), "taken_at"),
        (lambda t: t.replace("+00:00", ""), "taken_at"),
        (lambda t: t.replace('"SIM-33622-0007"', "7"), "serials"),
    ],
)
def test_a_damaged_file_is_named(change: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mzm.json"
    FITTED.save(path)
    assert callable(change)
    path.write_text(change(path.read_text()))
    with pytest.raises(ConfigError, match=words) as refusal:
        Calibration.load(path)
    assert str(path) in str(refusal.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json"):
        Calibration.load(tmp_path / "absent.json")
