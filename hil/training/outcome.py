"""What is suspicious about a result whose numbers are all finite, and what to change.

loss       the mean loss of the last epoch is above 10 ln(classes), ten times that of a uniform guess, or above the first one's
chance     validation accuracy <= p + 3 sqrt(p (1 - p) / n), p the share of the most frequent class among the n examples
overflow   more than a fifth of the pre-activations were folded or clipped in the last epoch
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch

from hil.data.dataset import Dataset
from hil.errors import RunError
from hil.files import loads, read_text, there
from hil.run.folder import MOST_METRICS_BYTES, RunFolder
from hil.training.loop import Training

DONE = {"fold": "folded", "clip": "clipped"}
ABSURD, RISEN, ERRORS, OVERFLOW = 10.0, 1.05, 3.0, 0.2


def warnings(training: Training, folder: RunFolder) -> list[str]:
    """Sentences about a run that is done, "what; do this"; none if all is well."""
    return list(found(_epochs(folder), training.data, training.best.accuracy, _policy(training)))


def found(epochs: list[Mapping[str, Any]], data: Dataset, accuracy: float, policy: str) -> Iterator[str]:
    """The same from its parts.

    Args:
        epochs: of training, each with its mean "loss" and share of "overflow", in order.
        data: that it was trained on.
        accuracy: on the validation split, of the best epoch.
        policy: of the encoding.
    """
    losses = [float(epoch["loss"]) for epoch in epochs if "loss" in epoch]
    guess = math.log(max(2, len(data.classes)))
    slower = "lower [optimizer] lr, or the scale of the feedback"
    if losses and not losses[-1] <= ABSURD * guess:
        yield (
            f"the training loss of the last epoch is {losses[-1]:.3g}, {losses[-1] / guess:,.3g} times that of a uniform "
            f"guess, as the weights ran away; {slower}"
        )
    elif len(losses) > 1 and losses[-1] > RISEN * losses[0]:
        yield f"the training loss rose from {losses[0]:.3g} to {losses[-1]:.3g}; {slower}"
    label = data.validation.y
    share = float(torch.bincount(label).max()) / len(label)
    error = math.sqrt(share * (1 - share) / len(label))
    if accuracy <= share + ERRORS * error:
        yield (
            f"no better than chance: {accuracy:.1%} of {len(label):,} validation examples, where the most frequent class alone "
            f"gives {share:.1%} (standard error {error:.1%}); train longer, raise [optimizer] lr, or look at the transfer "
            "curve and the range that [encode] uses of it"
        )
    over = float(epochs[-1].get("overflow", 0.0)) if epochs else 0.0
    if over > OVERFLOW and policy in DONE:
        yield (
            f"{over:.0%} of the pre-activations of the last epoch were {DONE[policy]}, as they lie beyond the range of the "
            "node; lower [encode] gain, or the first weights"
        )


def _epochs(folder: RunFolder) -> list[Mapping[str, Any]]:
    """The lines of metrics.jsonl about training, those that can be read."""
    lines: list[Mapping[str, Any]] = []
    path = folder.path / "metrics.jsonl"
    for text in read_text(path, MOST_METRICS_BYTES).splitlines() if there(path) else ():
        with suppress(RunError):
            line = loads(text, str(path))
            if isinstance(line, dict) and line.get("split") == "train":
                lines.append(line)
    return lines


def _policy(training: Training) -> str:
    return next((layer.encode.overflow for layer in training.net.stack if layer.encode is not None), "refuse")
