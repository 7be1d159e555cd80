"""The found feedback as a file: feedback/NAME-HASH.toml, a Feedback with a table of where it came from.

    [learner]  feedback = "runs/…/feedback/mzm-1a2b3c4d.toml"        in any experiment, on any device

HASH is that of the recipe, so the same finding has the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hil.files import slug, write_atomic
from hil.search.jobs import Recipe


def save(folder: Path, name: str, recipe: Recipe, provenance: Mapping[str, object]) -> Path:
    """Write the file, whole or not at all, and return its path.

    Raises:
        RunError: it cannot be written.
    """
    path = folder / "feedback" / f"{slug(name, 'feedback')}-{recipe.digest()}.toml"
    write_atomic(path, recipe.feedback.text({**provenance, "lr": recipe.lr}).encode())
    return path
