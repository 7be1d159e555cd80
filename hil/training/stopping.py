"""End of a training before its last epoch: no better score on the validation split for some epochs.

    better    score[n] > best before n + min_delta, the first epoch always; of a score that falls, the other way round

The rule is a function of the scores, so that a resume, and a run that is made longer, come to the same end.
"""

from __future__ import annotations

from collections.abc import Sequence


def since_better(scores: Sequence[float], min_delta: float = 0.0, rising: bool = True) -> int:
    """Return the epochs since the score was last better than before; 0 if it was in the last one, or there is none.

    Args:
        scores: of each epoch so far.
        min_delta: by more than so much a score must be better to count.
        rising: a larger score is better.
    """
    best, at = -float("inf"), 0
    for number, score in enumerate(scores, 1):
        risen = score if rising else -score
        if risen > best + min_delta:
            best, at = risen, number
    return len(scores) - at


def exhausted(scores: Sequence[float], patience: int | None, min_delta: float = 0.0, rising: bool = True) -> bool:
    """True if the patience is at its end. Arguments as of `since_better`; patience: epochs, or None for endless patience."""
    return patience is not None and since_better(scores, min_delta, rising) >= patience
