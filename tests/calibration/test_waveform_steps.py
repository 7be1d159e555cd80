"""The steps of the waveform bench: honest sigmas on good nodes, the right word for bad ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from small_calibration import as_record
from torch import Tensor

from calibration.grey_box import fitted
from calibration.sequence import Procedure, Subject, calibrated
from calibration.shots import Shots, quantum
from calibration.step import Step
from calibration.waveform.bias import wrapped
from calibration.waveform.dark import DARK, allan
from calibration.waveform.noise import NOISE
from calibration.waveform.sequence import waveform
from calibration.waveform.transfer import sweeps
from hil.device import Device, Spec
from hil.report.calibration.waveform import waveform as waveform_figures
from hil.seeding import generator
from sim_devices.bench.specimen import node_specimen
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated
from sim_devices.tabulated import Tabulated

SHEET = MachZehnder(low_v=-4.0, high_v=4.0)


class Altered:
    """A device whose answers are changed on the way."""

    def __init__(self, inner: Device, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._inner, self._change = inner, change

    @property
    def spec(self) -> Spec:
        return self._inner.spec

    def program(self, params: Tensor) -> None:
        self._inner.program(params)

    def reset(self) -> None:
        self._inner.reset()

    def forward(self, x: Tensor) -> Tensor:
        return self._change(x, self._inner.forward(x))

    def close(self) -> None:
        self._inner.close()


def specimen(seed: int) -> MachZehnder:
    return MachZehnder(**node_specimen(SHEET, seed, "test"))


def found(device: Device, procedures: tuple[Procedure, ...] = (), seed: int = 0) -> dict[str, Step]:
    return {step.name: step for step in calibrated(procedures or waveform(), Subject(device, SHEET, seed))}


def first_problem(steps: Mapping[str, Step]) -> tuple[str, str]:
    """(kind, step) of what is told to the user first."""
    return next((p.kind, s.name) for s in steps.values() if not s.good for p in s.problems if p.kind != "skipped")


@pytest.fixture(scope="module")
def good() -> tuple[Simulated, dict[str, Step]]:
    device = Simulated(specimen(1), seed=1)
    return device, found(device)


def test_a_good_node_is_good_and_its_parameters_are_found(good: tuple[Simulated, dict[str, Step]]) -> None:
    device, steps = good
    assert all(step.good for step in steps.values()), [(s.name, s.problems) for s in steps.values()]
    state = device.snapshot()["state"]
    assert isinstance(state, list)
    truth = {**specimen(1).settings(), "phase_rad": float(state[0])}  # it drifted meanwhile
    estimates = steps["twin"].estimates
    assert set(estimates) == set(SHEET.unknowns())
    for name, estimate in estimates.items():
        assert estimate.away(truth[name]) < 4, (name, str(estimate), truth[name])
    for name, share in (("v_pi_v", 1e-4), ("extinction_db", 0.01), ("insertion_loss_db", 1e-3)):
        assert estimates[name].sigma < share * truth[name]


def test_what_no_step_can_see_keeps_the_sheets_value_and_spread(good: tuple[Simulated, dict[str, Step]]) -> None:
    estimates = good[1]["twin"].estimates
    assert estimates["dark_a"].value == pytest.approx(SHEET.dark_a, rel=0.05)
    assert estimates["dark_a"].sigma == pytest.approx(SHEET.unknowns()["dark_a"].spread, rel=0.05)
    assert estimates["bandwidth_hz"].sigma == SHEET.unknowns()["bandwidth_hz"].spread  # this device shows no edge
    assert estimates["noise"].sigma > 0.4 * SHEET.unknowns()["bandwidth_hz"].spread / SHEET.bandwidth_hz  # which noise rests on


def test_the_twin_is_judged_beside_its_floors(good: tuple[Simulated, dict[str, Step]]) -> None:
    figures = good[1]["twin"].figures
    assert 0.9 < figures["chi2"] < 1.1
    assert figures["nrmse"] == pytest.approx(figures["nrmse_floor"], rel=0.05)
    assert figures["cosine"] > 0.999
    assert figures["net_kept"] == 0
    assert figures["max_lsb"] < 2 * figures["max_lsb_floor"]
    raw = good[1]["twin"].raw
    assert len(raw["drive_v"]) == len(raw["residual_v"]) == len(raw["fitted_v"])


def test_the_steps_keep_what_the_main_figures_need(good: tuple[Simulated, dict[str, Step]]) -> None:
    steps = good[1]
    spread, noise = steps["twin"].raw["spread_v"], steps["noise"].estimates["noise"].value
    assert float(spread.square().mean().sqrt()) == pytest.approx(noise, rel=0.2)
    left = steps["bias"].raw["phase_rad"] / steps["bias"].raw["phase_sigma_rad"]
    assert 0.5 < float(left.diff().std()) / 2**0.5 < 2.0  # the bars are as long as the points scatter
    drawn = {figure.name: figure for figure in waveform_figures(as_record(steps))}
    assert list(drawn) == ["transfer", "allan", "noise", "step-response", "hysteresis", "drift"]
    assert str(steps["bias"].estimates["drift_rad_per_s"]) in drawn["drift"].told
    assert "spread of one reading, 1 σ (mV)" in drawn["transfer"].columns


def test_noise_is_that_of_the_node(good: tuple[Simulated, dict[str, Step]]) -> None:
    step, node = good[1]["noise"], specimen(1)
    expected = float(node.noise_at(step.raw["level_v"]).square().mean().sqrt())
    assert step.estimates["noise"].away(expected) < 4
    sinad = step.estimates["sinad_db"].value
    assert step.estimates["enob"].value == pytest.approx((sinad - 1.76) / 6.02)


def test_the_lock_is_at_quadrature_of_the_node(good: tuple[Simulated, dict[str, Step]]) -> None:
    step, node = good[1]["bias"], specimen(1)
    quadrature = (-math.pi / 2 - node.phase_rad) * node.v_pi_v / math.pi
    moved = 1.5 * abs(node.drift_rad_per_s) * node.v_pi_v / math.pi  # within the second that it takes at most
    assert abs(step.estimates["quadrature_v"].value - quadrature) < 5 * step.estimates["quadrature_v"].sigma + moved
    apart = abs(step.estimates["peak_v"].value - step.estimates["null_v"].value)
    assert apart == pytest.approx(node.v_pi_v, rel=2e-3)


def test_sigmas_are_standard_deviations() -> None:
    """Pulls of four parameters of eight specimens: 32 numbers of about unit variance."""
    pulls = []
    for seed in range(8):
        node = MachZehnder(**{**specimen(seed).settings(), "drift_rad_per_s": 0.0})
        subject = Subject(Simulated(node, seed), SHEET, seed)
        before = {step.name: step for step in calibrated((DARK, NOISE), subject)}
        shots = Shots(subject, "test")
        fit = fitted(SHEET, sweeps(shots, before, 1024, 2), shots.port)
        names = ("v_pi_v", "phase_rad", "extinction_db", "insertion_loss_db")
        pulls += [(fit.estimates[name].value - node.settings()[name]) / fit.estimates[name].sigma for name in names]
    spread = math.sqrt(sum(pull**2 for pull in pulls) / len(pulls))
    assert 0.7 < spread < 1.35, pulls


def late_by_a_record(device: Device) -> Device:
    kept: dict[torch.Size, Tensor] = {}

    def change(x: Tensor, answer: Tensor) -> Tensor:
        before = kept.get(answer.shape, answer)
        kept[answer.shape] = answer
        return before

    return Altered(device, change)


def noisy(x: Tensor, like: Tensor) -> Tensor:
    return 0.2 + 4e-4 * torch.randn(like.shape, generator=generator(0, x.numel(), "test"))


DRIVE = torch.linspace(-4, 4, 33, dtype=torch.float64)
SATURATING = Tabulated(drive=DRIVE.tolist(), reading=(0.18 + 0.16 * torch.tanh(0.6 * DRIVE)).tolist(), noise=4e-4)
BAD: dict[str, tuple[Callable[[], Device], tuple[str, str]]] = {
    "hysteresis": (lambda: Simulated(MachZehnder(hysteresis_v=0.02, low_v=-4, high_v=4)), ("hysteresis", "hysteresis")),
    "slow": (lambda: Simulated(MachZehnder(bandwidth_hz=6e7, low_v=-4, high_v=4)), ("settling", "settling")),
    "stuck": (lambda: Altered(Simulated(SHEET), noisy), ("stuck", "dark")),
    "dead": (lambda: Altered(Simulated(SHEET), lambda x, y: torch.zeros_like(y)), ("stuck", "dark")),
    "clipped": (
        lambda: Altered(Simulated(MachZehnder(laser_w=1.4e-3, low_v=-4, high_v=4)), lambda x, y: y.clamp(max=0.4)),
        ("clipped", "dark"),
    ),
    "at the rails": (
        lambda: Altered(Simulated(SHEET), lambda x, y: (y * 2).clamp(max=SHEET.spec.outputs.high)),
        ("clipped", "dark"),
    ),
    "half the load": (lambda: Simulated(MachZehnder(v_pi_v=1.75, low_v=-4, high_v=4)), ("load", "transfer")),
    "twice the load": (lambda: Simulated(MachZehnder(v_pi_v=7.0, low_v=-4, high_v=4)), ("load", "transfer")),
    "another modulator": (lambda: Simulated(MachZehnder(v_pi_v=4.6, low_v=-4, high_v=4)), ("sheet", "transfer")),
    "another kind": (lambda: Simulated(SATURATING), ("kind", "transfer")),
    "late by a record": (lambda: late_by_a_record(Simulated(SHEET)), ("delay", "delay")),
    "late by a value": (lambda: Altered(Simulated(SHEET), lambda x, y: y.roll(1, -1)), ("delay", "delay")),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_node_is_called_what_it_is(what: str) -> None:
    make, expected = BAD[what]
    steps = found(make())
    assert first_problem(steps) == expected, [(s.name, s.problems) for s in steps.values() if not s.good]
    assert not steps["twin"].good


def test_a_pole_that_reaches_the_next_value_is_memory_too() -> None:
    steps = found(Simulated(MachZehnder(bandwidth_hz=6e7, low_v=-4, high_v=4)))
    assert steps["hysteresis"].good  # its loop closes when levels are held
    assert steps["memory"].problems[0].kind == "memory"
    left = math.exp(-2 * math.pi * 6e7 * SHEET.step_s)
    assert steps["memory"].estimates["carry_over"].away(left) < 4


def test_a_node_without_noise_can_be_calibrated() -> None:
    node = MachZehnder(noise=0.0, v_pi_v=3.6, phase_rad=-1.4, low_v=-4, high_v=4)
    steps = found(Simulated(node))
    assert all(step.good for step in steps.values()), [(s.name, s.problems) for s in steps.values()]
    assert steps["twin"].estimates["v_pi_v"].value == pytest.approx(3.6, abs=1e-5)


def test_a_node_of_fixed_width_gets_whole_rows() -> None:
    rows: list[tuple[int, ...]] = []

    def seen(x: Tensor, y: Tensor) -> Tensor:
        rows.append(tuple(x.shape))
        return y

    device = Altered(Simulated(SHEET), seen)
    shots = Shots(Subject(device, SHEET), "test")
    assert len(shots(torch.zeros(7, dtype=torch.float64))) == 7
    assert rows == [(1, 7)]


def test_without_a_belief_the_curve_is_measured_and_nothing_fitted() -> None:
    steps = {step.name: step for step in calibrated(waveform(), Subject(Simulated(SHEET), None))}
    assert all(step.good for step in steps.values())
    assert not steps["transfer"].estimates
    assert len(steps["transfer"].raw["reading_v"]) == len(steps["transfer"].raw["drive_v"])


def test_the_same_seed_gives_the_same_calibration() -> None:
    once, again = (found(Simulated(SHEET, 3), waveform()[:3], seed=5)["noise"].estimates for _ in range(2))
    assert once == again


def test_the_deviation_of_white_noise_falls_until_a_drift_lifts_it() -> None:
    white = torch.randn(8192, generator=generator(0, 0, "test"), dtype=torch.float64)
    m, deviation = allan(white)
    assert float(deviation[4]) == pytest.approx(1 / math.sqrt(float(m[4])), rel=0.2)
    _, drifting = allan(white + 1e-2 * torch.arange(8192))
    assert int(drifting.argmin()) < int(deviation.argmin())


def test_the_step_of_a_converter_is_seen() -> None:
    reading = 0.2 + 4e-4 * torch.randn(4096, generator=generator(0, 0, "test"), dtype=torch.float64)
    step = 0.5 / 1024
    assert quantum((torch.round(reading / step) * step).float().double()) == pytest.approx(step, rel=1e-3)
    assert quantum(reading) == 0.0
    assert quantum(torch.zeros(10)) == 0.0


@pytest.mark.parametrize(("offset", "expected"), [(0.5, 0.5), (6.9, -0.1), (-6.0, 1.0), (3.9, -3.1)])
def test_an_offset_near_a_rail_is_wrapped_by_whole_periods(offset: float, expected: float) -> None:
    assert wrapped(offset, 7.0, -4.0, 4.0) == pytest.approx(expected)


@pytest.mark.parametrize("ripple_v", [1.6e-4, 2.5e-4])
def test_a_ripple_that_chi_squared_lets_pass_is_found_in_the_residuals(ripple_v: float) -> None:
    """Less than half the noise of a reading: chi² 1.08 and 1.2."""
    steps = found(Altered(Simulated(SHEET, 2), lambda x, y: y + ripple_v * torch.sin(3 * x)))
    assert steps["transfer"].good
    assert not steps["twin"].good
    assert steps["twin"].problems[0].kind in ("kind", "residuals")
    assert max(abs(steps["twin"].figures[f"lag_along_{way}"]) for way in ("drive", "time")) > 3
