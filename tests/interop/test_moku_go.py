"""drivers/moku_go.py: an unmodified package moku, against a simulated Moku:Go behind the REST of the real one.

pip install "hil[moku]"
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
from hil.errors import CommandRefused, ConfigError, InstrumentError, LinkError, OpenFailed, OutOfRange, Saturated, UnsafeOutputs

pytest.importorskip("moku", reason="pip install hil[moku]")

from drivers.moku_go import MokuGo
from sim_devices.instruments.moku_go import MokuGo as Box
from sim_devices.transports.rest import RestServer

DELAY_S = 3e-6
STEP_V = 10 / 2**12
EXPERIMENT = """
seed = 0
[data]
use = "digits"
train_examples = 64
[network]
widths = [64, 8, 10]
[device]
use = "drivers.moku_go:MokuGo"
address = "{address}"
low = "-2 V"
high = "2 V"
symbol_rate = "1 MHz"
values = 1000
delay = "3 us"
[encode]
gain = "1 V"
overflow = "clip"
[decode]
zero = "0 V"
scale = "1 V"
[learner]
use = "adfa"
[optimizer]
use = "Adam"
lr = 5e-3
[train]
epochs = 1
batch = 64
threads = 1
"""


def bend(volts: np.ndarray) -> np.ndarray:
    """A node that is not monotonic, 1.5 V at most."""
    return 1.5 * np.sin(volts)


@pytest.fixture(autouse=True)
def _no_bitstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package then takes for granted that the Moku has its own, as it has after its first use with the app."""
    monkeypatch.setenv("MOKU_API_DISABLE_BITSTREAM_MANAGEMENT", "1")


@pytest.fixture
def box() -> Box:
    return Box(bend, delay_s=DELAY_S)


@pytest.fixture
def address(box: Box) -> Iterator[str]:
    server = RestServer(box)
    server.start()
    yield server.address
    server.close()


def opened(address: str, **more: Any) -> MokuGo:
    return MokuGo(address, -2.0, 2.0, **{"symbol_rate_hz": 1e6, "values": 300, "delay_s": DELAY_S, **more})


def drawn(device: MokuGo, rows: int, columns: int) -> torch.Tensor:
    return device.spec.inputs.within(torch.rand(rows, columns, generator=torch.Generator().manual_seed(1)))


def test_the_contract_of_a_device(box: Box, address: str) -> None:
    check_device(lambda: opened(address), sent=lambda device: box.requests)
    assert not any(output.on for output in box.generator.values())
    assert box.owner == ""


def test_each_value_is_read_where_it_was_played(box: Box, address: str) -> None:
    device = opened(address)
    x = drawn(device, 7, 100)  # three frames
    y = device.forward(x)
    assert np.abs(y.numpy() - bend(x.double().numpy())).max() < STEP_V
    assert box.generator[1].on
    sent = box.requests
    with pytest.raises(OutOfRange):
        device.forward(torch.full((1, 3), 2.1))
    assert box.requests == sent
    device.close()
    assert not box.generator[1].on


def test_a_wrong_delay_reads_the_neighbour(address: str) -> None:
    device = opened(address, delay_s=2e-6)
    x = drawn(device, 1, 50)
    y = device.forward(x)
    assert np.abs(y[0, 1:].numpy() - bend(x[0, :-1].double().numpy())).max() < STEP_V
    device.close()


def test_a_moku_that_somebody_owns_is_left_to_them(box: Box, address: str) -> None:
    device = opened(address)
    with pytest.raises(OpenFailed, match="owned by another client"):
        opened(address)
    other = opened(address, force=True)
    with pytest.raises(InstrumentError, match="does not own"):
        device.forward(torch.zeros(1, 3))
    with pytest.raises(UnsafeOutputs):
        device.close()
    other.close()
    assert not box.generator[1].on


def test_faults_are_told(box: Box, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = opened(address)
    with monkeypatch.context() as patch:
        patch.setattr(box, "_node", lambda volts: np.full_like(volts, 7.0))
        with pytest.raises(Saturated, match="14dB"):
            device.forward(torch.zeros(1, 3))
    with monkeypatch.context() as patch:
        patch.setattr(box, "_span_s", (0.0, 1e-5))
        with pytest.raises(InstrumentError, match="without a point"):
            device.forward(torch.zeros(1, 3))
    taken = box._generate
    with monkeypatch.context() as patch:
        patch.setattr(box, "_generate", lambda given: {**taken(given), "amplitude": 9.0})
        with pytest.raises(CommandRefused, match="amplitude"):
            device.forward(torch.zeros(1, 3))
    with monkeypatch.context() as patch:
        patch.setattr(box, "_enable", lambda given: {"enable": True})
        with pytest.raises(UnsafeOutputs):
            device.safe()
    device.close()


@pytest.mark.parametrize(
    ("high", "settings", "said"),
    [
        (2.0, {"values": 2000, "settle": 0.99}, "too few points"),
        (6.0, {}, "no such output"),
        (-1.999, {}, "no such output"),
    ],
)
def test_settings_that_make_no_sense(address: str, box: Box, high: float, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MokuGo(address, -2.0, high, **settings)
    assert box.requests == 0


def test_nobody_there() -> None:
    with pytest.raises((OpenFailed, LinkError)):
        opened("127.0.0.1:9")


def test_it_trains_from_a_file(box: Box, address: str, tmp_path: Path) -> None:
    (tmp_path / "moku.toml").write_text(EXPERIMENT.format(address=address), encoding="utf-8")
    assert hil_run(["train", str(tmp_path / "moku.toml"), "--run", str(tmp_path / "r")]) == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["provenance"] == "twin"  # its serial number says that it is simulated
    assert summary["device_passes"] == 8 * (64 + 180 + 180)  # values: training, validation, test
    assert not box.generator[1].on
    assert box.owner == ""
