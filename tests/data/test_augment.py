from __future__ import annotations

import pytest
import torch

from hil.data.augment import Augment, cut_out, flipped, shifted
from hil.errors import ConfigError
from hil.seeding import generator


def test_every_example_is_moved_as_a_whole_and_the_rest_is_zero() -> None:
    x = torch.arange(1.0, 1 + 2 * 4 * 5).repeat(300, 1)
    moved = shifted(x, (2, 4, 5), 1, generator(0, 0, "shift")).view(300, 2, 4, 5)
    padded = torch.nn.functional.pad(x[0].view(2, 4, 5), (1, 1, 1, 1))
    allowed = [padded[:, a : a + 4, b : b + 5] for a in range(3) for b in range(3)]
    found = {next(k for k, one in enumerate(allowed) if torch.equal(one, image)) for image in moved}
    assert found == set(range(9))


def test_a_share_of_the_images_is_mirrored() -> None:
    x = torch.arange(24.0).repeat(1000, 1)
    images = flipped(x, (2, 3, 4), 0.3, generator(0, 0, "flip")).view(1000, 2, 3, 4)
    plain = x[0].view(2, 3, 4)
    mirrored = torch.stack([(image == plain.flip(2)).all() for image in images])
    same = torch.stack([(image == plain).all() for image in images])
    assert bool((mirrored ^ same).all())
    assert float(mirrored.float().mean()) == pytest.approx(0.3, abs=0.05)
    assert torch.equal(flipped(x, (2, 3, 4), 0.0, generator(0, 0, "flip")), x)


@pytest.mark.parametrize("side", [2, 3])
def test_a_square_is_cut_out_of_all_channels(side: int) -> None:
    x = torch.ones(2000, 2 * 7 * 6)
    images = cut_out(x, (2, 7, 6), side, generator(0, 0, "cutout")).view(2000, 2, 7, 6)
    assert torch.equal(images[:, 0], images[:, 1])
    hidden = images[:, 0] == 0
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.sum((1, 2)), rows * columns)  # a rectangle
    assert int(rows.max()) == int(columns.max()) == side
    assert int(rows.min()) == int(columns.min()) == (side + 1) // 2  # the rest of it is beyond the edge
    assert bool(hidden.any(0).all())  # anywhere


def test_noise_has_its_standard_deviation_and_examples_may_have_any_shape() -> None:
    x = torch.zeros(500, 3, 7)
    noisy = Augment(noise=0.25)(x, (3, 7), 0, 0)
    assert noisy.shape == x.shape
    assert float(noisy.std()) == pytest.approx(0.25, rel=0.05)


def test_each_step_draws_anew_and_one_step_draws_the_same() -> None:
    x, augment = torch.rand(8, 64), Augment(shift=1, flip=0.5, cutout=2, noise=0.1)
    first, again, next_one, other = (augment(x, (1, 8, 8), seed, step) for seed, step in ((1, 3), (1, 3), (1, 4), (2, 3)))
    assert torch.equal(first, again)
    assert not torch.equal(first, next_one)
    assert not torch.equal(first, other)
    assert Augment()(x, (64,), 1, 3) is x


@pytest.mark.parametrize(
    ("augment", "shape", "said"),
    [
        (Augment(shift=4), (1, 4, 5), "0 to 3"),
        (Augment(cutout=5), (1, 9, 5), "0 to 4"),
        (Augment(shift=1), (16,), "no images"),
        (Augment(flip=0.5), (16,), r"\[augment\] flip"),
        (Augment(cutout=1), (4, 4), "no images"),
    ],
)
def test_what_does_not_fit_is_refused(augment: Augment, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        augment.fits(shape)
    Augment(noise=1.0).fits((16,))
    Augment(shift=3, flip=1.0, cutout=3).fits((1, 4, 4))
