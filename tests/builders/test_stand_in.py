"""[device] instead: a wire or a dead node in the place of the node, with its ports, its ranges and its decoding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.errors import ConfigError

STATIC = """
[network]
widths = [64, 8, 8, 10]
[device]
use = "mach_zehnder"
low = "-4 V"
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
"""
A_LAYER_EACH = STATIC.replace("[device]", "[[device]]").replace(
    "[encode]", '[[device]]\nuse = "mach_zehnder"\ninstead = "wire"\n[encode]'
)
SPIKING = """
[network]
widths = [64, 8, 10]
[device]
chip = "lif"
[learner]
use = "adfa_snn"
"""


def written(folder: Path, text: str = STATIC) -> Path:
    path = folder / "e.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_wire_has_the_ports_and_the_decoding_of_the_node(tmp_path: Path) -> None:
    with built(read_experiment(written(tmp_path)), fresh=True) as node:
        plain = node.training.net.stack[0]
    with built(read_experiment(written(tmp_path), ['device.instead="wire"']), fresh=True) as made:
        layer = made.training.net.stack[0]
        assert layer.device is not None
        assert layer.encode is not None
        assert plain.device is not None
        assert layer.device.spec.inputs == plain.device.spec.inputs
        assert layer.decode == plain.decode
        drive = torch.linspace(-4, 5, 10).view(1, -1)
        output = layer.decode(layer.device.forward(drive))
        assert output[0].tolist() == pytest.approx(torch.linspace(-1, 1, 10).tolist(), abs=1e-5)
        assert layer.encode.overflow == "clip"
        assert made.model is not None  # references differentiate the wire, not the node
        assert torch.equal(made.model(drive), layer.device.forward(drive))
        assert made.labels.provenance == "twin"
        assert made.labels.node["instead"] == "wire"
        kept = made.experiment
    assert (kept.device.instead, kept.encode.overflow) == ("wire", "clip")
    with built(kept) as again:  # as a run goes on: from what its config.toml says
        assert again.training.net.stack[0].decode == layer.decode


def test_a_dead_node_gives_zero_whatever_it_is_asked(tmp_path: Path) -> None:
    with built(read_experiment(written(tmp_path), ['device.instead="dead"']), fresh=True) as made:
        layer = made.training.net.stack[0]
        assert layer.device is not None
        assert not layer.decode(layer.device.forward(torch.randn(3, 8).clamp(-4, 4))).any()


def test_one_layer_of_several_is_a_wire(tmp_path: Path) -> None:
    with built(read_experiment(written(tmp_path, A_LAYER_EACH))) as made:
        first, second, _ = made.training.net.stack
        assert first.encode is not None
        assert second.encode is not None
        assert (first.encode.overflow, second.encode.overflow) == ("fold", "clip")
        assert second.device is not None
        middle = second.decode(second.device.forward(torch.zeros(1, 8)))
        assert middle.abs().max() < 1e-6
        kept = made.experiment
    assert [layer.instead for layer in kept.device.layers] == [None, "wire"]
    with built(kept) as again:
        assert [one.decode for one in again.training.net.stack] == [one.decode for one in made.training.net.stack]


@pytest.mark.parametrize(
    ("text", "sets", "part"),
    [
        (SPIKING, ['device.instead="wire"'], "static node only"),
        (STATIC, ['device.instead="wire"', "train.record=true"], "nothing to record"),
        (STATIC, ['device.instead="dead"', "sentinel.every=5"], "do not drift"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(
    tmp_path: Path, text: str, sets: list[str], part: str
) -> None:
    with pytest.raises(ConfigError, match=part) as error, built(read_experiment(written(tmp_path, text), sets)):
        pass
    assert "untouched" in error.value.outputs
