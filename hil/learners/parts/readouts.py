"""Several ways to read a class off one network; the validation split says which is used.

Model selection is part of training: it uses the validation split, and what it chose is in the learner's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hil.errors import ConfigError

BATCH = 500
VALIDATED = "validated"


class Readouts(nn.Module):
    """The readouts of a learner that has several, and which one `predict` uses.

    Args:
        names: of the readouts, the default first.
        fixed: one of them, or "validated" to choose.

    Raises:
        ConfigError: there is no readout of that name.
    """

    chosen: Tensor

    def __init__(self, names: Sequence[str], fixed: str = VALIDATED) -> None:
        super().__init__()
        if fixed not in (VALIDATED, *names):
            raise ConfigError(
                "no such readout", where="[learner] readout", got=repr(fixed), allowed=", ".join((VALIDATED, *names)),
                outputs="untouched", todo=f'write readout = "{VALIDATED}"',
            )  # fmt: skip
        self.names, self.free = tuple(names), fixed == VALIDATED
        self.register_buffer("chosen", torch.tensor(0 if self.free else self.names.index(fixed)))

    @property
    def name(self) -> str:
        """The one in use."""
        return self.names[int(self.chosen)]

    @torch.no_grad()
    def select(self, scores: Callable[[Tensor], Mapping[str, Tensor]], x: Tensor, label: Tensor) -> dict[str, float]:
        """Accuracy of every readout; the best is used from now on, unless one is fixed. The earlier wins a tie.

        Args:
            scores: x (batch, features) -> (batch, classes) for every name.
            x: all examples.
            label: (examples,).
        """
        right = dict.fromkeys(self.names, 0)
        for some, true in zip(torch.split(x, BATCH), torch.split(label, BATCH), strict=True):
            found = scores(some)
            for name in self.names:
                right[name] += int((found[name].argmax(1) == true).sum())
        if self.free:
            self.chosen.fill_(self.names.index(max(self.names, key=lambda name: right[name])))
        return {f"accuracy_{name}": count / len(label) for name, count in right.items()}
