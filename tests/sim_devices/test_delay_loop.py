from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.errors import ConfigError, ContractError
from hil.seeding import generator
from sim_devices.bench.specimen import node_specimen
from sim_devices.delay_loop import DelayLoop
from sim_devices.simulated import Simulated

KINDS = {
    "at once": DelayLoop(nodes=7),
    "no coupling": DelayLoop(nodes=7, delay_s=0.7e-6),
    "a delay below a symbol": DelayLoop(nodes=7, delay_s=0.5e-6, gain=0.4),
    "two symbols and a half": DelayLoop(nodes=6, delay_s=1.5e-6, samples=2, sample_phase=0.5),
    "filters": DelayLoop(nodes=7, lowpass_hz=2e6, highpass_hz=50e3, gain=1.1),
    "filters, finer, delay below a symbol": DelayLoop(nodes=6, samples=3, delay_s=0.5e-6, lowpass_hz=3e6, sample_phase=0.6),
    "Mackey-Glass": DelayLoop(nodes=7, nonlinearity="mackey_glass", exponent=7.0, lowpass_hz=8e6, gain=0.8),
    "linear": DelayLoop(nodes=7, nonlinearity="linear", gain=0.9),
}


def drive(loop: DelayLoop, steps: int = 6, batch: int = 2) -> Tensor:
    return loop.spec.inputs.within(torch.rand(steps, batch, loop.time.nodes, generator=generator(0, 0, "loop")))


def bent(loop: DelayLoop, s: float) -> float:
    if loop.nonlinearity == "mach_zehnder":
        return math.sin(0.5 * math.pi * s + loop.phase_rad) ** 2
    return s if loop.nonlinearity == "linear" else s / (1 + abs(s) ** loop.exponent)


def plainly(loop: DelayLoop, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The equations of the loop, one sample after the other, for (time, nodes)."""
    time = loop.time
    keep = math.exp(-2 * math.pi * loop.lowpass_hz * time.step_s) if loop.lowpass_hz else 0.0
    slow = math.exp(-2 * math.pi * loop.highpass_hz * time.step_s) if loop.highpass_hz else 1.0
    past, filters = (part[0].double().tolist() for part in loop.rest(1, generator(0, 0, "rest")))
    u, mean = filters
    read = []
    for symbol in x:
        for value in symbol:
            for sample in range(time.samples):
                s = value / loop.scale_v + loop.gain * past[-time.delay]
                u = keep * u + (1 - keep) * bent(loop, s)
                mean = slow * mean + (1 - slow) * u
                past.append(u - mean)
                if sample == time.read:
                    read.append(past[-1])
    return np.reshape(read, x.shape) * loop.full_scale_v


@pytest.mark.parametrize("name", KINDS)
def test_it_answers_as_its_equations_one_after_the_other(name: str) -> None:
    loop = KINDS[name]
    x = drive(loop)
    found, _ = loop.respond(loop.rest(2, generator(0, 0, "rest")), None, x, generator(0, 0, "noise"))
    for row in range(2):
        assert np.allclose(found[:, row].numpy(), plainly(loop, x[:, row].double().numpy()), atol=2e-6)


@pytest.mark.parametrize("name", KINDS)
def test_a_sequence_in_two_calls_is_the_sequence_in_one(name: str) -> None:
    device, parts = Simulated(KINDS[name]), Simulated(KINDS[name])
    x = drive(KINDS[name])
    in_two = torch.cat([parts.forward(x[:4]), parts.forward(x[4:])])
    assert torch.allclose(device.forward(x), in_two, rtol=0, atol=1e-6)  # summed in other pieces, where there are filters
    device.reset()
    assert torch.equal(device.forward(x[:1]), Simulated(KINDS[name]).forward(x[:1]))


@pytest.mark.parametrize("name", ["at once", "filters", "Mackey-Glass"])
def test_the_past_has_a_gradient(name: str) -> None:
    """What is read in the last step, differentiated by what was sent in the first: as by differences."""
    loop = KINDS[name].remade({}).double()
    x = 0.1 * drive(loop).double().requires_grad_(True)
    (slope,) = torch.autograd.grad(loop.ideal(x)[-1, 0].sum(), x)
    apart = torch.zeros_like(x)
    apart[0, 0] = 1e-6
    with torch.no_grad():
        measured = (loop.ideal(x + apart)[-1, 0] - loop.ideal(x - apart)[-1, 0]).sum() / 2e-6
    assert abs(float(slope[0, 0].sum()) - float(measured)) < 1e-4 * max(1e-3, abs(float(measured)))
    assert float(slope[0, 0].abs().max()) > 0
    assert not slope[:, 1].any()  # another sequence


def test_nodes_hear_each_other_only_if_the_loop_says_so() -> None:
    for delay_s, heard in ((0.7e-6, [0]), (0.8e-6, [1]), (1e-6, [3])):
        loop = DelayLoop(nodes=7, delay_s=delay_s)
        x = torch.zeros(2, 1, 7)
        other = x.clone()
        other[0, 0, 0] = 0.5
        moved = (loop.ideal(other) - loop.ideal(x))[1, 0].abs() > 1e-4
        assert moved.nonzero().flatten().tolist() == heard
        assert loop.time.coupled == pytest.approx(heard[0])


def test_noise_and_steps_of_the_converter() -> None:
    loop = DelayLoop(nodes=20, noise=1e-2)
    x = drive(loop, 200)
    error = Simulated(loop).forward(x) - loop.ideal(x)
    assert float(error.std()) == pytest.approx(1e-2, rel=0.05)
    rounded = Simulated(DelayLoop(nodes=20, bits=6)).forward(x)
    assert len(rounded.unique()) <= 64
    assert float((rounded - loop.ideal(x)).abs().max()) <= 0.51 * 1.5 / 63
    inside = Simulated(DelayLoop(nodes=20, loop_noise=1e-2)).forward(x) - loop.ideal(x)
    assert float(inside.std()) > 1.05e-2  # it goes around


def test_specimens_are_drawn_by_their_seed() -> None:
    loop = DelayLoop(nodes=5, noise=1e-3)
    first, same, other = (loop.remade(node_specimen(loop, seed, "here")) for seed in (1, 1, 2))
    x = drive(loop)
    assert torch.equal(first.ideal(x), same.ideal(x))
    assert float((first.ideal(x) - other.ideal(x)).abs().max()) > 1e-3
    assert first.settings()["noise"] == 1e-3
    assert first.time == loop.time


def test_what_makes_no_loop_is_refused() -> None:
    with pytest.raises(ConfigError, match="a linear loop runs away"):
        DelayLoop(nonlinearity="linear", gain=1.0)
    with pytest.raises(ConfigError, match="no whole number of samples") as told:
        DelayLoop(nodes=50, delay_s=5.03e-6)
    assert "write delay_s = 5e-06" in told.value.todo
    with pytest.raises(ConfigError, match="a node is read while it is driven"):
        DelayLoop(sample_phase=1.5)
    device = Simulated(DelayLoop(nodes=4))
    device.forward(torch.zeros(3, 2, 4))
    with pytest.raises(ContractError, match="goes on from the sequences"):
        device.forward(torch.zeros(3, 5, 4))


@pytest.mark.parametrize(
    ("kind", "faster"),
    [(kind, 1) for kind in KINDS] + [("at once", 2), ("at once", 10), ("no coupling", 5), ("linear", 3)],
)
def test_in_time_the_loop_is_the_same_at_the_rate_of_the_instruments(kind: str, faster: int) -> None:
    """Driven as a stream, `faster` samples of the instruments for one of the twin's own, it answers as with virtual nodes.

    With filters what goes around is held for a sample, so that finer samples are another, better, loop.
    """
    loop = KINDS[kind]
    x = drive(loop, batch=1)
    held = x.flatten().repeat_interleave(loop.time.samples)
    sampled = loop.sampled(loop.time.step_s / faster)
    assert sampled.finer == 1
    stream = torch.cat([torch.zeros(3), held]).repeat_interleave(faster)[None]  # it rests at 0 V before
    y, state = sampled.respond((), None, stream, generator(0, 0, "noise"))
    assert state == ()
    every = y[0, 3 * faster :].view(-1, faster)[:, -1].view(len(x), loop.time.nodes, loop.time.samples)
    torch.testing.assert_close(every[..., loop.time.read], loop.ideal(x)[:, 0], atol=2e-5, rtol=0)


def test_in_time_it_is_as_fine_as_its_delay_asks_for() -> None:
    loop = DelayLoop(nodes=10, delay_s=1.3e-6, samples=2)
    assert loop.sampled(100e-9).finer == 2  # its own samples
    assert DelayLoop(nodes=10, delay_s=1.3e-6).sampled(40e-9).finer == 2  # 32.5 of these
    assert DelayLoop(nodes=10, delay_s=1.3e-6).sampled(30e-9).finer == 3  # 43 and a third
    with pytest.raises(ConfigError, match="farther apart than the loop is long"):
        loop.sampled(1.4e-6)


def test_in_time_it_has_settled_at_the_level_that_it_rests_at() -> None:
    loop = DelayLoop(nodes=10, gain=0.3).sampled(100e-9)
    y, _ = loop.respond((), None, torch.full((1, 200), 0.7), generator(0, 0, "noise"))
    assert float(y.std()) < 1e-6
    other, _ = loop.respond((), None, torch.zeros(1, 200), generator(0, 0, "noise"))
    assert abs(float(y.mean() - other.mean())) > 0.05
