"""Training images moved by whole pixels, so that few of them stand for many.

y[c, i, j] = x[c, i + a, j + b], 0 outside;  a, b uniform in -shift .. shift, for each example and each time it is shown
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hil.errors import ConfigError


def shifted(x: Tensor, shape: Sequence[int], shift: int, rng: torch.Generator) -> Tensor:
    """Move each image of x (batch, features) by up to `shift` pixels either way; what comes in at an edge is 0.

    Args:
        x: each example a flattened image.
        shape: of an image: channels, rows, columns.
        shift: pixels, at most.
        rng: draws the moves.

    Raises:
        ConfigError: not images, or they would be moved out of sight.
    """
    if not shift:
        return x
    if len(shape) != 3 or shift >= min(shape[1:]):
        raise ConfigError(
            "these examples cannot be shifted so far", where="[data] shift", got=f"{shift} pixels, shape {tuple(shape)}",
            allowed="images larger than the shift",
        )  # fmt: skip
    channels, rows, columns = shape
    wide = functional.pad(x.view(-1, channels, rows, columns), (shift,) * 4)
    by = torch.randint(0, 2 * shift + 1, (2, len(x), 1), generator=rng, device=x.device)
    i = (by[0] + torch.arange(rows, device=x.device)).view(-1, 1, rows, 1)
    j = (by[1] + torch.arange(columns, device=x.device)).view(-1, 1, 1, columns)
    batch = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=x.device).view(1, -1, 1, 1)
    return wide[batch, channel, i, j].flatten(1)
