from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hil.errors import ContractError
from hil.seeding import generator
from sim_devices.coupled_nodes import CoupledNodes
from sim_devices.simulated import Simulated


@pytest.mark.parametrize("response", ["interference", "saturation"])
def test_it_answers_as_its_equations(response: str) -> None:
    twin = CoupledNodes(nodes=8, response=response, coupled=0.6, leak=0.4)  # type: ignore[arg-type]
    x = twin.spec.inputs.within(torch.rand(6, 2, 8, generator=generator(0, 0, "drive")))
    w, phase, r = twin.coupling.t().double().numpy(), twin.phase.double().numpy(), np.zeros((2, 8))
    for step, found in zip(x.double().numpy(), Simulated(twin).forward(x).numpy(), strict=True):
        s = step / 3.5 + 0.9 * r @ w.T
        f = np.tanh(s) if response == "saturation" else np.sin(0.5 * math.pi * s + phase) ** 2
        r = 0.6 * r + 0.4 * f
        assert np.allclose(found, r, atol=1e-5)


def test_the_medium_has_the_radius_one_and_is_drawn_by_its_specimen() -> None:
    one, same, other = (CoupledNodes(nodes=40, specimen=number) for number in (1, 1, 2))
    assert float(torch.linalg.eigvals(one.coupling).abs().max()) == pytest.approx(1, abs=1e-3)
    assert torch.equal(one.coupling, same.coupling)
    assert not torch.equal(one.coupling, other.coupling)


def test_the_past_fades() -> None:
    twin = CoupledNodes(nodes=30, coupled=0.3)
    quiet = torch.zeros(200, 1, 30)
    pulse = quiet.clone()
    pulse[0] = 3.5
    left = (twin.ideal(pulse) - twin.ideal(quiet)).abs().amax((1, 2))
    assert left[5] > 1e-3
    assert left[-1] < 1e-3 * left[0]


def test_another_batch_in_the_middle_of_a_sequence_is_refused() -> None:
    device = Simulated(CoupledNodes(nodes=4, coupled=1.0))
    device.forward(torch.zeros(3, 2, 4))
    with pytest.raises(ContractError, match="goes on from the sequences"):
        device.forward(torch.zeros(3, 1, 4))
