"""Synapses from a function that a file names: what they must not be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import hil.synapses
from hil.build.network import chain_of
from hil.config.experiment import Experiment, experiment_of
from hil.data.dataset import load
from hil.errors import ConfigError


def experiment() -> Experiment:
    tables = {"network": {"use": "hil.synapses:mine"}, "device": {"use": "mach_zehnder"}, "learner": {"use": "adfa"}}
    return experiment_of(tables, Path("e.toml"))


def made(monkeypatch: pytest.MonkeyPatch, chain: Callable[[], object]) -> list[nn.Module]:
    monkeypatch.setattr(hil.synapses, "mine", chain, raising=False)
    return list(chain_of(experiment().network, 0, load("digits")).synapses)


@pytest.mark.parametrize("chancy", [nn.Dropout(0.1), nn.AlphaDropout(0.1), nn.RReLU()], ids=lambda m: type(m).__name__)
def test_a_synapse_that_draws_by_itself_is_refused(monkeypatch: pytest.MonkeyPatch, chancy: nn.Module) -> None:
    """Learners run a synapse again for its gradient, and a resumed run would draw other numbers."""

    def chain() -> list[nn.Module]:
        return [nn.Sequential(nn.Linear(64, 8), chancy), nn.Linear(8, 10)]

    with pytest.raises(ConfigError, match=type(chancy).__name__) as caught:
        made(monkeypatch, chain)
    assert "[learner]" in caught.value.todo


def test_any_other_module_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def chain() -> list[nn.Module]:
        return [nn.Sequential(nn.Linear(64, 8), nn.LayerNorm(8), nn.GELU()), nn.Linear(8, 10)]

    assert len(made(monkeypatch, chain)) == 2


@pytest.mark.parametrize("wrong", [[], [1], nn.Linear(64, 10)], ids=["none", "a number", "no list"])
def test_what_is_no_list_of_modules_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: object) -> None:
    with pytest.raises(ConfigError, match="does not give synapses"):
        made(monkeypatch, lambda: wrong)
