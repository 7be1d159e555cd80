"""drivers/nidaqmx.py: an unmodified nidaqmx in its gRPC mode, against a card on loopback that notes what it does not bear.

pip install "hil[nidaqmx]"
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hil.cli import run as hil_run
from hil.conformance import check_device
from hil.errors import Disconnected, InstrumentError, MissedTrigger, OpenFailed, OutOfRange, Saturated, UnsafeOutputs

pytest.importorskip("nidaqmx", reason="pip install hil[nidaqmx]")

from interop.fake_nidaqmx import HIGH, LOW, FakeCard, Served, dopant

from drivers.nidaqmx import NIDAQmx

EXPERIMENT = """
seed = 1
[data]
train_examples = 32
[network]
widths = [64, 7, 10]
answers = 1
[device]
use = "drivers.nidaqmx:NIDAQmx"
outputs = ["cDAQ1/ao0:6"]
inputs = ["cDAQ1/ai0"]
low = ["-1.2 V", "-1.2 V", "-1.2 V", "-1.2 V", "-1.2 V", "-0.7 V", "-0.7 V"]
high = ["0.6 V", "0.6 V", "0.6 V", "0.6 V", "0.6 V", "0.3 V", "0.3 V"]
max_step = "0.1 V"
rate = "100 kHz"
settle = "100 us"
grpc = "{address}"
[encode]
gain = 0.3
overflow = "clip"
[decode]
zero = "0 V"
scale = "1 V"
[learner]
use = "spsa"
[train]
epochs = 1
batch = 16
threads = 1
"""


@pytest.fixture
def card() -> FakeCard:
    return FakeCard()


@pytest.fixture
def served(card: FakeCard) -> Iterator[Served]:
    with Served(card) as server:
        yield server


def opened(served: Served, **more: Any) -> NIDAQmx:
    settings: dict[str, Any] = {"max_step_v": 0.1, "rate_hz": 100e3, "settle_s": 1e-4, "grpc": served.address, **more}
    return NIDAQmx(["cDAQ1/ao0:6"], ["cDAQ1/ai0"], tuple(LOW), tuple(HIGH), **settings)


def test_a_dopant_network_of_seven_ranges_keeps_the_contract(card: FakeCard, served: Served) -> None:
    check_device(lambda: opened(served), sent=lambda device: card.exchanges)
    assert card.noted == []
    assert not card.held.any()
    assert card.tasks == {}


def test_each_row_is_read_after_it_has_settled(card: FakeCard, served: Served) -> None:
    device = opened(served)
    x = device.spec.inputs.within(torch.rand(5, 7))
    y = device.forward(x)
    assert np.allclose(y.numpy(), dopant(x.double().numpy().T).T, atol=2e-3)
    assert np.allclose(card.held, x[-1].double().numpy(), atol=1e-7)
    with pytest.raises(OutOfRange, match="channel 6"):
        device.forward(torch.full((1, 7), 0.4))
    device.close()
    assert not card.held.any()
    assert card.noted == []


def test_it_trains_from_a_file(card: FakeCard, served: Served, tmp_path: Path) -> None:
    (tmp_path / "dopant.toml").write_text(EXPERIMENT.format(address=served.address), encoding="utf-8")
    assert hil_run(["train", str(tmp_path / "dopant.toml"), "--run", str(tmp_path / "r")]) == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["provenance"] == "twin"  # the card says that it is simulated
    assert card.noted == []
    assert card.exchanges > 10
    assert not card.held.any()


def test_a_card_that_was_left_on_is_read_back_and_ramped_to_rest(card: FakeCard, served: Served) -> None:
    card.held = HIGH.copy()  # by a process that died
    back = [f"cDAQ1/_ao{k}_vs_aognd" for k in range(7)]
    device = opened(served, read_back=back)
    assert not card.held.any()
    device.forward(torch.full((1, 7), -0.5))
    device.close()
    assert card.noted == []


def test_inputs_that_nothing_triggers_are_no_measurement(card: FakeCard, served: Served) -> None:
    with pytest.raises(UnsafeOutputs) as error:
        opened(served, start_trigger="/elsewhere/ao/StartTrigger")
    assert isinstance(error.value.__cause__, MissedTrigger)
    assert card.tasks == {}


def test_faults_of_the_card_are_told_and_the_next_shot_goes_on_from_what_it_holds(card: FakeCard, served: Served) -> None:
    device = opened(served)
    x = torch.full((2, 7), 0.25)
    device.forward(x)
    card.broken = {"ReadAnalogF64"}
    with pytest.raises(InstrumentError, match="-200279"):
        device.forward(-x)
    card.broken = {"StartTask"}
    with pytest.raises(InstrumentError):
        device.forward(x)
    with pytest.raises(UnsafeOutputs):
        device.safe()
    card.broken = set()
    assert np.allclose(device.forward(x).numpy(), dopant(x.double().numpy().T).T, atol=2e-3)
    device.close()
    assert card.noted == []


def test_a_sample_at_the_end_of_the_range_is_no_measurement(served: Served) -> None:
    device = opened(served, reading_high_v=0.1, reading_low_v=-0.1)
    with pytest.raises(Saturated, match=r"-0.1 and 0.1 V"):
        device.forward(device.spec.inputs.within(torch.rand(5, 7)))
    device.close()


def test_a_server_that_is_gone_is_a_link_that_is_gone(card: FakeCard) -> None:
    with Served(card) as server:
        device = opened(server)
    with pytest.raises(Disconnected):
        device.forward(torch.zeros(1, 7))
    with pytest.raises(UnsafeOutputs):
        device.close()
    with pytest.raises(OpenFailed):
        opened(server)
