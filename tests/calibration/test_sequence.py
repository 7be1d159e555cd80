"""The gated sequence and the values that steps give."""

from __future__ import annotations

import math

import pytest

from calibration.sequence import Found, Procedure, Subject, calibrated
from calibration.step import Estimate, Problem, Step
from hil.errors import ContractError
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

SUBJECT = Subject(Simulated(MachZehnder()))
BAD = Problem("drift", "it walks", "3 rad/s against 1", "wait")


def steps(*procedures: Procedure) -> dict[str, Step]:
    return {step.name: step for step in calibrated(procedures, SUBJECT)}


def good(name: str) -> Procedure:
    return Procedure(name, lambda subject, found: Step(name, f"{name} is fine after {sorted(found)}"))


def test_each_step_hears_of_those_before() -> None:
    found = steps(good("dark"), good("delay"))
    assert [step.said for step in found.values()] == ["dark is fine after []", "delay is fine after ['dark']"]


def test_what_needs_a_bad_step_is_not_measured_and_says_why() -> None:
    def bad(subject: Subject, found: Found) -> Step:
        return Step("dark", "no light", success=(True, False), problems=(BAD,))

    def never(subject: Subject, found: Found) -> Step:
        raise AssertionError("measured without what it needs")

    found = steps(Procedure("dark", bad), Procedure("transfer", never, needs=("dark",)), good("other"),
                  Procedure("fit", never, needs=("other", "transfer")))  # fmt: skip
    assert not found["transfer"].good
    assert "dark" in found["transfer"].problems[0].what
    assert found["other"].good
    assert found["fit"].said == "not done: needs transfer"  # the gate holds further down


def test_a_step_says_how_long_it_took() -> None:
    ticks = iter(range(100))
    subject = Subject(SUBJECT.device, clock=lambda: float(next(ticks)))
    assert [step.took_s for step in calibrated([good("dark")], subject)] == [1.0]


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(3.5178, 0.0412, "V"), "3.518 ± 0.041 V"),
        (Estimate(12.4e-9, 0.03e-9, "s"), "12.400 ± 0.030 ns"),
        (Estimate(31.2, 2.6, "dB"), "31.2 ± 2.6 dB"),
        (Estimate(1234.0, 56.0), "1234 ± 56"),
        (Estimate(2.5, 0.0, "V"), "2.5 V"),
        (Estimate(2e-3, 1e-4, "V"), "2.00 ± 0.10 mV"),
    ],
)
def test_an_estimate_is_rounded_by_what_is_known(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text


def test_distance_is_in_sigmas() -> None:
    assert Estimate(3.0, 0.5).away(4.0) == 2.0
    assert Estimate(3.0, 0.0).away(3.0) == 0.0
    assert Estimate(3.0, 0.0).away(3.1) == math.inf


@pytest.mark.parametrize(("value", "sigma"), [(math.nan, 1.0), (1.0, -1.0), (1.0, math.inf), (math.inf, 0.0)])
def test_an_estimate_is_a_finite_number(value: float, sigma: float) -> None:
    with pytest.raises(ContractError):
        Estimate(value, sigma)
