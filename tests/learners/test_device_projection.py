"""The error projected by a device: a linear map, scaled as the matrices of the host are, whatever the two levels are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hil.device import Port, Spec
from hil.errors import ConfigError, MeasurementError, OutOfRange
from hil.feedback.feedback import Constant, Feedback
from hil.learners.parts.device_projection import DeviceProjection, _planes_of
from hil.learners.parts.projection import Projection
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.scattering import Scattering
from sim_devices.simulated import Simulated

SHAPES, OUTPUTS, SCALES = ((7,), (2, 3, 4)), 5, (0.1, 0.4)


class Seen:
    """A device whose drives are kept."""

    def __init__(self, noise: float = 0.0, quantised: bool = False) -> None:
        self._inner = Simulated(Scattering(macropixels=25, pixels=36, noise=noise, quantised=quantised))
        self.spec, self.drives = self._inner.spec, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.drives.append(x)
        return self._inner.forward(x)

    def close(self) -> None:
        """Nothing can be on."""


class Noise(Seen):
    """A camera in the dark."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn(len(x), 36, generator=generator(0, len(self.drives), "noise"))


def error(rows: int = 6, planes: int = 8) -> Tensor:
    """An error whose values the planes hold exactly."""
    most = 2 ** (planes - 2)
    found = torch.randint(-most, most + 1, (rows, OUTPUTS), generator=generator(0, 0, "error")).float()
    found[:, 0] = most
    return found / (3 * most)


def flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten(1) for part in parts], 1)


@pytest.mark.parametrize("levels", [None, (20.0, 200.0)])
def test_a_device_projects_as_a_matrix_does(levels: tuple[float, float] | None) -> None:
    made = DeviceProjection(Seen(), SHAPES, OUTPUTS, SCALES, levels, planes=8)
    e = error()
    found = made.onto(e)
    assert [part.shape for part in found] == [(6, 7), (6, 2, 3, 4)]
    b = flat(made.onto(torch.eye(OUTPUTS)))
    torch.testing.assert_close(flat(found), e @ b, atol=1e-4, rtol=1e-3)
    for part, scale in zip(b.split([7, 24], 1), SCALES, strict=True):
        assert float(part.square().mean().sqrt()) == pytest.approx(scale, rel=1e-3)
    assert float(made.unexplained.max()) < 1e-6
    assert torch.linalg.matrix_rank(b) == OUTPUTS


def test_only_the_two_levels_and_the_rest_are_sent_and_a_probe_once() -> None:
    device = Seen(noise=1.0, quantised=True)
    made = DeviceProjection(device, SHAPES, OUTPUTS, SCALES, (20.0, 200.0), planes=2)
    for _ in range(2):
        made.onto(error(4))
    assert [len(drive) for drive in device.drives] == [8 * OUTPUTS * 2, 16, 16]
    shots = device.drives[1].view(4, 2, 2, 25)
    assert shots.unique().tolist() == [0.0, 20.0, 200.0]
    assert ((shots == 0).all((0, 1, 2)) == (made._of < 0)).all()
    carried = shots[..., made._of >= 0]
    assert (carried[:, :, 0] + carried[:, :, 1] == 220.0).all()  # opposite signs
    assert 0 < float(made.unexplained.max()) < 0.05


@pytest.mark.parametrize("planes", [2, 3, 5])
def test_planes_hold_the_nearest_of_their_values(planes: int) -> None:
    share = torch.linspace(-1, 1, 101).unsqueeze(1)
    signs, weights = _planes_of(share, planes)
    assert signs.abs().unique().tolist() == [1.0]
    assert float(weights.sum()) == 1.0
    step = 2.0 ** (2 - planes)
    assert torch.equal((signs * weights[:, None]).sum(1), (share / step).round() * step)


def test_its_state_goes_on_without_a_probe() -> None:
    one, device = DeviceProjection(Seen(), SHAPES, OUTPUTS, SCALES), Seen()
    first = one.onto(error(2, 5))
    other = DeviceProjection(device, SHAPES, OUTPUTS, SCALES)
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first, other.onto(error(2, 5)), strict=True))
    assert len(device.drives) == 1


def test_the_host_projects_by_the_same_calls() -> None:
    host = Projection(Feedback(Constant()), SHAPES, OUTPUTS, generator(0, 0, "B"))
    assert host.widths == DeviceProjection(Seen(), SHAPES, OUTPUTS, SCALES).widths == (7, 24)
    assert [part.shape for part in host.onto(error(3))] == [(3, 7), (3, 2, 3, 4)]


@pytest.mark.parametrize(
    ("device", "shapes", "outputs", "said"),
    [
        (Seen(), ((30,), (7,)), 5, "37 values in 2 hidden layers; allowed: up to 25 of the error, one a channel, and up to 36"),
        (Seen(), ((7,),), 26, "26 values of the error"),
        (Simulated(MachZehnder()), ((7,),), 5, "any number of channels, each for itself"),
    ],
)
def test_a_device_that_does_not_fit_is_refused(
    device: Seen, shapes: tuple[tuple[int, ...], ...], outputs: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        DeviceProjection(device, shapes, outputs, [0.1] * len(shapes))


def test_a_device_in_time_a_dark_camera_a_level_out_of_range_and_an_infinite_error_are_refused() -> None:
    timed = Seen()
    timed.spec = Spec(Port("in", 0, 1, "V", 25), Port("out", 0, 1, "V", 36), temporal=True)
    with pytest.raises(ConfigError, match="state in time"):
        DeviceProjection(timed, SHAPES, OUTPUTS, SCALES)
    with pytest.raises(MeasurementError, match="is noise, or follows no matrix"):
        DeviceProjection(Noise(), SHAPES, OUTPUTS, SCALES).onto(error())
    with pytest.raises(OutOfRange, match=r"(?s)\[projection\] levels.*within the limits"):
        DeviceProjection(Seen(), SHAPES, OUTPUTS, SCALES, (0.0, 256.0))
    device = Seen()
    made = DeviceProjection(device, SHAPES, OUTPUTS, SCALES)
    made.onto(error())
    sent = len(device.drives)
    with pytest.raises(OutOfRange, match="not finite"):
        made.onto(torch.full((2, OUTPUTS), float("nan")))
    assert len(device.drives) == sent
