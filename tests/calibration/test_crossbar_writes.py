"""Calibration of a crossbar: how writes come out, held against the twin that they were made with."""

from __future__ import annotations

import math
from typing import Any

import pytest

from calibration.crossbar.writes import crossbar
from calibration.sequence import Subject, calibrated
from calibration.step import Step
from sim_devices.dopant_network import DopantNetwork
from sim_devices.simulated import Simulated
from sim_devices.written import Written


def steps_of(base: dict[str, Any] | None = None, known: bool = True, **settings: Any) -> dict[str, Step]:
    cells = {
        "rows": 3,
        "outputs": 1,
        "siemens_per_v": 12e-6,
        "dac_bits": 0,
        "adc_bits": 0,
        "formed": 0.0,
        "noise_a": 2e-9,
        **(base or {}),
    }
    twin = Written(of="sim_devices.crossbar:Crossbar", base=cells, **settings)
    return {step.name: step for step in calibrated(crossbar(), Subject(Simulated(twin, seed=2), twin if known else None))}


@pytest.mark.parametrize("settings", [{"up": 0.9, "down": 0.3, "noise": 0.03}, {"noise": 0.05}], ids=["asymmetric", "noisy"])
def test_it_finds_the_writes_of_the_specimen(settings: dict[str, float]) -> None:
    found = steps_of(**settings)
    assert all(step.good for step in found.values())
    for name in ("up", "down"):
        seen = found["twin"].estimates[name]
        assert seen.value == pytest.approx(settings.get(name, 1.0), abs=min(max(4 * seen.sigma, 0.02), 0.1))
    assert found["twin"].estimates["noise"].value == pytest.approx(settings["noise"], rel=0.25)
    assert found["writes"].estimates["tolerance"].value == pytest.approx(settings["noise"] / 2, rel=0.25)


def test_cells_that_are_stuck_and_writes_that_go_nowhere_fail() -> None:
    stuck = steps_of({"stuck": 0.4, "specimen": 2})
    assert [problem.kind for problem in stuck["writes"].problems] == ["stuck"] * stuck["writes"].success.count(False)
    assert not stuck["writes"].good
    assert stuck["twin"].problems[0].kind == "skipped"
    assert {problem.kind for problem in steps_of(noise=0.5)["writes"].problems} == {"writes"}
    assert not steps_of(up=0.05, noise=0.01)["writes"].good


def test_nothing_is_verified_closer_than_it_is_read() -> None:
    read = 2e-8 * math.sqrt(2 / 4) / 0.4 / 24e-6  # four shots at either end of 0.4 V, as a share of 24 uS
    found = steps_of({"noise_a": 2e-8})["writes"].estimates
    assert found["tolerance"].value == pytest.approx(3 * read, rel=0.3)
    assert found["noise"].value < read  # what readings scatter by is no noise of the writes


def test_cells_that_differ_from_each_other_are_no_twin_with_the_same_writes() -> None:
    found = steps_of(noise=0.02, spread=0.3)
    assert found["writes"].good
    assert [problem.kind for problem in found["honesty"].problems] == ["twin"]


def test_a_bench_whose_twin_has_no_writes_is_told() -> None:
    assert [problem.kind for problem in steps_of(noise=0.02, known=False)["twin"].problems] == ["twin"]


def test_another_node_is_told() -> None:
    (first, *_) = calibrated(crossbar(), Subject(Simulated(DopantNetwork())))
    assert not first.good
    assert first.problems[0].kind == "kind"
