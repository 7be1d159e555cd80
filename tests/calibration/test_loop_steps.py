"""The steps of a delay loop, on loops whose parameters are known: found, and what is wrong is named."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

from calibration.loop.sequence import loop
from calibration.sequence import Subject, calibrated
from calibration.step import Step
from calibration.twin_check import compare_twin
from hil.errors import ContractError
from hil.wrapper import Wrapper
from sim_devices.delay_loop import DelayLoop
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

SHEET: dict[str, Any] = {
    "nodes": 10, "node_s": 100e-9, "delay_s": 1.3e-6, "gain": 0.4, "phase_rad": 0.6, "noise": 1e-3, "low_v": -1.0,
    "high_v": 1.0,
}  # fmt: skip
OWN = {"gain": 0.44, "phase_rad": 0.71, "scale_v": 3.3, "full_scale_v": 1.05, "offset_v": -0.03}


def loop_of(**settings: Any) -> DelayLoop:
    return DelayLoop(**{**SHEET, **settings})


def steps(device: Any, nominal: DelayLoop | None) -> dict[str, Step]:
    return {step.name: step for step in calibrated(loop(), Subject(device, nominal, seed=1))}


@pytest.fixture(scope="module")
def found() -> dict[str, Step]:
    return steps(Simulated(loop_of(**OWN)), loop_of())


def test_a_good_loop_is_found_to_be_what_it_is(found: dict[str, Step]) -> None:
    assert all(step.good for step in found.values()), [step.problems for step in found.values()]
    noise = found["noise"].estimates["noise"]
    assert noise.value == pytest.approx(1e-3 * OWN["full_scale_v"], rel=0.05)
    specimen = loop_of(**OWN)
    rest, _ = specimen._settled()
    slope = specimen.gain * math.pi / 2 * math.sin(2 * (math.pi / 2 * specimen.gain * rest + specimen.phase_rad))
    gain, delay = found["loop"].estimates["loop_gain"], found["loop"].estimates["loop_delay"]
    assert gain.away(slope) < 4
    assert gain.sigma < 0.05
    assert delay.value == pytest.approx(1.3e-6, abs=0.05e-7)
    assert delay.unit == "s"


def test_the_fit_finds_the_specimen_and_not_the_sheet(found: dict[str, Step]) -> None:
    """Scale and offset of the reading show in the whole of the modulator's curve alone, of which this is a part."""
    estimates = found["twin"].estimates
    assert all(estimates[name].away(value) < 5 for name, value in OWN.items())
    assert all(estimates[name].away(loop_of().settings()[name]) > 5 for name in ("gain", "phase_rad", "scale_v"))
    assert found["twin"].figures["rms"] < 1.2e-3


def test_the_past_fades_as_the_linear_loop_says() -> None:
    """A linear loop of gain g: the amplitude falls by g each round."""
    device = Simulated(loop_of(nonlinearity="linear", gain=0.5, noise=1e-4))
    fades = steps(device, None)["memory"].estimates["fades"]
    assert fades.unit == "1"
    assert fades.value == pytest.approx(13 * math.log(1e-3) / math.log(0.5), rel=0.1)


def test_what_is_wrong_with_a_loop_is_named() -> None:
    opened = steps(Simulated(loop_of(gain=0.0)), loop_of(gain=0.0))
    assert [problem.kind for problem in opened["loop"].problems] == ["loop"]
    assert "no echo" in opened["loop"].said
    assert not opened["twin"].good  # not done
    other = steps(Simulated(loop_of(delay_s=1.4e-6)), loop_of())
    assert "14.00 symbols, 13.00 in [twin]" in other["loop"].problems[0].evidence
    dead = steps(Simulated(loop_of(phase_rad=0.0, gain=0.0, scale_v=3000.0, noise=1e-2)), None)
    assert "hardly answers" in dead["noise"].problems[0].what
    wild = steps(Simulated(loop_of(gain=2.6, phase_rad=0.3)), loop_of())
    assert any("oscillates" in one.what for step in wild.values() for one in step.problems)


def test_a_twin_of_another_kind_is_not_believed() -> None:
    device = Simulated(loop_of(lowpass_hz=2e6))
    assert "kind" in {problem.kind for problem in steps(device, loop_of())["twin"].problems}


class NoRest(Wrapper):
    """A loop whose bench plays one sequence right behind the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time, batch, nodes = x.shape
        answer = self._inner.forward(x.transpose(0, 1).reshape(time * batch, 1, nodes))
        return answer.view(batch, time, nodes).transpose(0, 1)


def test_a_rest_that_is_too_short_is_seen() -> None:
    step = steps(NoRest(Simulated(loop_of())), loop_of())["memory"]
    assert "does not begin at rest" in step.problems[0].what
    assert re.search(r"a longer rest in \[memory\], by at least [\d.]+ ± [\d.]+ .?s", step.problems[0].todo), step.problems[
        0
    ].todo


def test_a_twin_is_checked_by_a_sequence() -> None:
    device = Simulated(loop_of())
    right, wrong = compare_twin(device, loop_of()), compare_twin(device, loop_of(delay_s=1.4e-6))
    assert right.error < 1.5e-3 < wrong.error
    assert right.noise == pytest.approx(1e-3, rel=0.1)


def test_a_static_node_is_refused() -> None:
    with pytest.raises(ContractError, match="for a node with memory"):
        steps(Simulated(MachZehnder()), None)
