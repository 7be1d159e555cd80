"""The twin of a crossbar: Kirchhoff's equations of its wires, differential pairs, converters, gates, specimens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hil.errors import ConfigError
from hil.seeding import generator
from sim_devices.crossbar import Crossbar, fast, solved

QUIET: dict[str, Any] = {"noise": 0.0, "dac_bits": 0, "adc_bits": 0}
RNG = torch.Generator


def by_kirchhoff(cells: np.ndarray, ohm: float, volts: np.ndarray) -> np.ndarray:
    """Currents of the columns, by node voltages: node (k, c) of a row wire, and of a column wire beneath it."""
    rows, columns = cells.shape
    row, column = (
        np.arange(rows * columns).reshape(rows, columns),
        rows * columns + np.arange(rows * columns).reshape(rows, columns),
    )
    system, driven = np.zeros((2 * rows * columns,) * 2), np.zeros(2 * rows * columns)

    def joined(a: int, b: int | None, siemens: float, at: float = 0.0) -> None:
        system[a, a] += siemens
        if b is None:  # held at a voltage
            driven[a] += siemens * at
            return
        system[b, b] += siemens
        system[a, b] -= siemens
        system[b, a] -= siemens

    for k in range(rows):
        for c in range(columns):
            joined(row[k, c], column[k, c], cells[k, c])
            joined(row[k, c], None if c == 0 else row[k, c - 1], 1 / ohm, volts[k])
            joined(column[k, c], None if k == rows - 1 else column[k + 1, c], 1 / ohm)
    found = np.linalg.solve(system, driven)
    return found[column[-1]] / ohm


def test_solved_wires_are_those_of_kirchhoff_and_fast_ones_come_near() -> None:
    twin = Crossbar(rows=5, outputs=3, specimen=2)
    cells, volts = twin.formed.double(), 0.2 * torch.rand(5, generator=generator(0, 0, "v"), dtype=torch.float64)
    for ohm in (1.0, 100.0):
        along, down = ohm * twin.along.double(), ohm * twin.down.double()
        exact = volts @ solved(cells, along, down)
        assert exact.numpy() == pytest.approx(by_kirchhoff(cells.numpy(), ohm, volts.numpy()), rel=1e-9)
        lost = float((1 - exact / (volts @ cells)).abs().max())
        off = float((1 - volts @ fast(cells, along, down) / exact).abs().max())
        assert off < lost**2
        there, near = (
            Crossbar(rows=5, outputs=3, specimen=2, wire_ohm=ohm, wires=how).double().ideal(volts) for how in ("solved", "fast")
        )
        assert torch.allclose(there, (exact[::2] - exact[1::2]) * twin.gains, rtol=1e-6, atol=0)
        assert torch.allclose(near, there, rtol=ohm * 1e-3, atol=0)
        assert not torch.equal(near, there)


def test_a_reading_is_the_difference_of_two_columns_behind_its_converters() -> None:
    twin = Crossbar(rows=2, outputs=2, wire_ohm=0.0, gain_spread=0.0, noise=0.0, dac_bits=4, adc_bits=6, range_a=5e-6)
    params = torch.tensor([20e-6, 5e-6, 1e-6, 1e-6, 3e-6, 9e-6, 25e-6, 2e-6])
    x = torch.tensor([[0.2, -0.2], [0.042, 0.0], [0.0, 0.0]])
    volts = (x / (0.2 / 7)).round() * (0.2 / 7)
    weights = params.view(2, 2, 2)
    current = volts @ (weights[..., 0] - weights[..., 1])
    step = 5e-6 / 31
    found, state = twin.respond((), params, x, RNG())
    assert torch.allclose(found, (current / step).round() * step, atol=1e-9)
    assert float(found[2].abs().max()) == 0.0
    assert state == ()
    assert torch.allclose(twin.settled(x, params), x @ (weights[..., 0] - weights[..., 1]), atol=1e-10)
    assert not torch.equal(twin.respond((), params.flip(0), x, RNG())[0], found)
    assert torch.equal(twin.respond((), params, x, RNG())[0], found)
    params[0] = 1e-6  # in place: nothing of the last reading is kept
    assert not torch.equal(twin.respond((), params, x, RNG())[0], found)
    loud = Crossbar(rows=2, outputs=2, range_a=1e-7)
    assert float(loud.respond((), params, x, RNG())[0].abs().max()) == pytest.approx(1e-7)


@pytest.mark.parametrize("relative", [0.0, 0.5])
def test_readings_scatter_as_they_are_said_to(relative: float) -> None:
    twin = Crossbar(rows=2, outputs=1, noise_a=1e-7, relative_noise=relative, adc_bits=0, dac_bits=0)
    x = torch.tensor([[0.2, 0.2]]).repeat(4000, 1)
    found = twin.respond((), torch.tensor([2e-6, 1e-6] * 2), x, generator(0, 0, "noise"))[0]
    assert float(found.std()) == pytest.approx(np.hypot(1e-7, relative * 4e-7), rel=0.05)


def test_gates_set_conductances_and_stuck_cells_stay() -> None:
    twin = Crossbar(rows=4, outputs=2, siemens_per_v=12e-6, stuck=0.5, specimen=1)
    port = twin.spec.params
    assert port is not None
    assert (port.low, port.high, port.unit) == (0.0, pytest.approx(2.0), "V")
    cells = twin.conductances(torch.ones(16))
    assert {round(float(g) * 1e6, 3) for g in cells.flatten()} == {1.0, 13.0, 25.0}
    assert torch.equal(
        cells, Crossbar(rows=4, outputs=2, siemens_per_v=12e-6, stuck=0.5, specimen=1).conductances(torch.ones(16))
    )
    assert not torch.equal(Crossbar(specimen=1).formed, Crossbar(specimen=2).formed)
    new = Crossbar(outputs=400, formed=0.0, gain_spread=0.02)
    assert bool((new.formed == new.formed.new_tensor(1e-6)).all())
    assert float(new.gains.std()) == pytest.approx(0.02, rel=0.1)
    assert new.spec.outputs.high == pytest.approx(0.2 * 24e-6 * 4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"g_min_siemens": 3e-5}, "range"), ({"rows": 64, "outputs": 64, "wires": "solved"}, "fast")],
)
def test_crossbars_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Crossbar(**settings)
