"""The test split is read with what was best on the validation split: weights, and the learner's state of that moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hil.data.dataset import load
from hil.network import Layer, Network
from hil.run.folder import RunFolder
from hil.run.signals import Stopping
from hil.run.summary import Labels
from hil.training.loop import train
from hil.training.session import run
from hil.training.state import Training, TrainingPlan


class Fading(nn.Module):
    """Right after its first step, less and less so later: its state decides."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))

    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        self.steps += 1
        net.zero_grad(set_to_none=True)
        return {"loss": 1.0}

    def predict(self, net: Network, x: Tensor) -> Tensor:
        return net(x).outputs[-1].roll(int(self.steps) - 1, 1)


def training() -> Training:
    torch.manual_seed(0)
    readout, data = nn.Linear(64, 10), load("digits")
    with torch.no_grad():  # the nearest class mean: good weights, which nothing changes
        means = torch.stack([data.train.x[data.train.y == label].mean(0) for label in range(10)])
        readout.weight.copy_(means)
        readout.bias.copy_(-0.5 * means.square().sum(1))
    net = Network([Layer(readout)])
    return Training(net, Fading(), torch.optim.SGD(net.parameters(), 0.1), data, TrainingPlan(0, 3, 2000), ())


def test_the_test_split_is_read_with_the_best_state(tmp_path: Path) -> None:
    made = training()
    labels = Labels("none", "twin", {}, {})
    summary = run(made, RunFolder.create(tmp_path / "run"), Stopping(), labels, None, lambda point: None)
    assert summary["best_epoch"] == 1
    assert summary["validation_accuracy"] > 0.8
    assert summary["test_accuracy"] > 0.8


@pytest.mark.parametrize("older", [False, True])
def test_a_checkpoint_holds_the_best_state(older: bool) -> None:
    made, other = training(), training()
    list(train(made))
    point = made.checkpoint()
    kept = {name: value for name, value in point.tensors.items() if not (older and name.startswith("best_learner."))}
    other.restore(type(point)(kept, point.facts))
    assert torch.equal(other.best.tensors["layers.0.synapse.weight"], made.best.tensors["layers.0.synapse.weight"])
    assert {name: int(value) for name, value in other.best.learner.items()} == ({} if older else {"steps": 1})
