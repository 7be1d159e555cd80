"""The experiment of `make demo`, wherever hil is installed: digits by aDFA through a virtual bench.

`experiments/demo.toml` and its bench are files of the repository; setup.py puts the same files into a wheel, below this folder.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent


def experiment() -> Path:
    """Return the experiment file: of the wheel, or of the repository that this package is part of."""
    installed = HERE / "experiments" / "demo.toml"
    return installed if installed.is_file() else HERE.parents[1] / "experiments" / "demo.toml"
