"""drivers/slmsuite.py: slmsuite's simulated SLM and camera, from a bench file.

pip install "hil[slmsuite]"
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hil.cli import run as hil_run
from hil.errors import ConfigError

pytest.importorskip("slmsuite", reason="pip install hil[slmsuite]")

from drivers.slmsuite import SLM, Camera
from hil.build.frame import frame
from hil.conformance import check_device

EXPERIMENT = """
seed = 0
[data]
train_examples = 64
[network]
use = "behind_devices"
widths = [64, 10]
answers = 256
concatenate = false
[device]
bench = "bench.toml"
[encode]
gain = 120.0
overflow = "clip"
[decode]
zero = 20.0
scale = 20.0
[learner]
use = "last_layer"
[train]
epochs = 2
batch = 16
threads = 1
record = true
"""
BENCH = """
name = "slmsuite"
shape = "frame"
[instruments.slm]
use = "drivers.slmsuite:SLM"
of = "slmsuite.hardware.slms.simulated:SimulatedSLM"
settings = { resolution = [64, 64] }
[instruments.camera]
use = "drivers.slmsuite:Camera"
of = "slmsuite.hardware.cameras.simulated:SimulatedCamera"
settings = { bitdepth = 8 }
[node]
drive = "slm"
read = "camera"
[frame]
exposure = "1 s"
saturated = 0.05
[show]
rows = 8
columns = 8
[look]
rows = 16
columns = 16
top = 24
left = 24
height = 16
width = 16
"""
OF = {
    "SLM": "slmsuite.hardware.slms.simulated:SimulatedSLM",
    "camera": "slmsuite.hardware.cameras.simulated:SimulatedCamera",
}


def test_it_keeps_the_contract() -> None:
    display = {"use": "drivers.slmsuite:SLM", "of": OF["SLM"], "settings": {"resolution": [32, 32]}}
    camera = {"use": "drivers.slmsuite:Camera", "of": OF["camera"], "settings": {"bitdepth": 10}}
    area = {"rows": 4, "columns": 4}
    check_device(lambda: frame(display, camera, area, area, exposure_s=0.1, saturated=0.5))


def test_digits_are_learned_behind_it_and_a_frame_takes_a_byte_a_value(tmp_path: Path) -> None:
    (tmp_path / "slm.toml").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / "bench.toml").write_text(BENCH, encoding="utf-8")
    assert hil_run(["train", str(tmp_path / "slm.toml"), "--run", str(tmp_path / "r")]) == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["provenance"] == "twin"
    assert summary["steps"] == 8
    head = json.loads((tmp_path / "r" / "tape" / "node.json").read_text(encoding="utf-8"))
    assert head["spec"]["outputs"]["bits"] == 8
    assert head["lengths"]["output"] == 0
    assert head["lengths"]["spikes"] == 4 * head["lengths"]["input"]  # bytes of 256 counts for 64 levels
    assert hil_run(["replay", str(tmp_path / "r")]) == 0


def test_a_class_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="no such class"):
        SLM("slmsuite.hardware.slms.nobody:Nothing")
    with pytest.raises(ConfigError, match="Nothing"):
        Camera("slmsuite.hardware.cameras.simulated:Nothing")


def test_levels_are_shown_as_they_are() -> None:
    slm = SLM(OF["SLM"], {"resolution": [16, 8]})
    image = torch.arange(128).reshape(8, 16).numpy().astype("uint8")
    slm.write(image)
    assert (slm.inner.display == image).all()
    slm.close()
    slm.close()
