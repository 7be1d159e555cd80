"""The twin of a bank of microrings: weights by its formulas, slopes, crosstalk, drift."""

from __future__ import annotations

import math

import pytest
import torch

from hil.errors import OutOfRange
from hil.seeding import generator
from hil.twin import Parametric
from sim_devices.microring_bank import MicroringBank
from sim_devices.simulated import Simulated

VOLTS = torch.tensor([0.4, 1.9, 1.2, 0.0, 2.2, 0.9])


def by_hand(twin: MicroringBank, bank: int, laser: int) -> float:
    through = 1.0
    for ring in range(twin.channels):
        own = bank * twin.channels + ring
        shift = sum(float(twin.matrix[own, other]) * float(VOLTS[other]) ** 2 for other in range(len(VOLTS)))
        apart = twin.spacing * (laser - ring) + float(twin.cold[bank, ring]) - shift
        through *= 1 - twin.drop / (1 + apart**2)
    return twin.loss * (1 - through) - through


def test_the_weights_are_those_of_the_formulas_and_the_answer_is_their_sum() -> None:
    twin = MicroringBank(channels=3, banks=2, specimen=4, noise=0.0)
    found = twin.weights(VOLTS.double())
    for bank in range(2):
        for laser in range(3):
            assert float(found[bank, laser]) == pytest.approx(by_hand(twin, bank, laser), abs=1e-6)
    x = torch.tensor([[0.2, 1.0, 0.5]])
    assert torch.allclose(twin.settled(x, VOLTS), twin.full_a * (x @ found.float().T), rtol=1e-5)
    assert isinstance(twin, Parametric)


def test_a_weight_goes_from_all_through_to_all_dropped_and_back() -> None:
    twin = MicroringBank(channels=1, banks=1, crosstalk=0.0, cold_spread=0.0)
    sweep = torch.stack([twin.weights(torch.tensor([volts]))[0, 0] for volts in torch.linspace(0, 3, 121)])
    top = int(sweep.argmax())
    assert float(sweep[0]) < -0.85
    assert float(sweep[top]) > 0.85
    assert 0 < top < 120
    assert float(sweep[-1]) < 0


def test_heaters_of_others_matter_and_drift_moves_all_but_only_after_the_reading() -> None:
    volts, x = torch.full((4,), 1.8), torch.ones(1, 2)
    alone, together = (MicroringBank(channels=2, banks=2, crosstalk=share).settled(x, volts) for share in (0.0, 0.05))
    assert float((alone - together).abs().max()) > 1e-6
    twin = MicroringBank(channels=2, banks=2, drift_per_rt=0.3, noise=0.0)
    state = twin.rest(1, generator(0, 0, "rest"))
    first, state = twin.respond(state, volts, x, generator(0, 0, "n"))
    assert torch.equal(first, twin.settled(x, volts))
    assert float(state[0]) != 0
    assert not torch.equal(twin.respond(state, volts, x, generator(0, 1, "n"))[0], first)
    _, (after,) = twin.respond(twin.rest(1, generator(0, 0, "rest")), volts, x.expand(400, -1), generator(0, 0, "n"))
    assert float(after) == pytest.approx(20 * float(state[0]))  # a random walk, a step a reading


def test_readings_scatter_as_they_are_said_to() -> None:
    twin = MicroringBank(channels=2, banks=1, noise_a=1e-6, relative_noise=0.01)
    volts, x = torch.full((2,), 1.8), torch.ones(4000, 2)
    found, _ = twin.respond(twin.rest(1, generator(0, 0, "rest")), volts, x, generator(0, 0, "n"))
    sigma = math.hypot(1e-6, 0.01 * float(twin.settled(x[:1], volts)))
    assert float(found.std()) == pytest.approx(sigma, rel=0.05)


def test_specimens_differ_and_limits_hold() -> None:
    one, same, other = (MicroringBank(specimen=n) for n in (1, 1, 2))
    assert torch.equal(one.cold, same.cold)
    assert not torch.equal(one.matrix, other.matrix)
    assert float(MicroringBank(cold_spread=2.0).cold.std()) == pytest.approx(2.0, rel=0.3)
    with pytest.raises(OutOfRange):
        Simulated(one).program(torch.full((64,), 3.1))
