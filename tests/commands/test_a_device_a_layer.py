"""[[device]]: a network with a device of its own behind each hidden layer, from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hil.cli import run as hil_run
from hil.config.experiment import read_experiment
from hil.errors import ConfigError
from hil.run import checkpoint

TWO = """
seed = 1
[data]
train_examples = 96
[network]
widths = [64, 8, 6, 10]
[[device]]
use = "mach_zehnder"
v_pi = "3.5 V"
noise = 0.01
[device.encode]
overflow = "fold"
period = "7 V"
[[device]]
use = "mach_zehnder"
v_pi = "5 V"
noise = 0.01
[device.encode]
gain = "0.5 V"
overflow = "clip"
[learner]
use = "adfa"
[train]
epochs = 2
batch = 32
threads = 1
"""


def written(folder: Path, text: str = TWO) -> Path:
    (folder / "two.toml").write_text(text, encoding="utf-8")
    return folder / "two.toml"


def test_each_layer_has_its_device_its_encoding_and_its_transfer_curve(tmp_path: Path) -> None:
    assert hil_run(["train", str(written(tmp_path)), "--run", str(tmp_path / "r")]) == 0
    kept = read_experiment(tmp_path / "r" / "config.toml")
    one, other = kept.device.layers
    assert (one.settings()["v_pi"], other.settings()["v_pi"]) == ("3.5 V", "5 V")
    assert [layer.encode and layer.encode.overflow for layer in kept.device.layers] == ["fold", "clip"]
    assert None not in (one.decode, other.decode)
    assert one.decode != other.decode  # measured, each for itself
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["provenance"] == "twin"
    assert set(summary["node"]) == {"layer 1", "layer 2"}


def test_a_run_with_a_device_a_layer_is_resumed_and_replayed_bit_for_bit(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert hil_run(["train", str(file), "--run", str(tmp_path / "whole"), "--record"]) == 0
    assert hil_run(["train", str(file), "--run", str(tmp_path / "cut"), "--set", "train.epochs=1"]) == 0
    assert hil_run(["resume", str(tmp_path / "cut"), "--set", "train.epochs=2"]) == 0
    whole, cut = (max((tmp_path / name / "checkpoints").glob("step-*.json")) for name in ("whole", "cut"))
    one, other = (checkpoint.load(path).tensors for path in (whole, cut))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert hil_run(["replay", str(tmp_path / "whole")]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('widths = [64, 8, 6, 10]', 'widths = [64, 8, 10]'), "one for each hidden layer"),
        (('[train]', '[sentinel]\n[train]'), "watches one node"),
        (('use = "mach_zehnder"\nv_pi = "5 V"', 'host = "localhost:9"\nv_pi = "5 V"'), "v_pi"),
        (('use = "mach_zehnder"\nv_pi = "5 V"\nnoise = 0.01', 'bench = "b.toml"'), "takes single devices"),
        (('use = "mach_zehnder"\nv_pi = "5 V"\nnoise = 0.01', ''), "one device is needed"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], said: str
) -> None:
    file = written(tmp_path, TWO.replace(*change))
    assert hil_run(["train", str(file), "--run", str(tmp_path / "r")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "r" / "summary.json").exists()


def test_one_device_has_its_encoding_in_a_section_of_its_own(tmp_path: Path) -> None:
    text = TWO.partition('[[device]]\nuse = "mach_zehnder"\nv_pi = "5 V"')
    first = text[0].replace("[[device]]", "[device]").replace("8, 6, 10", "8, 10") + text[2].partition("[learner]")[2].join(
        ["[learner]", ""]
    )
    with pytest.raises(ConfigError, match="has its encode in a section of its own"):
        read_experiment(written(tmp_path, first))
