"""Capacities and ranks of states whose memory is known."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre

from hil.cli import run
from hil.errors import ConfigError, ContractError
from hil.memory.capacity import _legendre, capacity, terms
from hil.memory.ranks import rank, streams
from hil.seeding import generator
from sim_devices.coupled_nodes import CoupledNodes

STEPS, BEFORE = 3000, 30
FILE = Path(__file__).resolve().parents[2] / "experiments" / "narma10_delay_loop.toml"


def drawn(steps: int = STEPS, stream: str = "u") -> torch.Tensor:
    return torch.rand(BEFORE + steps, generator=generator(0, 0, stream), dtype=torch.float64) * 2 - 1


def past(u: torch.Tensor, delay: int) -> torch.Tensor:
    return u[BEFORE - delay : len(u) - delay]


def test_functions_are_orthonormal_and_all_there() -> None:
    u = drawn(20_000)
    for degree in range(5):
        wanted = np.sqrt(2 * degree + 1) * legendre.legval(u.numpy(), np.eye(5)[degree])
        assert np.allclose(_legendre(u, 4)[degree].numpy(), wanted)
    gram = _legendre(u, 4) @ _legendre(u, 4).t() / len(u)
    assert torch.allclose(gram, torch.eye(5, dtype=torch.float64), atol=0.05)
    every = list(terms(3, 4))
    assert len(every) == len(set(every)) == comb(5 + 3 - 1, 3)
    assert {sum(degree for _, degree in term) for term in every} == {3}
    assert ((0, 2), (3, 1)) in every


def test_a_delay_line_has_the_capacity_of_its_taps() -> None:
    u = drawn()
    states = torch.stack([past(u, k) for k in range(8)], 1) @ torch.randn(8, 8, generator=generator(0, 0, "mix")).double()
    found = capacity(states, u, (20, 8))
    assert found.rank == 8
    assert found.memory[:8] == pytest.approx([1.0] * 8)
    assert not any(found.memory[8:])
    assert found.by_degree == pytest.approx({1: 8.0, 2: 0.0})
    assert found.table()["total"] == pytest.approx(8.0)


def test_products_are_found_by_their_degree_and_delays() -> None:
    u = drawn()
    square, product = past(u, 3) ** 2, past(u, 1) * past(u, 2) * past(u, 5)
    found = capacity(torch.stack([past(u, 0) + 5, square, product], 1), u, (10, 6, 6))
    assert found.by_degree == pytest.approx({1: 1.0, 2: 1.0, 3: 1.0}, abs=0.02)
    assert {term for term, _ in found.largest} == {((0, 1),), ((3, 2),), ((1, 1), (2, 1), (5, 1))}


def test_states_that_have_nothing_to_do_with_the_input_have_none() -> None:
    """Without the threshold 20 states would seem to have 20/3000 of each of the 1,100 functions: 7 in all."""
    states = torch.randn(STEPS, 20, generator=generator(0, 0, "states"))
    found = capacity(states, drawn(), (29, 20, 12))
    assert found.tried > 700
    assert found.total < 0.05
    loose = capacity(states, drawn(), (29, 20, 12), chance=0.5)
    assert loose.total > 0.2


def test_a_fading_node_without_noise_uses_all_its_states() -> None:
    twin = CoupledNodes(nodes=6, gain=0.5, coupled=0.7, phase_rad=0.5, response="interference")
    u = drawn(4000)
    mask = torch.randn(6, generator=generator(0, 0, "mask"))
    states = twin.ideal((u.float().unsqueeze(1) * mask).unsqueeze(1))[BEFORE:, 0]
    found = capacity(states, u, (12, 8, 6, 4, 2))
    assert found.total == pytest.approx(found.rank, rel=0.05)
    assert found.by_degree[2] > 0.5


def test_what_makes_no_sense_is_refused() -> None:
    u = drawn(100)
    with pytest.raises(ConfigError, match="these delays cannot be asked for"):
        capacity(torch.rand(100, 3), u, (BEFORE + 1,))
    with pytest.raises(ContractError, match="too few steps to tell capacities from chance"):
        capacity(torch.rand(100, 60), u, (3,))
    with pytest.raises(ContractError, match="finite"):
        capacity(torch.full((100, 3), torch.nan), u, (3,))
    with pytest.raises(ConfigError, match="these streams make no sense"):
        streams(10, 5, 5, 0)


def test_ranks_of_a_delay_line() -> None:
    """Ten taps tell any streams apart; those of streams that are alike in the last four steps have six left."""
    apart, alike = streams(100, 20, 4, 0)
    assert rank(apart[:, -10:]) == 10
    assert rank(alike[:, -10:] - alike[:, -10:].mean(0)) == 6
    assert rank(alike[:, -4:]) == 1
    assert rank(torch.zeros(5, 3)) == 0
    assert rank(torch.diag(torch.tensor([1.0, 0.5, 0.005]))) == 2
    assert torch.equal(streams(3, 20, 4, 1)[1, 0, -4:], streams(3, 20, 4, 1)[1, 2, -4:])


def test_the_node_of_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "profile.json"
    words = ["memory", str(FILE), "--set", "data.steps=250", "--set", "device.nodes=12", "--set", "network.widths=[1, 12, 1]",
             "--set", 'device.delay_s="1.3 us"', "--steps", "1500", "--streams", "40", "--delays", "20", "6"]  # fmt: skip
    assert run([*words, "--json", str(kept)]) == 0
    told = capsys.readouterr().out
    assert "memory capacity" in told
    assert "(twin)" in told
    found = json.loads(kept.read_text(encoding="utf-8"))
    assert 10 < found["capacity"]["total"] <= 12.6
    assert found["kernel_rank"] >= found["generalisation_rank"] >= 1
    assert run([*words, "--json", str(kept)]) != 0
    assert "nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "settings", "what"),
    [
        (FILE, ["learner.use=adfa"], "this is about nodes with memory"),
        (FILE.with_name("digits_deep_reservoir.toml"), [], "this is about nodes with memory"),
        (FILE.with_name("digits_memristive_network.toml"), [], "capacities are functions of one input"),
        (FILE, ["data.steps=250"], "these streams make no sense"),
    ],
)
def test_an_experiment_of_another_kind_is_refused(
    file: Path, settings: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alike = ["--alike", "50"] if "streams" in what else []
    assert run(["memory", str(file), *(word for one in settings for word in ("--set", one)), *alike]) == 2
    assert what in capsys.readouterr().err
