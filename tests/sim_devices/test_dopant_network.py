"""The twin of a dopant network: currents by its formulas, other specimens, drift, slopes in data and control voltages."""

from __future__ import annotations

import math

import pytest
import torch

from hil.device import program
from hil.errors import ConfigError, OutOfRange
from hil.seeding import generator
from hil.twin import Parametric
from sim_devices.crossbar import Crossbar
from sim_devices.dopant_network import DopantNetwork
from sim_devices.mzi_mesh import MZIMesh
from sim_devices.simulated import Simulated

X = torch.tensor([[-0.8, 0.3], [0.2, -1.0], [0.6, 0.6]])
CONTROLS = torch.tensor([0.5, -1.1, 0.3, 0.2, -0.6])


def by_hand(twin: DopantNetwork, volts: list[float]) -> float:
    """The current in A at the voltages of electrodes 1 to 7, written out."""
    total = 0.0
    for pair in range(twin.levers.shape[1]):
        s, t = (
            float(twin.energies[k, pair]) + sum(float(a) * v for a, v in zip(twin.levers[k, pair], volts, strict=True))
            for k in (0, 1)
        )
        alike, level = 1 / (1 + ((s - t) / twin.coupling_v) ** 2), (s + t) / 2
        for k, v in enumerate(volts):
            window = 1 / (1 + math.exp(-(v - level) / twin.width_v)) - 1 / (1 + math.exp(level / twin.width_v))
            total += float(twin.currents[pair, k]) * alike * window
    return total


def test_the_current_is_that_of_its_formulas() -> None:
    twin = DopantNetwork(specimen=3)
    found = twin.settled(X, CONTROLS)
    for (a, b), current in zip(X.tolist(), found.flatten().tolist(), strict=True):
        c = CONTROLS.tolist()
        assert current == pytest.approx(by_hand(twin, [c[0], c[1], a, b, *c[2:]]), rel=1e-4, abs=1e-13)
    assert float(twin.currents.sum()) == pytest.approx(twin.scale_a)
    assert torch.equal(twin.settled(torch.zeros(1, 2), torch.zeros(5)), torch.zeros(1, 1))


def test_every_electrode_has_its_own_range() -> None:
    device = Simulated(DopantNetwork())
    port = device.spec.params
    assert port is not None
    assert (port.low, port.high) == ((-1.2, -1.2, -1.2, -0.7, -0.7), (0.6, 0.6, 0.6, 0.3, 0.3))
    program(device, torch.tensor([0.6, -1.2, 0.6, 0.3, -0.7]))
    with pytest.raises(OutOfRange, match="channel 4"):
        program(device, torch.tensor([0.6, -1.2, 0.6, 0.31, -0.7]))


def test_the_current_falls_while_a_voltage_rises() -> None:
    sweep = torch.stack([torch.linspace(-1.2, 0.6, 91), torch.zeros(91)], 1)
    falling = [bool((DopantNetwork(specimen=n).ideal(sweep).diff(dim=0) < -1e-11).any()) for n in range(8)]
    assert any(falling)


def test_specimens_differ_and_are_the_same_each_time() -> None:
    one, again, other = (DopantNetwork(specimen=n).ideal(X) for n in (4, 4, 5))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, rtol=0.1, atol=0.0)


def test_it_drifts_as_a_random_walk_of_its_readings() -> None:
    twin = DopantNetwork(drift_v_per_rt=1e-3)
    (walked,) = twin.respond(twin.rest(100, generator(0, 0, "rest")), None, torch.zeros(100, 2), generator(0, 0, "noise"))[1]
    assert float(walked.std()) == pytest.approx(1e-2, rel=0.3)


WIRED = {"noise": 0.0, "dac_bits": 0, "adc_bits": 0, "wire_ohm": 100.0}


@pytest.mark.parametrize(
    "twin",
    [DopantNetwork(noise=0.0), MZIMesh(modes=3, noise=0.0), Crossbar(rows=3, outputs=2, **WIRED),
     Crossbar(rows=3, outputs=2, wires="solved", **WIRED)],
    ids=["dopants", "mesh", "crossbar", "solved crossbar"],
)  # fmt: skip
def test_slopes_in_what_is_programmed_are_those_of_differences(twin: DopantNetwork | MZIMesh | Crossbar) -> None:
    assert isinstance(twin, Parametric)
    port, inputs = twin.spec.params, twin.spec.inputs
    assert port is not None
    twin = twin.double()
    x = inputs.within(torch.rand(3, inputs.size or 1, generator=generator(0, 0, "x"), dtype=torch.float64))
    at = port.within(torch.full((port.size or 1,), 0.4, dtype=torch.float64)).requires_grad_(True)
    weight = torch.randn(3, twin.spec.outputs.size or 1, generator=generator(0, 0, "w"), dtype=torch.float64)
    (slope,) = torch.autograd.grad((twin.settled(x, at) * weight).sum(), at)
    step = 1e-6
    for k in range(len(at)):
        moved = torch.zeros_like(at).index_fill_(0, torch.tensor(k), step)
        up, down = ((twin.settled(x, at.detach() + sign * moved) * weight).sum() for sign in (1, -1))
        assert float(slope[k]) == pytest.approx(float((up - down) / (2 * step)), rel=1e-3, abs=1e-3 * float(slope.abs().max()))
    answer, _ = twin.respond(twin.rest(3, generator(0, 0, "r")), at.detach(), x, generator(0, 0, "n"))
    assert torch.allclose(answer, twin.settled(x, at).detach(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(
    ("settings", "place"),
    [({"data": (3, 3)}, "data"), ({"low_v": (0.1,) * 7}, "low, high"), ({"high_v": (0.6,) * 6}, "low, high")],
)
def test_electrodes_that_make_no_sense_are_refused(settings: dict[str, tuple[float, ...]], place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        DopantNetwork(**settings)  # type: ignore[arg-type]
