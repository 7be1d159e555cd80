"""logs/wandb/: offline runs of Weights & Biases. `wandb sync RUN/logs/wandb/offline-run-*` sends them, when you decide to.

A resume is one more run of theirs, in the same group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import wandb

from hil.loggers.logger import Entry, Told


class WandB:
    """A Logger that is always offline, and looks at neither the machine nor the source."""

    def begin(self, told: Told) -> None:
        """Begin an offline run."""
        told.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            mode="offline", dir=str(told.folder), project=told.project, name=told.name, group=told.run.name,
            config=dict(told.config), reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_stats=True,
                x_disable_machine_info=True,
            ),
        )  # fmt: skip

    def log(self, entry: Entry) -> None:
        """Log its numbers at the step."""
        self._run.log({**entry.values, "epoch": entry.epoch}, step=entry.step)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Log the test score, and finish the run."""
        for name, value in summary.items():
            if name.startswith("test_") and isinstance(value, int | float):
                self._run.summary[f"test/{name}"] = value
        self._run.finish(exit_code=int(summary.get("status") != "done"))
