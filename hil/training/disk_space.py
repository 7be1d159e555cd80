"""Room on the disk: a run whose checkpoints do not fit is refused before anything is trained.

one checkpoint ~ network + best network + two optimiser slots (Adam's) + twice the learner's state
"""

from __future__ import annotations

from hil.errors import RunError
from hil.run.folder import RunFolder
from hil.training.state import Training

LITTLE = 8  # checkpoints; with room for fewer the user is warned
MARGIN_BYTES = 1 << 20  # for metrics, summary, report


def checkpoint_bytes(training: Training) -> int:
    """About how large a checkpoint will be."""

    def size(module: object) -> int:
        return sum(v.numel() * v.element_size() for v in module.state_dict().values())  # type: ignore[attr-defined]

    return (4 + (training.plan.accumulate > 1)) * size(training.net) + 2 * size(training.learner) + (1 << 14)


def check(folder: RunFolder, training: Training) -> str:
    """A warning if there is little room, or "".

    Raises:
        RunError: not even the next checkpoint fits beside those that are kept until it is written.
    """
    free, one = folder.free_bytes, checkpoint_bytes(training)
    found = f"{free / 1e6:,.1f} MB free, a checkpoint takes about {one / 1e6:,.1f} MB"
    if free < one + MARGIN_BYTES:
        raise RunError(
            "no room for a checkpoint", where=str(folder.path), got=found, allowed=f"{(one + MARGIN_BYTES) / 1e6:,.1f} MB free",
            outputs="safe; whatever was opened is closed again", todo="free space, or choose another --run folder",
        )  # fmt: skip
    return f"little room in {folder.path}: {found}" if free < LITTLE * one + MARGIN_BYTES else ""
