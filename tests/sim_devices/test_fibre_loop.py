from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hil.errors import ContractError
from hil.seeding import generator
from sim_devices.bench.specimen import node_specimen
from sim_devices.fibre_loop import FibreLoop
from sim_devices.simulated import Simulated

KINDS = {
    "power": FibreLoop(nodes=6, phase_rad=0.3),
    "coherent": FibreLoop(nodes=6, detection="coherent", local_rad=0.5, phase_rad=-1.0, coupling=0.4),
    "a delay below a symbol": FibreLoop(nodes=6, delay_s=40e-9),
    "three symbols in the loop": FibreLoop(nodes=6, delay_s=190e-9),
}


def drive(loop: FibreLoop, steps: int = 7, batch: int = 2) -> Tensor:
    return loop.spec.inputs.within(torch.rand(steps, batch, loop.time.nodes, generator=generator(0, 0, "fibre")))


@pytest.mark.parametrize("name", KINDS)
def test_it_answers_as_its_equations_one_after_the_other(name: str) -> None:
    loop = KINDS[name]
    made, delay = loop._made, loop.time.delay
    rho = math.sqrt((1 - made["coupling"]) * 10 ** (-made["loss_db"] / 10))
    largest = math.sqrt(made["coupling"]) / (1 - rho)
    x = drive(loop)
    found = Simulated(loop).forward(x)
    for row in range(2):
        field = [0j] * delay
        for value in x[:, row].flatten().double().tolist():
            entered = math.sqrt(made["coupling"]) * math.sin(0.5 * math.pi * value / made["scale_v"])
            field.append(entered + rho * cmath.exp(1j * made["phase_rad"]) * field[-delay])
        light = np.array(field[delay:]).reshape(7, 6) / largest
        wanted = (light * cmath.exp(1j * made["local_rad"])).real if loop.coherent else np.abs(light) ** 2
        assert np.allclose(found[:, row].numpy(), wanted, atol=1e-6)


def test_a_sequence_in_two_calls_is_the_sequence_in_one() -> None:
    for loop in KINDS.values():
        device, x = Simulated(loop), drive(loop)
        assert torch.allclose(torch.cat([device.forward(x[:4]), device.forward(x[4:])]), Simulated(loop).forward(x), atol=1e-7)
        with pytest.raises(ContractError, match="fibre loop goes on from the sequences"):
            device.forward(x[:, :1])


def test_the_field_is_linear_and_fades_by_the_loss_of_a_round() -> None:
    """A coherent reading of the field in resonance: what a pulse leaves is smaller by rho with every round."""
    loop = FibreLoop(nodes=5, detection="coherent", delay_s=50e-9, coupling=0.3, loss_db=1.0)
    x = torch.zeros(6, 1, 5)
    x[0, 0, 2] = 0.5
    answer = loop.ideal(x)[:, 0, 2]
    assert torch.allclose(answer[1:] / answer[:-1], torch.full((5,), math.sqrt(0.7 * 10**-0.1)), rtol=1e-5)
    other = torch.zeros_like(x)
    other[2, 0, 2] = 0.5
    assert torch.allclose(loop.ideal(x + other), loop.ideal(x) + loop.ideal(other), atol=1e-6)


def test_three_symbols_in_the_loop_do_not_hear_each_other() -> None:
    """With a delay of three symbols, a symbol hears that three before it alone."""
    loop = FibreLoop(nodes=5, delay_s=150e-9)
    x = torch.full((7, 1, 5), 1.0)
    other = x.clone()
    other[0] = 2.0
    moved = (loop.ideal(other) - loop.ideal(x)).abs().amax((1, 2)) > 1e-6
    assert moved.tolist() == [True, False, False, True, False, False, True]


def test_noise_of_the_lock_and_specimens() -> None:
    loop = FibreLoop(nodes=20, phase_noise_rad=0.1)
    x = drive(loop, 50)
    error = Simulated(loop).forward(x) - loop.ideal(x)
    assert not error[0].any()  # no light has gone around yet
    assert float(error[10:].std()) > 3e-4
    first, same, other = (loop.remade(node_specimen(loop, seed, "here")) for seed in (1, 1, 2))
    assert torch.equal(first.ideal(x), same.ideal(x))
    assert float((first.ideal(x) - other.ideal(x)).abs().max()) > 1e-3
