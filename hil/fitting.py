"""A learner that fits weights in closed form, in place of descending: hil/learners/ridge.py is one.

Its steps gather what the fit needs, and fill no `.grad`. When the epoch ends it is given the validation split once, and returns
the outputs that it saw there, so that no example passes the device twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from hil.learner import Learner
from hil.network import Network


class Fit(NamedTuple):
    """A readout that was fitted.

    Args:
        outputs: of the validation examples, (examples, outputs).
        facts: for the validation line of the epoch, as "penalty".
        train: for its training line, as "loss"; stands over what the steps said.
    """

    outputs: Tensor
    facts: Mapping[str, float]
    train: Mapping[str, float]


@runtime_checkable
class Fitting(Learner, Protocol):
    """A learner whose steps gather sums, and which changes the weights once, when the epoch ends; `.grad` stays empty."""

    def fit(self, net: Network, validation: Iterable[tuple[Tensor, Tensor]]) -> Fit:
        """Fit the weights; asks the device once for every batch (x, targets) of the validation split."""
