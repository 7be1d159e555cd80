"""Another hand at the instruments in the middle of a training: restored and repeated without a trace, or the run stops.

The instruments are asked after every record, so that no shot that was measured under other settings reaches the weights: they
come out bit for bit as without the hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
import torch
from small import toml
from torch import Tensor, nn

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.links.visa_link import VisaLink
from drivers.read_back import Care
from drivers.waveform.device import Waveform, WaveformSettings
from hil.cli import run
from hil.data.dataset import Dataset, load, subset
from hil.device import Streaming
from hil.devices.meter import metered
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient
from hil.encoding import Decode, Encode
from hil.errors import ChangeForbidden, SwitchedOff
from hil.learners.adfa import ADFA, ADFASettings
from hil.network import Layer, Network
from hil.run.journal import Journal, committed
from hil.seeding import generator
from hil.training.loop import train
from hil.training.state import Training, TrainingPlan
from sim_devices.bench.control import ControlClient
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import RunningBench, build

ROOT = Path(__file__).resolve().parent.parent.parent
EXPERIMENT = toml(320, "64, 20, 10", 'bench = "b.toml"', train="epochs = 3\nbatch = 64\ncheckpoint_every = 1")
Told = list[tuple[str, dict[str, object]]]


@cache
def digits() -> Dataset:
    return subset(load("digits"), 192)


@pytest.fixture(scope="module")
def bench() -> Iterator[RunningBench]:
    boxes = (
        VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600", {"dac_bits": 12}),
        VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision"),
    )
    node = Part("sim_devices.mach_zehnder:MachZehnder", {"v_pi_v": 3.52, "phase_rad": -1.2, "noise": 0.0})
    with build(VirtualBench(boxes, (VirtualWire("awg", "scope", node, delay_s=12.4e-9),))) as running:
        yield running


@pytest.fixture
def control(bench: RunningBench) -> Iterator[ControlClient]:
    with ControlClient(*bench.control.address) as client:
        client.heal()
        yield client
        client.heal()


def trained(bench: RunningBench, care: Care, told: Told, pieces: int = 1) -> Tensor:
    """One epoch of three batches, and its validation; the weights, all in a row."""
    torch.set_num_threads(1)

    def hear(kind: str, **facts: object) -> None:
        told.append((kind, facts))

    with ExitStack() as stack:
        awg, scope = (VisaLink(bench.resources[name], timeout_s=0.5) for name in ("awg", "scope"))
        waveform = Waveform(
            Keysight33600(awg, low_v=-4.0, high_v=4.0), InfiniiVision(scope, range_v=0.5, offset_v=0.18),
            WaveformSettings(trigger_timeout_s=0.2), "twin", care=care,
        )  # fmt: skip
        stack.callback(waveform.close)
        node = metered(resilient(waveform, lambda inner: Ladder(inner, Patience(5.0), hear)))
        assert isinstance(node, Streaming)
        torch.manual_seed(1)
        hidden = Layer(nn.Linear(64, 24), node, Encode.onto(waveform.spec.inputs, 1.0, 0.0, "clip", None), Decode(0.18, 0.2))
        net = Network([hidden, Layer(nn.Linear(24, 10))], pieces=pieces)
        learner = ADFA.build(net, ADFASettings(), 10, generator(0, 0, "learner"), None)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in train(Training(net, learner, optimizer, digits(), TrainingPlan(seed=0, epochs=1, batch=64), (node,))):
            pass
        return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.fixture(scope="module")
def unharmed(bench: RunningBench) -> Tensor:
    told: Told = []
    weights = trained(bench, Care(0.0), told)
    assert told == []
    return weights


HANDS = {
    "amplitude": ("awg", "*TRG", ":SOUR1:VOLT 7.5"),
    "polarity": ("awg", "*TRG", ":OUTP1:POL INV"),
    "load": ("awg", "*TRG", ":OUTP1:LOAD 75"),
    "limits": ("awg", "*TRG", ":SOUR1:VOLT:LIM:STAT 0"),
    "range": ("scope", ":SING", ":CHAN1:RANG 0.7"),
    "scope offset": ("scope", ":SING", ":CHAN1:OFFS 0.19"),
    "trigger": ("scope", ":SING", ":TRIG:EDGE:LEV 1"),
}


@pytest.mark.parametrize("name", HANDS)
def test_a_change_by_another_hand_leaves_no_trace(
    name: str, bench: RunningBench, control: ControlClient, unharmed: Tensor
) -> None:
    box, match, command = HANDS[name]
    fault = control.fault(box, "hand", match=match, command=command, after=3)
    told: Told = []
    weights = trained(bench, Care(0.0), told)
    assert next(row for row in control.faults()["faults"] if row["id"] == fault)["injected"] == 1
    assert weights.equal(unharmed)
    assert [kind for kind, _ in told] == ["recovering", "recovery"]
    assert told[0][1] | {"error": "Changed", "first": "restore", "suspect_shots": 1} == told[0][1]
    assert " -> " in str(told[0][1]["got"])


@pytest.mark.parametrize("command", [":CHAN1:BWL 1", ":CHAN1:INV 1", ":CHAN1:OFFS 0.19"])
def test_a_change_while_shots_overlap_leaves_no_trace(
    command: str, bench: RunningBench, control: ControlClient, unharmed: Tensor
) -> None:
    """Some of it is nothing that the driver sets: only the reset brings it back."""
    control.fault("scope", "hand", match=":SING", command=command, after=3)
    told: Told = []
    assert trained(bench, Care(0.0), told, pieces=3).equal(unharmed)
    assert told[0][1]["error"] == "Changed"
    assert bench.boxes["scope"].execute(b":CHAN1:BWL?;:CHAN1:INV?") == b"0;0"


@pytest.mark.parametrize("care", [Care(0.0), Care(60.0), Care(0.0, "stop")])
def test_a_run_whose_output_a_person_switched_off_ends(care: Care, bench: RunningBench, control: ControlClient) -> None:
    control.fault("awg", "hand", match="*TRG", command=":OUTP1 0", after=3)
    before, told = len(control.log()), Told()
    with pytest.raises(SwitchedOff, match="stays off"):
        trained(bench, care, told)
    switched = [entry["on"] for entry in control.log()[before:]]
    assert switched == [True, False]
    assert [kind for kind, _ in told] == ["lost"]


@pytest.mark.parametrize("name", ["amplitude", "range", "trigger"])
def test_policy_stop_ends_the_run(name: str, bench: RunningBench, control: ControlClient) -> None:
    box, match, command = HANDS[name]
    control.fault(box, "hand", match=match, command=command, after=3)
    with pytest.raises(ChangeForbidden, match="stop"):
        trained(bench, Care(0.0, "stop"), [])
    assert all(not output["on"] for output in control.outputs()["awg"].values())  # type: ignore[attr-defined]


def test_the_command_line_ends_with_3_and_a_person_may_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8")
    hand = 'faults = [{ box = "awg", kind = "hand", match = "*TRG", command = ":OUTP1 0", after = 8 }]'
    bench = bench.replace('transport = "hislip"', f'transport = "hislip"\n{hand}') + '\n[panel]\nevery = "100 ms"\n'
    (tmp_path / "b.toml").write_text(bench, encoding="utf-8")
    (tmp_path / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    assert run(["train", str(tmp_path / "e.toml"), "--run", str(tmp_path / "r")]) == 3
    said = "".join(capsys.readouterr())
    assert "stays off" in said
    assert "hil resume" in said
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["outputs"].startswith("off")
    first = len(committed(Journal.read(tmp_path / "r" / "journal.jsonl")))
    assert run(["resume", str(tmp_path / "r")]) == 3  # a person said so: it goes on, until the hand of this bench comes again
    assert len(committed(Journal.read(tmp_path / "r" / "journal.jsonl"))) > first
