"""What has moved: walk, scale, offset, shape and noise of a node, with honest sigmas; and charts that do not cry wolf."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.drift.control_charts import Chart, Limits, decision, loudest, run_length, settled
from calibration.drift.estimate import Reference, probe
from hil.errors import ContractError, MeasurementError

Floats = NDArray[np.float64]
V_PI, NOISE, SWING = 3.5, 1e-3, 0.36
DRIVE = np.linspace(-4, 4, 32)


def answer(rng: np.random.Generator, walk: float = 0.0, gain: float = 1.0, offset: float = 0.0, noise: float = NOISE) -> Floats:
    """One shot of a modulator: (64,) V."""
    at = probe(DRIVE) - walk
    ideal = SWING / 2 * (1 + np.cos(math.pi * at / V_PI - math.pi / 2))
    return np.asarray(gain * (ideal - SWING / 2) + SWING / 2 + offset + noise * rng.standard_normal(at.shape))


def reference(rng: np.random.Generator, period: float | None = 2 * V_PI) -> Reference:
    return Reference.of(DRIVE, np.stack([answer(rng) for _ in range(16)]), period)


def test_what_moved_is_found_with_the_sigma_that_is_said() -> None:
    rng = np.random.default_rng(0)
    pulls = []
    for _ in range(60):
        known = reference(rng)
        found = known.departure(answer(rng, walk=0.05, gain=1.03, offset=2e-3))
        pulls.append([
            (found.walk.value - 0.05) / found.walk.sigma,
            (found.scale.value - 0.03) / found.scale.sigma,
            (found.offset.value - 2e-3) / found.offset.sigma,
        ])  # fmt: skip
    mean, std = np.mean(pulls, axis=0), np.std(pulls, axis=0)
    assert np.abs(mean).max() < 0.5
    assert 0.6 < std.min() <= std.max() < 1.4  # the reference's own noise makes it a little more than 1


@pytest.mark.parametrize("walk", [-3.4, -1.75, -0.6, 0.0, 0.9, 1.75, 3.3])
def test_a_walk_far_beyond_a_fringe_is_found(walk: float) -> None:
    rng = np.random.default_rng(1)
    found = reference(rng).departure(answer(rng, walk=walk, gain=0.9))
    assert found.walk.value == pytest.approx(walk, abs=6 * found.walk.sigma)
    assert found.scale.value == pytest.approx(-0.1, abs=0.01)
    assert found.shape < 5 * NOISE


def test_another_shape_is_not_explained_away() -> None:
    rng = np.random.default_rng(2)
    known = reference(rng)
    other = answer(rng) + 0.05 * np.sin(3 * probe(DRIVE))
    assert known.departure(other).shape > 10 * known.quietest_shape()
    assert known.departure(answer(rng)).shape < known.quietest_shape()


def test_noise_that_rose_is_told_from_drift() -> None:
    rng = np.random.default_rng(3)
    known = reference(rng)
    assert known.departure(answer(rng, walk=0.3)).noise < known.loudest_noise()
    assert known.departure(answer(rng, noise=4 * NOISE)).noise > known.loudest_noise()


def test_a_straight_line_has_no_walk_of_its_own() -> None:
    rng = np.random.default_rng(4)
    line = [0.05 * probe(DRIVE) + NOISE * rng.standard_normal(64) for _ in range(17)]
    known = Reference.of(DRIVE, np.stack(line[:16]))
    assert not known.sees_walk
    found = known.departure(line[16] + 0.01)
    assert (found.walk.value, found.walk.sigma) == (0.0, 0.0)
    assert found.offset.value == pytest.approx(0.01, abs=6 * found.offset.sigma)


def test_a_node_that_is_silent_or_has_another_period_is_refused() -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(MeasurementError, match="does not answer"):
        Reference.of(DRIVE, NOISE * rng.standard_normal((16, 64)))
    with pytest.raises(MeasurementError, match="does not repeat itself"):
        reference(rng, period=5.0)


def test_the_period_is_the_specimens_own() -> None:
    rng = np.random.default_rng(8)
    assert reference(rng, period=6.8).period == pytest.approx(7.0, abs=0.005)
    assert (
        Reference.of(DRIVE[8:24], np.stack([answer(rng)[np.r_[8:24, 40:56]] for _ in range(16)]), 6.8).period == 6.8
    )  # unseen


def test_a_reference_comes_back_from_json_values() -> None:
    rng = np.random.default_rng(6)
    known, shot = reference(rng), answer(rng, walk=0.2)
    assert Reference.read(known.table()).departure(shot) == known.departure(shot)


def test_charts_do_not_cry_wolf_and_do_not_sleep() -> None:
    rng = np.random.default_rng(7)
    sigma = 0.004
    limits = Limits.of(0.01, 0.02, sigma, 16)
    chart, states = Chart(), []
    for x in sigma * rng.standard_normal(20_000):
        chart = chart.then(float(x), limits)
        states.append(chart.state(limits, states[-1] if states else "quiet"))
    assert set(states) == {"quiet"}
    for looks, shift in ((3, 0.05), (60, 0.02)):
        moved, state = Chart(), "quiet"
        for x in shift + sigma * rng.standard_normal(looks):
            moved = moved.then(float(x), limits)
            state = moved.state(limits, "quiet")
        assert state == "act", (looks, shift)


def test_thresholds_have_hysteresis() -> None:
    assert settled(0.6, 0.6, "quiet") == "quiet"
    assert settled(1.0, 0.4, "quiet") == "warn"
    assert settled(0.6, 0.3, "warn") == "warn"
    assert settled(0.4, 0.2, "warn") == "quiet"
    assert settled(2.0, 1.0, "quiet") == "act"
    assert settled(1.4, 0.6, "act") == "act"
    assert settled(1.2, 0.4, "act") == "warn"
    assert loudest(["warn", "act", "quiet"]) == "act"
    assert loudest([]) == "quiet"


def test_the_decision_gives_the_run_length_asked_for() -> None:
    assert run_length(decision(1e5)) / 2 == pytest.approx(1e5)
    assert run_length(4.77) / 2 == pytest.approx(370, rel=0.01)  # Montgomery, Introduction to Statistical Quality Control
    with pytest.raises(ContractError):
        Limits.of(0.02, 0.01, 1e-3, 16)
