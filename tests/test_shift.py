from __future__ import annotations

import pytest
import torch

from hil.data.shift import shifted
from hil.errors import ConfigError
from hil.seeding import generator


def test_every_example_is_moved_as_a_whole_and_the_rest_is_zero() -> None:
    x = torch.arange(1.0, 1 + 2 * 4 * 5).repeat(300, 1)
    moved = shifted(x, (2, 4, 5), 1, generator(0, 0, "shift")).view(300, 2, 4, 5)
    padded = torch.nn.functional.pad(x[0].view(2, 4, 5), (1, 1, 1, 1))
    allowed = [padded[:, a : a + 4, b : b + 5] for a in range(3) for b in range(3)]
    found = {next(k for k, one in enumerate(allowed) if torch.equal(one, image)) for image in moved}
    assert found == set(range(9))


def test_no_shift_changes_nothing_and_too_much_is_refused() -> None:
    x = torch.rand(3, 16)
    assert shifted(x, (1, 4, 4), 0, generator(0, 0, "s")) is x
    with pytest.raises(ConfigError):
        shifted(x, (1, 4, 4), 4, generator(0, 0, "s"))
    with pytest.raises(ConfigError):
        shifted(x, (16,), 1, generator(0, 0, "s"))
