"""How a twin is held against its node: on the transfer curve, or, of many channels, on drives of their own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hil.device import Port, Spec
from hil.training.transfer_curve import Transfer, measure, probed, twin_errors, twin_line
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated


class Mixer:
    """A static node of three channels in, two out."""

    spec = Spec(Port("in", -1.0, 2.0, "V", 3), Port("out", -9.0, 9.0, "V", 2), provenance="twin")

    def __init__(self, weight: Tensor, noise: float = 0.0) -> None:
        self.weight, self.noise, self.shots = weight, noise, 0

    def program(self, params: Tensor) -> None: ...

    def reset(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        self.shots += 1
        noise = torch.randn(len(x), 2, generator=torch.Generator().manual_seed(self.shots))
        return x @ self.weight + self.noise * noise

    def close(self) -> None: ...


def test_a_twin_of_the_curve() -> None:
    node = MachZehnder(v_pi_v=3.6)
    found = {
        v: measure(Simulated(node)).compare_twin(MachZehnder(v_pi_v=v).ideal(torch.linspace(-5, 5, 201)), "V")
        for v in (3.6, 3.3)
    }
    assert found[3.6]["nrmse"] < 1e-3
    assert found[3.3]["nrmse"] > 0.05
    assert found[3.6]["correlation"] > 0.99999 > found[3.3]["correlation"]
    assert found[3.6]["points"] == 201
    assert 0.0003 < found[3.6]["noise"] < 0.0005


@pytest.mark.parametrize(
    ("bias", "spread", "nrmse", "unit", "said"),
    [
        (0.0, 1.8e-3, 5e-3, "V", "rms error 1.8 mV (0.5 % of peak to peak); noise of a reading 430 µV"),
        (3.0, 4.0, 0.02, "1", "rms error 5 (2 % of peak to peak); noise of a reading 0.00043"),
        (0.3, 0.4, 0.25, "A", "rms error 500 mA (25 % of peak to peak); noise of a reading 430 µA; NOT VALID"),
        (0.0, 0.0, 0.0, "V", "rms error 0 V (0 % of peak to peak); noise"),
        (0.0, 2e-12, 0.1, "A", "rms error 2 pA (10 % of peak to peak)"),
        (1.0, 0.0, math.inf, "V", "rms error 1 V (the curve does not move); noise of a reading 430 µV; NOT VALID"),
        (math.nan, 0.0, math.nan, "V", "(the twin gives no number); noise of a reading 430 µV; NOT VALID"),
    ],
)
def test_what_is_said_of_a_twin(bias: float, spread: float, nrmse: float, unit: str, said: str) -> None:
    line = twin_line({"bias": bias, "spread": spread, "nrmse": nrmse, "unit": unit, "noise": 4.3e-4})
    assert said in line
    assert line.startswith("model against measured curve: rms error ")
    assert ("NOT VALID" in line) is ("NOT VALID" in said)


def test_a_twin_of_many_channels_is_asked_about_each() -> None:
    weight = torch.tensor([[1.0, 0.2], [-0.5, 0.7], [0.1, -1.0]])
    device = Mixer(weight, 0.01)
    right = probed(device, lambda x: x @ weight)
    assert device.shots == 1
    assert right["nrmse"] == pytest.approx(0.01 / math.sqrt(8) / 3.4, rel=0.5)
    assert right["noise"] == pytest.approx(0.01, rel=0.15)
    # the sum over channels is the same, so equal drives would not tell them apart
    assert probed(device, lambda x: x @ weight[[1, 0, 2]])["nrmse"] > 0.1


def test_biased_and_flat() -> None:
    mean = torch.tensor([0.0, 1.0, 2.0])
    off = twin_errors(mean, torch.zeros(3), mean - 0.5, "1")
    assert (off["bias"], off["spread"], off["correlation"], off["nrmse"]) == pytest.approx((0.5, 0.0, 1.0, 0.25))
    flat = Transfer(mean, torch.ones(3), torch.zeros(3)).compare_twin(mean, "V")
    assert flat["correlation"] == 0.0
    assert flat["nrmse"] == math.inf
