"""Limits of each channel and steps, through everything that drives a device: functions, training, tape, conformance, sweeps."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.electrodes import CURRENT, GATES, HIGH, LOW, Electrodes, ElectrodesTwin
from torch import Tensor

import hil
from calibration.drift.steering import Steering, steered
from calibration.twin_check import compare_twin
from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.conformance import check_device, check_twin
from hil.data.dataset import subset
from hil.device import Port, Spec
from hil.devices.meter import metered
from hil.devices.stepped import Stepped, approached, bare, stepped
from hil.errors import ConfigError, ContractError, LinkTimeout, OutOfRange
from hil.slew import Slew
from hil.snapshot import packed, unpacked
from hil.tape.recorder import recorded
from hil.tape.replay import reels, replay
from hil.tape.writer import Tape
from hil.training.loop import train
from hil.training.transfer_curve import measure, probed

DIGITS = subset(hil.load("digits"), 128)
QUICK: dict[str, Any] = {"epochs": 1, "batch": 32, "lr": 5e-3, "show": False, "report": False}
SMALL = dataclasses.replace(GATES, max_step=(0.2,) * 5 + (0.05,) * 2)


class Own:
    """A device of a class of its own, which does nothing about steps; driven: what it was sent."""

    def __init__(self, port: Port = SMALL) -> None:
        self.spec, self.driven, self.fault = Spec(port, CURRENT, provenance="real"), [], False

    driven: list[Tensor]

    def program(self, params: Tensor) -> None:
        raise ContractError("this node is fixed", where="own")

    def reset(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        if self.fault:
            raise LinkTimeout("no answer", where="own")
        self.driven.append(x.clone())
        return torch.tanh(x.detach())

    def close(self) -> None: ...


@pytest.mark.parametrize("how", ["clip", "fold"])
def test_training_keeps_each_electrode_in_its_own_range(how: str, tmp_path: Path) -> None:
    rig = Electrodes()
    period = None if how == "clip" else (1.8,) * 5 + (1.0,) * 2
    net = hil.dense([64, 7, 10], rig.device(), gain=(2.0,) * 5 + (1.0,) * 2, offset=-0.25, overflow=how, period=period)  # type: ignore[arg-type]
    run = hil.train(net, "adfa", DIGITS, run=tmp_path / "run", **QUICK)
    written = np.stack(rig.written)
    assert len(written) > 1000
    assert (written.min(0) < np.array(LOW) + 0.05).all()  # clipped or folded at limits of their own
    assert (written.max(0) > np.array(HIGH) - 0.05).all()
    assert run.test_accuracy >= 0
    table = json.loads((tmp_path / "run" / "diagnostics.json").read_text(encoding="utf-8"))
    assert all(0 <= layer["range_use"] <= 1 for layer in table["layers"] if layer["range_use"] is not None)
    again = hil.dense([64, 7, 10], rig.device(), gain=(2.0,) * 5 + (1.0,) * 2, offset=-0.25, overflow=how, period=period)  # type: ignore[arg-type]
    longer = hil.train(again, "adfa", DIGITS, run=tmp_path / "run", **{**QUICK, "epochs": 2})  # the same ports, read back
    assert "epochs = 2" in (longer.folder / "config.toml").read_text(encoding="utf-8")


def test_a_drive_that_electrode_6_does_not_bear_is_refused_before_anything_is_written() -> None:
    rig = Electrodes()
    drive = torch.zeros(3, 7)
    drive[2, 5] = 0.4
    with pytest.raises(OutOfRange, match=r"channel 6: 1 of 21 .*-0.7 to 0.3 V"):
        rig.device().forward(drive)
    assert not rig.written


def test_functions_get_and_give_numbers_of_their_own() -> None:
    seen: list[np.ndarray] = []
    dac = dataclasses.replace(GATES, scale=(1000.0,) * 6 + (0.1,))
    adc = Port("adc", -1, 1, "V", 7, scale=1000.0)
    device = hil.from_functions(lambda values: seen.append(values), lambda: seen[-1], dac, adc)
    drive = torch.full((1, 7), -0.5)
    answer = device.forward(drive)
    assert seen[0].tolist() == pytest.approx([-500.0] * 6 + [-0.05])
    assert answer.dtype == torch.float32
    assert answer[0].tolist() == pytest.approx([-0.5] * 6 + [-5e-5])


def test_functions_refuse_a_step_from_what_was_written_last() -> None:
    rig = Electrodes(SMALL, most=0.2)
    device = rig.device()
    device.forward(torch.full((1, 7), -0.04))
    for drive in (torch.full((1, 7), 0.02), torch.tensor([[-0.04] * 7, [0.05] * 7])):
        with pytest.raises(OutOfRange, match="channels 6, 7: a step that is too large"):
            device.forward(drive)
    assert len(rig.written) == 1
    device.safe()
    device.forward(torch.full((1, 7), 0.05))


def test_a_rate_of_functions_counts_with_their_pause() -> None:
    port = Port("dac", -1, 1, "V", 7, slew_per_s=10.0)
    device = Electrodes(port).device(settle_s=0.01)
    device.forward(torch.full((1, 7), 0.1))
    with pytest.raises(OutOfRange, match=r"up to 0.1 V"):
        device.forward(torch.full((1, 7), 0.21))


def test_without_safe_a_fault_leaves_open_what_is_held() -> None:
    port = Port("dac", -1, 1, "V", 1, max_step=0.5)
    reads = iter([0.0, "broken", 0.0])
    device = hil.from_functions(lambda values: None, lambda: next(reads), port, Port("adc", -1, 1))
    device.forward(torch.tensor([[0.5]]))
    with pytest.raises(hil.HilError):
        device.forward(torch.tensor([[1.0]]))
    with pytest.raises(OutOfRange):  # it may hold 0, 0.5 or 1
        device.forward(torch.tensor([[0.6]]))
    device.forward(torch.tensor([[0.5]]))


def test_an_own_device_is_wrapped_where_it_is_opened(tmp_path: Path) -> None:
    own = Own()
    wrapped = stepped(own)
    assert isinstance(wrapped, Stepped)
    assert stepped(wrapped) is wrapped
    assert bare(wrapped) is own
    assert stepped(Own(GATES)).__class__ is Own
    wrapped.forward(torch.full((2, 7), 0.05))
    with pytest.raises(OutOfRange, match="channels 6, 7: a step"):
        wrapped.forward(torch.full((2, 7), -0.05))
    assert len(own.driven) == 1
    own.fault = True
    with pytest.raises(LinkTimeout):
        wrapped.forward(torch.full((1, 7), 0.1))
    own.fault = False
    with pytest.raises(OutOfRange):  # 0, 0.05 or 0.1
        wrapped.forward(torch.full((1, 7), 0.0))
    wrapped.forward(torch.full((1, 7), 0.05))
    net = hil.dense([64, 7, 10], Own(), gain=0.0, decode=hil.Decode())
    assert isinstance(net.stack[0].device, Stepped)
    hil.train(net, "adfa", DIGITS, run=tmp_path / "run", **QUICK)
    assert "Own" in (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")
    raw = hil.Network([hil.Layer(layer.synapse, layer.device and bare(layer.device), layer.encode) for layer in net.stack])
    with pytest.raises(ContractError, match="nobody keeps the steps"):
        hil.train(raw, "adfa", DIGITS, run=tmp_path / "raw", **QUICK)


def test_a_device_that_ramps_by_itself_is_left_as_it_is() -> None:
    class Ramping(Own):
        slew = Slew("ramps")

    own = Ramping()
    assert stepped(own) is own
    assert metered(own).slew == Slew("ramps")
    curve = measure(metered(own), points=11, repeats=2)
    assert len(own.driven[0]) == 22
    assert len(curve.drive) == 11


@pytest.mark.parametrize("port", [GATES, SMALL], ids=["limits", "steps"])
def test_the_contract_is_kept_channel_by_channel(port: Port) -> None:
    report = check_device(lambda: Electrodes(port, most=np.inf).device())
    assert "0 failed" in str(report)
    assert "refuses above the limit on channel 6, sending nothing" in report.passed
    assert ("refuses a step that is too large, sending nothing" in report.passed) == (port is SMALL)
    assert "0 failed" in str(check_device(lambda: Own(port)))


def test_the_checks_find_a_device_that_knows_one_range_only() -> None:
    class Careless(Own):
        def forward(self, x: Tensor) -> Tensor:
            Port("all", min(LOW), max(HIGH), "V", 7).check(x)
            return torch.tanh(x.detach())

    with pytest.raises(ContractError, match="refuses above the limit on channel 6"):
        check_device(lambda: Careless(GATES))


@pytest.mark.parametrize("port", [GATES, SMALL], ids=["limits", "steps"])
def test_the_transfer_curve_sweeps_every_channel_over_its_own_range(port: Port) -> None:
    rig = Electrodes(port, most=0.2 if port.slews else np.inf)
    curve = measure(metered(rig.device()), points=21, repeats=2)
    written = np.stack(rig.written)
    assert np.allclose(written.min(0), LOW)
    assert np.allclose(written.max(0), HIGH)
    assert curve.drive[0].item() == pytest.approx(np.mean(LOW))
    assert curve.mean.shape == (21,)
    assert (len(written) == 42) == (not port.slews)
    check = probed(rig.device(), lambda x: torch.tanh(2 * x) + 0.1 * x.roll(1, -1), points=5, repeats=2)
    assert check["nrmse"] < 1e-5


def test_rows_are_approached_from_rest_and_back() -> None:
    own = Own()
    rows = torch.tensor([LOW, HIGH])
    path, places = approached(own, rows)
    assert torch.equal(path[places], rows)
    wrapped = stepped(own)
    wrapped.forward(path)
    assert torch.equal(own.driven[0][-1], torch.zeros(7))
    wrapped.forward(torch.zeros(1, 7))


def test_a_tape_keeps_the_limits_of_each_channel(tmp_path: Path) -> None:
    port = dataclasses.replace(SMALL, scale=1e3, rest=-0.01)
    drive = port.within(torch.rand(5, 7))
    tape = Tape(tmp_path)
    tape.begin({})
    device = recorded(Own(port), tape, "node", "", {})
    answer = device.forward(drive)
    tape.close()
    (reel,) = reels(tmp_path)
    assert reel.head.spec.inputs == port
    again = replay(reel)
    assert again.spec.inputs == port
    assert again.slew == Slew("refuses")
    assert torch.equal(again.forward(drive), answer)
    with pytest.raises(OutOfRange, match="channel 6"):
        replay(reel).forward(torch.full((1, 7), 0.5))
    head = next(tmp_path.glob("node.json"))
    table = json.loads(head.read_text(encoding="utf-8"))
    table["spec"]["inputs"]["low"][5] = "low"
    head.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(hil.HilError, match="a damaged tape"):
        reels(tmp_path)


def test_a_sweep_in_small_steps_is_recorded_and_replayed(tmp_path: Path) -> None:
    tape = Tape(tmp_path)
    tape.begin({})
    port = dataclasses.replace(SMALL, slew_per_s=20.0)
    rig = Electrodes(port, most=0.2)
    curve = measure(recorded(rig.device(settle_s=0.005), tape, "node", "", {}), points=5, repeats=2)
    tape.close()
    (reel,) = reels(tmp_path)
    assert reel.head.slew == Slew("refuses", 0.005)
    again = measure(replay(reel), points=5, repeats=2)
    assert torch.equal(again.mean, curve.mean)


def test_a_tape_of_one_range_is_as_it_was(tmp_path: Path) -> None:
    tape = Tape(tmp_path)
    recorded(Own(Port("gates", -1.0, 1.0, "V", 7)), tape, "node", "", {}).forward(torch.zeros(1, 7))
    tape.close()
    table = json.loads((tmp_path / "node.json").read_text(encoding="utf-8"))
    assert "slew" not in table
    assert table["spec"]["inputs"] == {"name": "gates", "low": -1.0, "high": 1.0, "unit": "V", "size": 7}


def test_steering_moves_each_channel_inside_its_own_limits() -> None:
    own = Own(GATES)
    device = steered(own, margin=0.1)
    assert device.spec.inputs.low == pytest.approx([low + 0.1 for low in LOW])
    device.steer(Steering(offset=0.1))
    device.forward(torch.tensor(device.spec.inputs.high).unsqueeze(0))
    assert own.driven[0][0].tolist() == pytest.approx(HIGH)
    folded = steered(own, period=1.0)  # the range of electrodes 6 and 7
    folded.steer(Steering(offset=0.4))
    folded.forward(torch.tensor([HIGH]))
    assert own.driven[1][0].tolist() == pytest.approx([high + 0.4 - 1.0 for high in HIGH], abs=1e-6)
    with pytest.raises(ContractError, match="up to 1 V"):
        steered(own, period=1.5)


def test_a_twin_is_checked_over_the_range_of_each_channel() -> None:
    own = Own(GATES)

    class Model:
        def ideal(self, x: Tensor) -> Tensor:
            return torch.tanh(x)

    assert compare_twin(own, Model(), points=40, repeats=2).error < 1e-6
    assert (own.driven[0].amin(0) < torch.tensor(LOW) + 0.2).all()


def test_settings_narrow_each_channel_with_units(tmp_path: Path) -> None:
    from hil.settings import arguments

    def driver(low_v: float | tuple[float, ...] | None = None, high_v: float | tuple[float, ...] = 1.0) -> None: ...

    found = arguments(driver, {"low": ["-1.2 V", "-700 mV"], "high": [0.6, 0.3]}, "bench.toml: [instruments.dac]")
    assert found == {"low_v": (-1.2, -0.7), "high_v": (0.6, 0.3)}
    assert arguments(driver, {"low": "-700 mV"}, "b") == {"low_v": -0.7}
    with pytest.raises(ConfigError, match="low, number 2"):
        arguments(driver, {"low": ["-1.2 V", "-700 mA"]}, "b")


FILE = """
[data]
train_examples = 64
[network]
widths = [64, 7, 10]
[device]
use = "builders.electrodes:ElectrodesTwin"
narrow = ["-1.1 V", -1.2, -1.2, -1.2, -1.2, "-600 mV", -0.7]
[encode]
gain = ["1.5 V", 1.5, 1.5, 1.5, 1.5, "700 mV", 0.7]
offset = "-200 mV"
overflow = "clip"
[learner]
use = "adfa"
[train]
epochs = 1
batch = 32
"""


def test_an_experiment_file_says_each_channel_with_its_unit(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text(FILE, encoding="utf-8")
    with built(read_experiment(path)) as made:
        encode = made.training.net.stack[0].encode
        assert encode is not None
        assert encode.gain == (1.5,) * 5 + (0.7,) * 2
        assert encode.low == (-1.1, *(-1.2,) * 4, -0.6, -0.7)
        assert encode.offset == -0.2
        for _ in train(made.training):
            pass
    for old, new, said in (
        ('"700 mV", 0.7]', '"700 mA", 0.7]', "gain, number 6"),
        ('"700 mV", 0.7]', '"700 mV"]', "gain of 6 numbers; allowed: 7"),
        ("-1.1 V", "-1.3 V", "channel 1"),
        ('overflow = "clip"', 'overflow = "fold"\nperiod = [1.8, 1.8, 1.8, 1.8, 1.8, 1, 1]', "encoding, channel 1: folding"),
    ):
        path.write_text(FILE.replace(old, new), encoding="utf-8")
        with pytest.raises(hil.HilError) as refusal, built(read_experiment(path)):
            pass
        assert said in str(refusal.value)


def test_a_twin_with_limits_of_each_channel_keeps_its_contract() -> None:
    check_twin(ElectrodesTwin)
    from sim_devices.simulated import Simulated

    check_device(lambda: Simulated(ElectrodesTwin(step_v=0.1), seed=1))


def test_a_twin_refuses_steps_as_its_bench_would(tmp_path: Path) -> None:
    device = stepped(hil.dense([64, 7, 10], ElectrodesTwin(step_v=0.1), decode=hil.Decode()).stack[0].device)  # type: ignore[arg-type]
    device.forward(torch.full((1, 7), 0.1))
    saved = unpacked(json.loads(json.dumps(packed(device.snapshot()))))  # type: ignore[attr-defined]
    again = hil.dense([64, 7, 10], ElectrodesTwin(step_v=0.1), decode=hil.Decode()).stack[0].device
    again.restore(saved)  # type: ignore[union-attr]
    drive = torch.full((1, 7), 0.2)
    assert torch.equal(again.forward(drive), device.forward(drive))  # type: ignore[union-attr]
    with pytest.raises(ContractError, match="not a snapshot"):
        again.restore({"x": 1})  # type: ignore[union-attr]
