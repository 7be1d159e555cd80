"""drivers/genicam.py: pypylon's emulated camera, from an experiment file.

pip install "hil[genicam]"; no camera is needed, PYLON_CAMEMU=1 is set here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hil.cli import run as hil_run
from hil.errors import ConfigError, OpenFailed

pytest.importorskip("pypylon", reason="pip install hil[genicam]")

from drivers.genicam import Camera

LAB = '''
"""A screen that is a file, and the emulated camera, which looks at it."""
from pathlib import Path

from matplotlib.image import imsave

from drivers.genicam import Camera

SCREEN = Path(__file__).with_name("screen.png")


class Screen:
    shape, levels, provenance = (64, 64), 256, "twin"

    def write(self, image):
        imsave(SCREEN, image, cmap="gray", vmin=0, vmax=255)

    def close(self):
        pass


class Looking(Camera):
    def read(self):
        self._camera.ImageFilename.SetValue(str(SCREEN))
        return super().read()
'''
EXPERIMENT = """
seed = 0
[data]
train_examples = 32
[network]
use = "behind_devices"
widths = [64, 10]
answers = 64
concatenate = false
[device]
use = "hil.build.frame:frame"
exposure = "2 ms"
saturated = 0.9
[device.display]
use = "my_lab:Screen"
[device.camera]
use = "my_lab:Looking"
features = { Width = 64, Height = 64, TestImageSelector = "Off", ImageFileMode = "On" }
[device.show]
rows = 8
columns = 8
[device.look]
rows = 8
columns = 8
height = 64
[encode]
gain = 255.0
overflow = "clip"
[decode]
zero = 0.0
scale = 255.0
[learner]
use = "last_layer"
[optimizer]
lr = 0.03
[train]
epochs = 1
batch = 16
threads = 1
"""


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[Camera]:
    monkeypatch.setenv("PYLON_CAMEMU", "1")
    opened = Camera(features={"Width": 64, "Height": 48, "TestImageSelector": "Testimage1"})
    yield opened
    opened.close()


def test_frames_and_exposure(camera: Camera) -> None:
    assert (camera.shape, camera.levels, camera.provenance) == ((48, 64), 256, "twin")
    camera.exposure_s = 2e-3
    assert camera.exposure_s == pytest.approx(2e-3)
    frame = camera.read()
    assert (frame.shape, frame.dtype) == ((48, 64), np.uint8)
    assert frame.max() > frame.min()
    with pytest.raises(ConfigError, match="must be smaller"):
        camera.exposure_s = 1e9
    camera.close()


def test_what_is_not_there_is_refused(camera: Camera) -> None:
    with pytest.raises(OpenFailed):
        Camera(serial="77")
    camera.close()
    with pytest.raises(ConfigError, match="Hue"):
        Camera(features={"Hue": 1})


def test_digits_are_learned_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLON_CAMEMU", "1")
    (tmp_path / "my_lab.py").write_text(LAB, encoding="utf-8")
    (tmp_path / "camera.toml").write_text(EXPERIMENT, encoding="utf-8")
    assert hil_run(["train", str(tmp_path / "camera.toml"), "--run", str(tmp_path / "r")]) == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["provenance"] == "twin"
    assert summary["device_passes"] > 32
