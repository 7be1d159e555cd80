from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.errors import ConfigError, ContractError
from hil.seeding import generator
from sim_devices.memristive_network import MemristiveNetwork
from sim_devices.simulated import Simulated


def drive(twin: MemristiveNetwork, steps: int = 6, batch: int = 2) -> Tensor:
    return twin.spec.inputs.within(torch.rand(steps, batch, twin.electrodes, generator=generator(0, 0, "wires")))


def plainly(twin: MemristiveNetwork, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kirchhoff's equations for every node, one step after the other, for (time, electrodes)."""
    ends, given = twin.ends.t().tolist(), twin.place.tolist()
    up0, down0 = twin.strengthened.double().numpy(), twin.weakened.double().numpy()
    g = up0 / (up0 + down0)
    found = []
    for volts in x:
        conductance = 0.04 + 0.96 * g
        a, b = np.zeros((twin.nodes, twin.nodes)), np.zeros(twin.nodes)
        for (p, q), c in zip(ends, conductance, strict=True):
            a[p, p] += c
            a[q, q] += c
            a[p, q] -= c
            a[q, p] -= c
        whole = a.copy()
        for node, value in zip(given, volts, strict=True):
            a[node] = 0
            a[node, node] = 1
            b[node] = value
        v = np.linalg.solve(a, b)
        found.append((whole @ v)[given] / 2.0)
        across = np.abs(np.array([v[p] - v[q] for p, q in ends]))
        up, down = up0 * np.exp(10 * across), down0 * np.exp(-across)
        for _ in range(2000):
            g = g + (up * (1 - g) - down * g) * 2e-3 / 2000
    return np.array(found)


def test_it_answers_as_its_equations() -> None:
    """Kirchhoff node by node, the junctions in small steps of time."""
    twin = MemristiveNetwork(electrodes=4, rows=3, columns=3, high_v=2.0, low_v=-2.0)
    x = 0.3 * drive(twin)
    found = Simulated(twin).forward(x)
    for row in range(2):
        assert np.allclose(found[:, row].numpy(), plainly(twin, x[:, row].double().numpy()), rtol=2e-3, atol=1e-3)


def test_currents_add_up_to_nothing_and_the_answer_depends_on_the_past() -> None:
    twin = MemristiveNetwork()
    x = drive(twin, 20)
    answer = twin.ideal(x)
    assert float(answer.sum(2).abs().max()) < 1e-4 * float(answer.abs().max())
    pulsed = torch.full((40, 1, 16), 0.0)
    pulsed[:, 0, ::2] = 0.1
    quiet = pulsed.clone()
    pulsed[5, 0, ::2] = 2.0
    left = (twin.ideal(pulsed) - twin.ideal(quiet)).abs().amax((1, 2))
    assert not left[:5].any()
    assert left[6] > 1e-3
    assert left[-1] < 0.1 * left[6]


def test_specimens_differ_and_a_sequence_goes_on() -> None:
    one, same, other = (MemristiveNetwork(specimen=number) for number in (1, 1, 2))
    x = drive(one)
    assert torch.equal(one.ideal(x), same.ideal(x))
    assert float((one.ideal(x) - other.ideal(x)).abs().max()) > 1e-2
    device = Simulated(one)
    assert torch.allclose(torch.cat([device.forward(x[:3]), device.forward(x[3:])]), Simulated(one).forward(x), atol=1e-5)
    with pytest.raises(ContractError, match="memristive network goes on"):
        device.forward(x[:, :1])
    with pytest.raises(ConfigError, match="more electrodes than nodes"):
        MemristiveNetwork(electrodes=10, rows=3, columns=3)


def test_the_past_has_a_gradient() -> None:
    twin = MemristiveNetwork(electrodes=5, rows=3, columns=3).double()
    x = 0.3 * drive(twin).double().requires_grad_(True)
    (slope,) = torch.autograd.grad(twin.ideal(x)[-1, 0].square().sum(), x)
    apart = torch.zeros_like(x)
    apart[0, 0, 1] = 1e-5
    with torch.no_grad():
        up, down = (twin.ideal(x + sign * apart)[-1, 0].square().sum() for sign in (1, -1))
    assert float(slope[0, 0, 1]) == pytest.approx(float(up - down) / 2e-5, rel=1e-4)
    assert not slope[:, 1].any()
