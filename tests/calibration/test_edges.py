"""What is made of an edge that was looked at in several shots: the delay between the samples, jitter, the pole behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from calibration.sequence import Procedure, Subject, calibrated
from calibration.step import Step
from calibration.waveform.delay import DELAY, begun, interval
from calibration.waveform.settling import SETTLING, pole
from hil.device import Spec, Timed
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

STEP_S = 2e-10
DARK = Procedure("dark", lambda subject, found: Step("dark", "taken for done"))


@dataclass
class Bench:
    """A node behind instruments: a step that settles with a pole, in continuous time, and a trigger that trembles."""

    delay_s: float = 12.3456e-9
    bandwidth_hz: float = 4e8
    jitter_s: float = 0.0
    contrast: float = -0.3
    inner: Simulated = field(default_factory=lambda: Simulated(MachZehnder()))
    calls: int = 0

    @property
    def spec(self) -> Spec:
        return self.inner.spec

    def program(self, params: Tensor) -> None:
        self.inner.program(params)

    def reset(self) -> None:
        self.inner.reset()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.forward(x)

    def close(self) -> None:
        self.inner.close()

    def edge(self, shift_s: float = 0.0) -> tuple[Tensor, Tensor]:
        rng = generator(0, self.calls, "edge")
        self.calls += 1
        start_s = self.delay_s - 20e-9 + 0.37e-9 + self.jitter_s * float(torch.randn((), generator=rng))
        time_s = start_s + shift_s + STEP_S * torch.arange(175, dtype=torch.float64)
        seen_s = time_s + (self.delay_s - 20e-9 + 0.37e-9 - start_s)  # the scope does not know when it really sampled
        gone = 1 - torch.exp(-2 * math.pi * self.bandwidth_hz * (time_s - self.delay_s).clamp(min=0.0))
        reading = 0.35 + self.contrast * gone + 4e-4 * torch.randn(175, generator=rng)
        return seen_s, reading.float()


def found(bench: Bench) -> Mapping[str, Step]:
    return {step.name: step for step in calibrated((DARK, DELAY, SETTLING), Subject(bench))}


def test_the_delay_is_found_between_the_samples() -> None:
    steps = found(Bench())
    delay = steps["delay"].estimates["delay_s"]
    lag = -math.log(0.9) / (2 * math.pi * 4e8)  # of a tenth of the way, as the step says
    assert abs(delay.value - 12.3456e-9 - lag) < 4 * delay.sigma
    assert delay.sigma < 0.05 * STEP_S
    assert steps["delay"].estimates["jitter_s"].value < 0.02 * STEP_S


def test_a_trigger_that_trembles_is_jitter() -> None:
    step = found(Bench(jitter_s=2e-10))["delay"]
    jitter, delay = step.estimates["jitter_s"], step.estimates["delay_s"]
    assert jitter.away(2e-10) < 3
    assert delay.sigma > 2e-11
    assert abs(delay.value - 12.3456e-9) < 4 * delay.sigma


@pytest.mark.parametrize("bandwidth_hz", [1e8, 4e8, 1e9])
def test_the_pole_is_found_wherever_the_edge_came(bandwidth_hz: float) -> None:
    step = found(Bench(bandwidth_hz=bandwidth_hz))["settling"]
    bandwidth, settle = step.estimates["bandwidth_hz"], step.estimates["settle_s"]
    assert bandwidth.away(bandwidth_hz) < 4
    assert bandwidth.sigma < 0.02 * bandwidth_hz
    assert settle.away(math.log(1000) / (2 * math.pi * bandwidth_hz)) < 4


def test_a_pole_that_the_record_hardly_shows_is_not_told() -> None:
    assert "bandwidth_hz" in found(Bench(bandwidth_hz=2e9))["settling"].estimates
    assert found(Bench(bandwidth_hz=8e9))["settling"].estimates == {}, "over within a sample"
    time_s, reading = Bench().edge()
    times, readings = time_s.expand(9, -1), reading.double().expand(9, -1)
    assert pole(times, readings, 1e-3)["bandwidth_hz"].sigma > 3 * pole(times, readings)["bandwidth_hz"].sigma
    assert pole(times, readings, 0.1) == {}, "steps of the converter as large as the edge"


def test_an_edge_that_does_not_come_is_a_problem_of_the_delay() -> None:
    step = found(Bench(contrast=0.0))["delay"]
    assert not step.good
    assert step.problems[0].kind == "delay"
    assert "does not come back" in step.said


def test_a_record_that_begins_in_the_end_of_the_last_one_is_no_edge() -> None:
    time_s, reading = Bench().edge()
    reading = reading.double()
    reading[:6] -= torch.tensor([0.2, 0.1, 0.05, 0.02, 0.01, 0.005])
    assert time_s[begun(reading) - 1] < 12.3456e-9 + 5e-11 < time_s[begun(reading)] + 5e-11
    low, high = interval(time_s.unsqueeze(0), reading.unsqueeze(0))
    assert high - low == pytest.approx(STEP_S)


def test_a_device_without_instruments_has_no_delay_to_see() -> None:
    device = Simulated(MachZehnder())
    assert not isinstance(device, Timed)
    assert isinstance(Bench(), Timed)
    steps = {step.name: step for step in calibrated((DARK, DELAY, SETTLING), Subject(device))}
    assert steps["delay"].good
    assert not steps["delay"].estimates
    assert steps["settling"].figures["wait_values"] == 0
