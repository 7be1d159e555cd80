"""Equations against a scalar reference in plain Python floats, cutting in time, mismatch, surrogate, snapshots."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hil.device import ArraySpec, Device, Restorable
from hil.errors import ConfigError, ContractError, OutOfRange
from hil.seeding import generator
from hil.snapshot import packed, unpacked
from sim_devices.lif_array import LifArray, Neuron
from sim_devices.spiking_array import SpikingArray, TwinChip

DESIGNS = [
    Neuron(),
    Neuron(leak=1.0, v_rest=-1.0),
    Neuron(leak=0.9, v_th=0.7, reset="hard", v_rest=-0.2),
    Neuron(leak=0.8, refractory=2),
    Neuron(leak=0.9, threshold_mismatch=0.1, leak_mismatch=0.1, reset="hard", refractory=1),
]


def currents(time: int = 12, batch: int = 3, size: int = 7, seed: int = 0) -> Tensor:
    return torch.randn(time, batch, size, generator=generator(seed, 0, "currents")) * 1.3


def by_hand(x: Tensor, twin: LifArray) -> tuple[np.ndarray, np.ndarray]:
    """The equations of the module, one neuron and one number at a time, in float32."""
    design, f32 = twin.neuron, np.float32
    spikes, membranes = np.zeros(x.shape, f32), np.zeros(x.shape, f32)
    for row in range(x.shape[1]):
        for i in range(x.shape[2]):
            lam = f32(twin.leaks[i])
            v_th = f32(twin.threshold_factor[i] * design.v_th)
            low = f32(twin.twin_factor[i] * design.v_th)
            quantum = f32(v_th - f32(design.v_rest))
            v, s, silent = f32(0), f32(0), 0
            for t in range(x.shape[0]):
                held = v - quantum * s if design.reset == "soft" else (f32(design.v_rest) if s else v)
                v = f32(lam * held) + (f32(0) if silent else f32(x[t, row, i]))
                s = f32(v >= v_th) - f32(twin.couples and -v >= low)
                s = f32(0) if silent else s
                silent = design.refractory if s else max(0, silent - 1)
                spikes[t, row, i], membranes[t, row, i] = s, v
    return spikes, membranes


@pytest.mark.parametrize("design", DESIGNS)
def test_spikes_and_membranes_are_those_of_the_equations_bit_for_bit(design: Neuron) -> None:
    x = currents()
    array = TwinChip(design, 5).array(ArraySpec(7))
    spikes = array.forward(x)
    wanted, membranes = by_hand(x, array.twin)
    assert 0 < wanted.sum() < wanted.size
    assert np.array_equal(spikes.numpy(), wanted)
    assert np.array_equal(array.monitor().numpy(), membranes)


def test_couples_fire_plus_and_minus_with_a_shared_reset() -> None:
    design = Neuron(leak=1.0, v_th=0.5, v_rest=-0.5, threshold_mismatch=0.1)
    x = currents(20) * 0.5
    array = TwinChip(design, 2).array(ArraySpec(7, couples=True))
    wanted, membranes = by_hand(x, array.twin)
    spikes = array.forward(x)
    assert set(spikes.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert np.array_equal(spikes.numpy(), wanted)
    assert np.array_equal(array.monitor().numpy(), membranes)


def test_a_threshold_of_half_the_quantum_rounds_the_rate() -> None:
    rates = torch.linspace(0, 1, 41)
    steps = 20
    for v_rest, worst in ((0.0, 1.0), (-1.0, 0.5)):
        array = TwinChip(Neuron(leak=1.0, v_rest=v_rest)).array(ArraySpec(41))
        x = (rates * (1.0 - v_rest)).expand(steps, 1, 41)
        error = array.forward(x).mean(0) - rates
        assert float(error.abs().max()) * steps <= worst + 1e-3


@pytest.mark.parametrize("design", [*DESIGNS, Neuron(noise=0.3), Neuron(noise=0.3, refractory=1)])
@pytest.mark.parametrize("couples", [False, True])
def test_all_steps_at_once_equal_one_step_at_a_time(design: Neuron, couples: bool) -> None:
    design = replace(design, reset="soft") if couples else design
    x = currents(15, 5, 33)
    whole, single, mixed = (TwinChip(design, 3).array(ArraySpec(33, couples)) for _ in range(3))
    at_once = whole.forward(x)
    steps, membranes = [], []
    for t in range(15):
        steps.append(single.forward(x[t : t + 1]))
        membranes.append(single.monitor())
    assert torch.equal(torch.cat(steps), at_once)
    assert torch.equal(torch.cat(membranes), whole.monitor())
    assert torch.equal(torch.cat([mixed.forward(piece) for piece in x.split([4, 0, 1, 10])]), at_once)


def test_rows_are_independent_of_how_a_batch_is_cut() -> None:
    design = Neuron(leak=0.93, threshold_mismatch=0.1, leak_mismatch=0.1)
    x = currents(6, 10, 37)
    whole = TwinChip(design, 1).array(ArraySpec(37)).forward(x)
    for rows in (slice(0, 3), slice(3, 10)):
        assert torch.equal(TwinChip(design, 1).array(ArraySpec(37)).forward(x[:, rows]), whole[:, rows])


def test_state_lives_until_reset() -> None:
    array = TwinChip(Neuron(leak=1.0)).array(ArraySpec(1))
    half = torch.full((1, 1, 1), 0.5)
    assert [float(array.forward(half)) for _ in range(4)] == [0, 1, 0, 1]
    array.forward(half)
    array.reset()
    assert [float(array.forward(half)) for _ in range(2)] == [0, 1]


def test_refractory_steps_are_silent_and_blind() -> None:
    array = TwinChip(Neuron(leak=1.0, refractory=2)).array(ArraySpec(1))
    assert array.forward(torch.ones(9, 1, 1)).flatten().tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0]


def test_mismatch_is_drawn_once_per_array_and_differs_between_arrays() -> None:
    design = Neuron(threshold_mismatch=0.1, leak_mismatch=0.1)
    chip, again = TwinChip(design, 4), TwinChip(design, 4)
    first, second = chip.array(ArraySpec(2000)).twin, chip.array(ArraySpec(2000)).twin
    assert torch.equal(first.threshold_factor, again.array(ArraySpec(2000)).twin.threshold_factor)
    assert not torch.equal(first.threshold_factor, second.threshold_factor)
    assert float(first.threshold_factor.std()) == pytest.approx(0.1, rel=0.08)
    assert float((1 - first.leaks).std() / 0.5) == pytest.approx(0.1, rel=0.08)
    assert float((first.threshold_factor - 1).abs().max()) <= 0.3 + 1e-6
    x = currents(5, 2, 2000)
    array = TwinChip(design, 4).array(ArraySpec(2000))
    before = array.forward(x)
    array.reset()
    assert torch.equal(array.forward(x), before)
    nominal = LifArray(2000, replace(design, threshold_mismatch=0.0, leak_mismatch=0.0, noise=0.0))
    assert not torch.equal(SpikingArray(nominal).forward(x), before)
    assert torch.equal(SpikingArray(nominal).forward(x), TwinChip().array(ArraySpec(2000)).forward(x))


def test_no_leak_has_no_leak_mismatch() -> None:
    twin = TwinChip(Neuron(leak=1.0, leak_mismatch=0.2)).array(ArraySpec(10)).twin
    assert twin.leaks.tolist() == [1.0] * 10


def test_noise_has_its_sigma_and_is_new_in_every_sequence() -> None:
    array = TwinChip(Neuron(leak=1.0, v_th=50.0, noise=0.2), 1).array(ArraySpec(500))
    quiet = torch.zeros(1, 40, 500)
    array.forward(quiet)
    first = array.monitor()
    array.reset()
    array.forward(quiet)
    assert float(first.std()) == pytest.approx(0.2, rel=0.02)
    assert not torch.equal(first, array.monitor())


def test_programmed_thresholds_replace_the_designed_ones() -> None:
    array = TwinChip(Neuron(leak=1.0)).array(ArraySpec(3))
    array.program(torch.tensor([0.5, 1.0, 2.0]))
    assert array.forward(torch.full((8, 1, 3), 0.5)).sum((0, 1)).tolist() == [8, 4, 2]
    with pytest.raises(OutOfRange):
        array.program(torch.tensor([0.5, 1.0]))
    with pytest.raises(OutOfRange):
        array.program(torch.tensor([0.5, 0.0, 1.0]))


def test_a_chip_gives_arrays_of_another_design() -> None:
    array = TwinChip(Neuron(leak=0.5, noise=0.1)).array(ArraySpec(4, True, v_th=0.5, v_rest=-0.5, leak=1.0))
    assert array.twin.neuron == Neuron(leak=1.0, v_th=0.5, v_rest=-0.5, noise=0.1)
    assert array.twin.couples
    assert (array.spec.outputs.low, array.spec.outputs.high) == (-1.0, 1.0)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("sg", ["arctan", "sigmoid"])
def test_the_surrogate_response_has_the_spikes_of_the_array(design: Neuron, sg: str) -> None:
    x = currents(15, 4, 21)
    array = TwinChip(design, 6).array(ArraySpec(21))
    assert torch.equal(array.twin.surrogate(x, sg), array.forward(x))  # type: ignore[arg-type]
    if design.reset == "soft":
        couple = TwinChip(design, 6).array(ArraySpec(21, True))
        assert torch.equal(couple.twin.surrogate(x), couple.forward(x))


def test_the_surrogate_gradient_is_that_of_the_recursion() -> None:
    """Two steps by hand: dv2/dv1 = lam (1 - V ds1/dv1)."""
    twin = LifArray(1, Neuron(leak=0.5))
    x = torch.tensor([0.8, 0.3]).view(2, 1, 1).requires_grad_()
    spikes = twin.surrogate(x, "sigmoid", 4.0)
    spikes[1].sum().backward()
    v1, v2 = 0.8, 0.5 * 0.8 + 0.3

    def slope(v: float) -> float:
        p = 1 / (1 + np.exp(-4 * (v - 1)))
        return float(4 * p * (1 - p))

    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([slope(v2) * 0.5 * (1 - slope(v1)), slope(v2)], rel=1e-5)
    x.grad = None
    twin.surrogate(x, "sigmoid", 4.0, detach_reset=True)[1].sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([slope(v2) * 0.5, slope(v2)], rel=1e-5)


def test_the_arctan_slope_at_threshold_is_its_sharpness_over_two() -> None:
    twin = LifArray(1, Neuron())
    x = torch.ones(1, 1, 1, requires_grad=True)
    twin.surrogate(x, "arctan", 3.0).sum().backward()
    assert x.grad is not None
    assert float(x.grad) == pytest.approx(1.5)


def test_the_device_keeps_the_contracts() -> None:
    array = TwinChip().array(ArraySpec(4))
    device: Device = array
    assert isinstance(array, Restorable)
    assert device.spec.temporal
    assert device.spec.provenance == "twin"
    answer = device.forward(currents(2, 2, 4).requires_grad_())
    assert not answer.requires_grad
    assert answer.dtype == torch.float32
    device.close()
    device.close()


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 4), torch.zeros(1, 3, 4), torch.zeros(1, 2, 2, 4)], ids=["no time", "other batch", "four axes"]
)
def test_other_shapes_are_refused(x: Tensor) -> None:
    array = TwinChip().array(ArraySpec(4))
    array.forward(torch.zeros(1, 2, 4))
    with pytest.raises(ContractError):
        array.forward(x)


def test_currents_out_of_limits_are_refused() -> None:
    array = TwinChip(Neuron(limit=2.0)).array(ArraySpec(1))
    for bad in (2.1, float("nan"), float("-inf")):
        with pytest.raises(OutOfRange):
            array.forward(torch.full((1, 1, 1), bad))


def test_a_monitor_without_a_pass_is_refused() -> None:
    with pytest.raises(ContractError):
        TwinChip().array(ArraySpec(1)).monitor()


@pytest.mark.parametrize(
    "wrong",
    [
        {"leak": 0.0}, {"leak": 1.1}, {"leak": float("nan")}, {"v_th": 0.0}, {"v_rest": 1.0}, {"reset": "none"},
        {"refractory": -1}, {"threshold_mismatch": 0.5}, {"noise": -1.0}, {"limit": 0.0},
        {"v_rest": 0.8, "threshold_mismatch": 0.1},
    ],
)  # fmt: skip
def test_settings_that_make_no_neuron_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Neuron(**wrong)  # type: ignore[arg-type]


def test_arrays_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError):
        LifArray(0)
    with pytest.raises(ConfigError):
        LifArray(2, Neuron(reset="hard"), couples=True)


def test_a_restored_array_goes_on_bit_for_bit() -> None:
    design = Neuron(noise=0.2, refractory=1, threshold_mismatch=0.1)
    x = currents(6, 3, 5)
    array, other = TwinChip(design, 8).array(ArraySpec(5)), TwinChip(design, 8).array(ArraySpec(5))
    array.program(torch.full((5,), 0.8))
    array.forward(x[:3])
    other.restore(unpacked(json.loads(json.dumps(packed(array.snapshot())))))
    assert torch.equal(other.forward(x[3:]), array.forward(x[3:]))
    with pytest.raises(ContractError):
        other.restore({"steps": "many", "state": None, "params": None})
