"""A display and a camera as a Device: areas on both sides, exposure and saturation, and a byte a value on the tape."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drivers.frame.device import Area, Frame, FrameSettings
from hil.build.frame import frame
from hil.conformance import check_device
from hil.device import Provenance
from hil.errors import Changed, ConfigError, NotAReading, OutOfRange, Saturated
from hil.tape.recorder import recorded
from hil.tape.replay import reels, replay
from hil.tape.writer import Tape


class Panel:
    """A display that keeps what it shows."""

    def __init__(self, shape: tuple[int, int] = (12, 16), levels: int = 256) -> None:
        self.shape, self.levels = shape, levels
        self.provenance: Provenance = "twin"
        self.images = 0
        self.shown = np.ones(shape, np.uint8)
        self.closed = 0

    def write(self, image: Any) -> None:
        assert image.shape == self.shape
        assert image.dtype == (np.uint8 if self.levels <= 256 else np.uint16)
        self.images += 1
        self.shown = image.copy()

    def close(self) -> None:
        self.closed += 1


class Eye:
    """A camera that sees the display through a gain, its exposure."""

    def __init__(self, display: Panel, levels: int = 256) -> None:
        self.shape, self.levels, self.display = display.shape, levels, display
        self.provenance: Provenance = "twin"
        self.exposure_s = 1.0
        self.closed = 0
        self.spoiled: Any = None

    def read(self) -> Any:
        if self.spoiled is not None:
            return self.spoiled
        seen = np.minimum(self.display.shown * self.exposure_s, self.levels - 1)
        return seen.astype(np.uint8 if self.levels <= 256 else np.uint16)

    def close(self) -> None:
        self.closed += 1


def made(show: Area, look: Area, levels: int = 256, counts: int = 256, **settings: Any) -> tuple[Frame, Panel, Eye]:
    panel = Panel(levels=levels)
    eye = Eye(panel, counts)
    return Frame(panel, eye, show, look, FrameSettings(**settings)), panel, eye


def test_it_keeps_the_contract() -> None:
    panel = Panel()
    settings = FrameSettings(saturated=0.5)
    masked = FrameSettings(saturated=0.5, drive="phase", mask=True)
    for given, exposures in ((settings, False), (settings, True), (masked, False)):
        check_device(
            lambda made=given, on=exposures: Frame(panel, Eye(panel), Area(3, 4), Area(6, 8), made, on),
            lambda device: panel.images,  # type: ignore[misc]
        )


def test_macropixels_crops_bins_and_masks() -> None:
    device, panel, _ = made(
        Area(2, 2, top=2, left=4, height=4, width=8), Area(2, 4, top=2, left=4, height=4, width=8), rest_level=7
    )
    y = device.forward(torch.tensor([[1.0, 2, 3, 4.4]]))
    assert panel.shown[0, 0] == 7
    assert panel.shown[2:6, 4:12].tolist() == [[1] * 4 + [2] * 4] * 2 + [[3] * 4 + [4] * 4] * 2
    assert y.tolist() == [[1, 1, 2, 2, 3, 3, 4, 4]]
    device.close()
    device.close()
    assert (panel.shown == 7).all()
    assert panel.closed == 1
    disc = Area(3, 3, mask="disc", height=12, width=12).on((12, 16), "display")
    assert disc.kept.astype(int).tolist() == [[1, 1, 1]] * 3  # corners of three are inside; those of four are not
    assert Area(4, 4, mask="disc").on((12, 16), "display").kept.astype(int).tolist() == [
        [0, 1, 1, 0],
        [1] * 4,
        [1] * 4,
        [0, 1, 1, 0],
    ]


def test_a_bin_is_a_mean_and_a_whole_number_over_its_pixels() -> None:
    device, _, _ = made(Area(12, 16), Area(3, 4), saturated=0.9)
    x = torch.randint(0, 256, (5, 192), generator=torch.Generator().manual_seed(1)).float()
    wanted = x.reshape(5, 3, 4, 4, 4).mean((2, 4)).reshape(5, 12)
    assert torch.equal(device.forward(x), wanted)
    port = device.spec.outputs
    assert (port.scale, port.bits) == (16.0, 16)


def test_a_phase_is_turned_into_all_levels_and_wraps() -> None:
    device, panel, _ = made(Area(1, 1), Area(1, 1), levels=1024, counts=4096, drive="phase")
    for phase, level in ((0.0, 0), (math.pi, 512), (2 * math.pi, 0), (1.0, round(1024 / (2 * math.pi)))):
        device.forward(torch.tensor([[phase]]))
        assert panel.shown[0, 0] == level
    with pytest.raises(OutOfRange, match="rad"):
        device.forward(torch.tensor([[6.4]]))
    assert device.spec.outputs.bits is None  # 192 pixels of 12 bits


def test_a_mask_is_added_to_the_phases_and_stays() -> None:
    panel = Panel(levels=1024)
    device = Frame(panel, Eye(panel, 4096), Area(1, 2), Area(1, 2), FrameSettings(drive="phase", mask=True))
    assert device.spec.params is not None
    assert (device.spec.params.size, device.spec.params.unit) == (2, "rad")
    x = torch.tensor([[math.pi, math.pi / 2]])
    for mask, levels in (((0.0, 0.0), (512, 256)), ((math.pi / 2, math.pi), (768, 768)), ((1.5 * math.pi, 0.0), (256, 256))):
        device.program(torch.tensor(mask))
        for _ in range(2):
            device.forward(x)
            assert panel.shown[0, [0, 8]].tolist() == list(levels)
            device.safe()
            assert not panel.shown.any()
    with pytest.raises(OutOfRange, match="mask"):
        device.program(torch.tensor([0.0, 6.4]))
    device.forward(x)
    assert panel.shown[0, [0, 8]].tolist() == [256, 256]


def test_a_mask_needs_phases_and_light_that_is_held() -> None:
    with pytest.raises(ConfigError, match="phases"):
        FrameSettings(mask=True)
    panel = Panel()
    with pytest.raises(ConfigError, match="both"):
        Frame(panel, Eye(panel), Area(1, 1), Area(1, 1), FrameSettings(drive="phase", mask=True), exposures=True)


def test_saturated_frames_are_no_measurement() -> None:
    device, _, eye = made(Area(1, 4), Area(1, 4), saturated=0.2, exposure_s=2.0)
    device.forward(torch.tensor([[0.0, 10, 20, 30]]))
    with pytest.raises(Saturated, match=r"25.0% of the pixels"):
        device.forward(torch.tensor([[0.0, 10, 20, 130]]))
    eye.exposure_s = 1.0
    with pytest.raises(Changed):
        device.forward(torch.tensor([[0.0, 10, 20, 30]]))


@pytest.mark.parametrize("spoiled", [np.zeros((3, 3), np.uint8), np.zeros((12, 16), np.uint16), np.full((12, 16), 3.0)])
def test_what_is_no_frame_is_no_measurement(spoiled: Any) -> None:
    device, _, eye = made(Area(1, 4), Area(1, 4))
    eye.spoiled = spoiled
    with pytest.raises(NotAReading):
        device.forward(torch.zeros(1, 4))


def test_counts_beyond_the_levels_of_the_camera_are_no_measurement() -> None:
    device, _, eye = made(Area(1, 4), Area(1, 4), counts=1024)
    eye.spoiled = np.full((12, 16), 1024, np.uint16)
    with pytest.raises(NotAReading):
        device.forward(torch.zeros(1, 4))


@pytest.mark.parametrize(
    "area", [Area(5, 4), Area(3, 4, top=1), Area(3, 4, left=-1, width=16), Area(3, 4, height=24), Area(1, 1, top=12)]
)
def test_areas_that_do_not_fit_are_refused(area: Area) -> None:
    with pytest.raises(ConfigError, match="macropixel"):
        made(area, Area(1, 1))


def test_an_8_bit_camera_takes_a_byte_a_value_on_the_tape_and_is_replayed(tmp_path: Path) -> None:
    device, _, _ = made(Area(12, 16), Area(12, 16), saturated=0.9)
    x = torch.randint(0, 256, (40, 192), generator=torch.Generator().manual_seed(2)).float()
    with Tape(tmp_path) as tape:
        tape.begin({})
        answer = recorded(device, tape, "node", "{}", {}).forward(x).clone()
    (reel,) = reels(tmp_path)
    assert (reel.head.nbytes - 4 * reel.head.length("input")) / answer.numel() <= 1.1
    assert torch.equal(replay(reel).forward(x), answer)


def test_what_a_file_names_must_be_a_display_and_a_camera() -> None:
    area = {"rows": 1, "columns": 1}
    with pytest.raises(ConfigError, match="use"):
        frame({}, {}, area, area)
    with pytest.raises(ConfigError, match="not a display"):
        frame({"use": "fractions:Fraction"}, {}, area, area)
    with pytest.raises(ConfigError, match="rows"):
        frame({}, {}, {"rows": 0, "columns": 1}, area)
