"""Memory curve and spectrum of states, against nodes whose memory is known; and which states are seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hil.devices.meter import Metered
from hil.encoding import Encode
from hil.learners.parts.played import Between, played
from hil.network import Layer, Network
from hil.report.contents import DrawnStates, states
from hil.training.states import looking_on, memory_curve, spectrum, states_table
from sim_devices.delay_loop import DelayLoop
from sim_devices.simulated import Simulated


def shift_register(delays: int, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Nodes that hold the input of 0, 1, ... steps before: their memory is known."""
    rng = torch.Generator().manual_seed(0)
    u = torch.rand(3, 900, generator=rng, dtype=torch.float64)
    held = torch.nn.functional.pad(u, (delays - 1, 0)).unfold(1, delays, 1).flip(2)
    mixed = held @ torch.randn(delays, delays, generator=rng, dtype=torch.float64)
    return u, mixed + noise * torch.randn(mixed.shape, generator=rng, dtype=torch.float64)


def test_a_shift_register_remembers_as_many_steps_as_it_has() -> None:
    curve = memory_curve(*shift_register(12), washout=50)
    assert len(curve) == 24
    assert curve[:12].min() > 0.999
    assert curve[12:].max() < 0.02  # judged on steps that were not fitted: nothing is made of chance
    noisy = memory_curve(*shift_register(12, 0.5), washout=50)
    assert 0.02 < noisy[:12].mean() < 0.95


def test_the_spectrum_of_states_that_are_known() -> None:
    rng = torch.Generator().manual_seed(1)
    two = torch.randn(4000, 2, generator=rng, dtype=torch.float64) * torch.tensor([2.0, 1.0], dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=rng, dtype=torch.float64))
    shares = spectrum(two @ turn[:2])
    torch.testing.assert_close(shares[:2], torch.tensor([0.8, 0.2], dtype=torch.float64), atol=0.02, rtol=0)
    assert shares[2:].abs().max() < 1e-9
    found = DrawnStates((1.0,), ((0.0,),), spectrum=tuple(shares.tolist()))
    assert found.directions == pytest.approx(1 / 0.68, rel=0.05)


@pytest.mark.parametrize("how", [Between(), Between("carry"), Between("rest", 5)])
def test_the_states_are_those_of_the_last_layer(how: Between) -> None:
    device = Metered(Simulated(DelayLoop(nodes=4)))
    port = device.spec.inputs
    layers = [Layer(torch.nn.Linear(width, 4), device, Encode.onto(port, 1.0, 0.0, "clip", None)) for width in (1, 4)]
    net = Network([*layers, Layer(torch.nn.Linear(4, 1))])
    x = torch.rand(3, 40, 1)
    with looking_on(device, 40) as seen:
        trace = played(net, x, how)
    kept = torch.cat(seen)
    assert kept.shape == (6, 40, 4)
    decoded = layers[1].decode
    assert decoded is not None
    torch.testing.assert_close(decoded(kept[-3:]), trace.outputs[1].transpose(0, 1))
    assert device.watch is None


def test_what_the_report_refuses() -> None:
    good: dict[str, Any] = states_table(*(part.float() for part in shift_register(8)), washout=50)
    drawn = states({"states": good})
    assert drawn is not None
    assert drawn.nodes[-1] == 8
    assert 7 < drawn.capacity + drawn.memory[0] < 8.5
    for key, value in (("values", [[1.0]]), ("memory", [2.0]), ("spectrum", [float("nan")]), ("nodes", "1")):
        with pytest.raises(Exception, match=r"states"):
            states({"states": {**good, key: value}})
    assert states({}) is None


def test_too_few_steps_show_no_curve() -> None:
    u, held = shift_register(12)
    table = states_table(u[:1, :60].float(), held[:1, :60].float(), washout=50)
    assert "memory" not in table
    assert set(table) == {"nodes", "values"}
