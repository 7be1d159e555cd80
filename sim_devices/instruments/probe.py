"""A simulated box that measures: each of its inputs is connected to something that answers, given the V that the box holds."""

from __future__ import annotations

from collections.abc import Callable

Answers = Callable[[float], float]
"""V that the box holds at the input itself, 0 for a meter that holds nothing -> what is there, in the unit that it measures."""


class Probe:
    """A box with numbered inputs.

    Args:
        inputs: what each is connected to at first.
    """

    def __init__(self, inputs: dict[int, Answers]) -> None:
        self._inputs = dict(inputs)

    def attach(self, channel: int, answers: Answers) -> None:
        """Connect an input to something else. Raises: KeyError: there is no such input."""
        assert channel in self._inputs, f"no input {channel}"
        self._inputs[channel] = answers
