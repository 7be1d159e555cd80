"""Two rules for one network: each moves its own parameters, and what comes of it depends on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders.test_trained_params import written

from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.errors import ConfigError
from hil.learners.host_and_device import HostAndDevice, HostAndDeviceSettings
from hil.training.loop import Epoch, train

ADFA = 'host = { use = "adfa" }\n'
SPSA = '"host_and_device"\n' + ADFA + 'device = { use = "spsa", size = 0.1, directions = 2 }\n'
PAT = '"host_and_device"\n' + ADFA + 'device = { use = "pat" }\n'


def moved(folder: Path, learner: str, host: float, device: float) -> tuple[set[str], float]:
    """What a training moved, and the least loss of an epoch."""
    more, train_of = f"[optimizer]\nlr = {host}\n", "[train]\nepochs = 12\nbatch = 16\nthreads = 1\n"
    path = written(folder, learner, params=f'start = "uniform"\nlr = {device}\n', more=more, train=train_of)
    with built(read_experiment(path)) as made:
        net = made.training.net
        before = {name: value.clone() for name, value in net.state_dict().items()}
        epochs = [point for point in train(made.training) if isinstance(point, Epoch)]
        found = {name for name, value in net.state_dict().items() if not torch.allclose(value, before[name], atol=1e-5)}
    assert all(param.requires_grad for param in net.parameters())
    return found, min(epoch.train["loss"] for epoch in epochs)


@pytest.mark.parametrize("learner", [SPSA, PAT], ids=["spsa", "pat"])
def test_each_part_moves_and_the_loss_depends_on_both(tmp_path: Path, learner: str) -> None:
    params = "layers.0.params"
    both, least = moved(tmp_path, learner, 0.05, 0.05)
    synapses = {f"layers.{number}.synapse.{part}" for number in (0, 1) for part in ("weight", "bias")}
    assert both == {params} | synapses
    host, without_device = moved(tmp_path, learner, 0.05, 1e-12)
    assert host == synapses
    device, without_host = moved(tmp_path, learner, 1e-12, 0.05)
    assert device == {params}
    assert least < min(without_device, without_host) - 0.02


def test_both_lower_the_loss_of_the_experiment(tmp_path: Path) -> None:
    path = written(tmp_path, SPSA, train="[train]\nepochs = 1\nclass_weights = [1.0, 3.0]\n")
    with built(read_experiment(path)) as made:
        rule = made.training.learner
    assert isinstance(rule, HostAndDevice)
    assert rule.loss.weights
    assert rule.host.loss is rule.device.loss is rule.loss


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"host": {"use": "spide"}}, "adfa, dfa, last_layer"), ({"device": {"use": "adfa"}}, "spsa"),
        ({"host": {}}, "no such rule"),
        ({"device": {"use": "spsa", "sise": 0.1}}, "sise"), ({"device": {"use": "spsa", "size": -0.1}}, "size"),
    ],
)  # fmt: skip
def test_wrong_settings(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        HostAndDeviceSettings(**wrong)


def test_nothing_programmed_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, SPSA)
    text = path.read_text(encoding="utf-8")
    begin, end = text.index("[params]"), text.index("[learner]")
    path.write_text(text[:begin] + text[end:], encoding="utf-8")
    with pytest.raises(ConfigError, match="no device of this network"), built(read_experiment(path)):
        pass
