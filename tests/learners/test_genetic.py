"""The genetic learner: a pass a genome, elites that stay, inside the bounds; first generations on a twin ask no device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from zeroth_order_net import LABEL, TWIN, network, x

from hil.errors import ConfigError
from hil.learners.genetic import Genetic, GeneticSettings
from hil.learners.parts.probe import Probe
from hil.network import Network
from hil.seeding import generator


def rule(net: Network, model: Any = None, **settings: Any) -> Genetic:
    drawn = GeneticSettings(**{"reach": 0.8, **settings})  # so that no genome drives the modulator beyond its range
    return Genetic.build(net, drawn, 3, generator(0, 0, "learner"), model)


def generations(net: Network, learner: Genetic, count: int, first: int = 0) -> list[float]:
    found = []
    for number in range(first, first + count):
        metrics = learner.step(net, x(), LABEL, generator(0, number, "step"))
        for weight in net.parameters():
            assert weight.grad is not None
            weight.data.sub_(weight.grad)  # SGD, lr = 1
            assert float(weight.detach().abs().max()) <= learner.settings.reach * (1 + 1e-6)
        found.append(metrics["best"])
    return found


def test_a_pass_a_genome_and_the_best_never_gets_worse() -> None:
    net, device = network()
    before = [p.detach().clone() for p in net.parameters()]
    learner = rule(net, population=12, elites=2)
    found = generations(net, learner, 15)
    assert (device.count.calls, device.count.passes) == (12 * 15, 12 * 15 * 4 * 5)
    assert found == sorted(found, reverse=True)  # the node has no noise, and the batch is the same
    assert found[-1] < 0.6 * found[0]
    assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    score = float(learner.loss.of(learner.predict(net, x()), LABEL))
    assert score == pytest.approx(found[-1], rel=1e-3)  # the network is the best of them


def test_elites_are_ranked_by_their_mean_over_all_their_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    net, _ = network()
    learner, asked = rule(net, population=4, elites=2), Probe.loss_at
    said = iter([4.0, 1.0, 2.0, 3.0, 5.0, 0.5, 6.0, 7.0])

    def found(probe: Probe, weights: Sequence[torch.Tensor]) -> float:
        asked(probe, weights)
        return next(said)

    monkeypatch.setattr(Probe, "loss_at", found)
    assert generations(net, learner, 2) == [1.0, 1.25]
    assert learner.losses.tolist() == [1.25, 3.0, 0.0, 0.0]
    assert learner.seen.tolist() == [2, 2, 0, 0]


def test_generations_on_the_twin_ask_no_device_and_the_next_measure_anew() -> None:
    net, device = network()
    learner = rule(net, TWIN.ideal, population=6, elites=2, on_twin=3)
    generations(net, learner, 3)
    assert device.count.calls == 0
    assert learner.seen.tolist()[2:] == [0, 0, 0, 0]
    generations(net, learner, 1, 3)
    assert device.count.calls == 6
    assert int(learner.seen.max()) == 1


def test_its_state_is_all_that_a_resume_needs() -> None:
    net, _ = network()
    learner = rule(net, population=6, elites=2)
    generations(net, learner, 2)
    other, _ = network()
    again = rule(other, population=6, elites=2)
    again.load_state_dict(learner.state_dict())
    other.load_state_dict(net.state_dict())
    assert generations(net, learner, 2, 2) == generations(other, again, 2, 2)


@pytest.mark.parametrize(
    "wrong", [{"population": 3}, {"elites": 0}, {"elites": 24}, {"reach": 0.0}, {"crossover_rate": 1.5}, {"on_twin": -1}]
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        GeneticSettings(**wrong)


def test_a_twin_is_needed_for_generations_on_it() -> None:
    with pytest.raises(ConfigError, match="genetic with on_twin"):
        rule(network()[0], on_twin=1)
