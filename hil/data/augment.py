"""Training examples, changed anew each time they are shown, so that few of them stand for many.

    shift     y[c, i, j] = x[c, i + a, j + b], 0 outside;  a, b uniform in -shift .. shift
    flip      y[c, i, j] = x[c, i, columns - 1 - j], for a share of the images
    cutout    y = 0 in a square of that side, its centre uniform over the image; what lies outside of the image is lost
    noise     y = x + noise n,  n normal

One draw an example, in this order. Every draw comes from (seed, step, stream), so that a run that is resumed in the middle of
an epoch sees what an uninterrupted one sees. Source of cutout: DeVries & Taylor, arXiv:1708.04552 (2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hil.errors import UNTOUCHED, ConfigError
from hil.seeding import generator

WHERE = "[augment]"


@dataclass(frozen=True, slots=True)
class Augment:
    """Changes of training examples; validation and test examples are never changed.

    Args:
        shift: pixels, at most, either way.
        flip: share of the images that are mirrored, 0 to 1.
        cutout: side of the square, in pixels.
        noise: standard deviation, in units of the examples.
    """

    shift: int = 0
    flip: float = 0.0
    cutout: int = 0
    noise: float = 0.0

    def fits(self, shape: Sequence[int]) -> None:
        """Refuse examples of another shape than this can change.

        Args:
            shape: of an example: channels, rows, columns, if it is an image.

        Raises:
            ConfigError: not images, or images that would be moved or cut out of sight.
        """
        named = [name for name in ("shift", "flip", "cutout") if getattr(self, name)]
        if named and len(shape) != 3:
            raise ConfigError(
                "these examples are no images", where=f"{WHERE} {named[0]}", got=f"shape {tuple(shape)}",
                allowed="(channels, rows, columns); noise, for examples of any shape", outputs=UNTOUCHED,
                todo=f"remove {', '.join(named)}",
            )  # fmt: skip
        for name, pixels in (("shift", self.shift), ("cutout", self.cutout)):
            if pixels and pixels >= min(shape[1:]):
                raise ConfigError(
                    "nothing would be left of an image", where=f"{WHERE} {name}", got=f"{pixels} pixels, shape {tuple(shape)}",
                    allowed=f"0 to {min(shape[1:]) - 1}", outputs=UNTOUCHED, todo="choose a smaller one",
                )  # fmt: skip

    def __call__(self, x: Tensor, shape: Sequence[int], seed: int, step: int) -> Tensor:
        """Change each example of a batch for itself; all frames of a sequence of images alike.

        Args:
            x: (batch, ...); of sequences (batch, time, features).
            shape: of an example: channels, rows, columns, if it is an image.
            seed: of the run.
            step: that the batch is for.

        Returns:
            of the shape of x; x itself if there is nothing to do.
        """
        if x.ndim == 3 and len(shape) == 3:
            shape = (x.shape[1] * shape[0], *shape[1:])
        if self.shift:
            x = shifted(x, shape, self.shift, generator(seed, step, "shift", x.device))
        if self.flip:
            x = flipped(x, shape, self.flip, generator(seed, step, "flip", x.device))
        if self.cutout:
            x = cut_out(x, shape, self.cutout, generator(seed, step, "cutout", x.device))
        if self.noise:
            drawn = torch.randn(x.shape, generator=generator(seed, step, "augment noise", x.device), device=x.device)
            x = x + self.noise * drawn
        return x


def shifted(x: Tensor, shape: Sequence[int], shift: int, rng: torch.Generator) -> Tensor:
    """Move each image of x by up to `shift` pixels either way; what comes in at an edge is 0.

    Args:
        x: (batch, ...), each example an image.
        shape: of an image: channels, rows, columns.
        shift: pixels, at most.
        rng: draws the moves.
    """
    channels, rows, columns = shape
    wide = functional.pad(x.reshape(-1, channels, rows, columns), (shift,) * 4)
    by = torch.randint(0, 2 * shift + 1, (2, len(x), 1), generator=rng, device=x.device)
    i = (by[0] + torch.arange(rows, device=x.device)).view(-1, 1, rows, 1)
    j = (by[1] + torch.arange(columns, device=x.device)).view(-1, 1, 1, columns)
    batch = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=x.device).view(1, -1, 1, 1)
    return wide[batch, channel, i, j].view(x.shape)


def flipped(x: Tensor, shape: Sequence[int], share: float, rng: torch.Generator) -> Tensor:
    """Mirror a share of the images, left to right. Arguments as of `shifted`."""
    images = x.reshape(-1, *shape)
    turned = torch.rand(len(x), generator=rng, device=x.device) < share
    return torch.where(turned.view(-1, 1, 1, 1), images.flip(3), images).view(x.shape)


def cut_out(x: Tensor, shape: Sequence[int], side: int, rng: torch.Generator) -> Tensor:
    """Set a square of each image to 0, in all channels. Arguments as of `shifted`; side: in pixels."""
    channels, rows, columns = shape
    first = [torch.randint(0, n, (len(x), 1), generator=rng, device=x.device) - side // 2 for n in (rows, columns)]
    i, j = (torch.arange(n, device=x.device) - at for n, at in zip((rows, columns), first, strict=True))
    hidden = ((i >= 0) & (i < side)).unsqueeze(2) & ((j >= 0) & (j < side)).unsqueeze(1)
    return x.reshape(-1, channels, rows, columns).masked_fill(hidden.unsqueeze(1), 0.0).view(x.shape)
