"""logs/tensorboard/: event files of TensorBoard. Look at them by `tensorboard --logdir runs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from hil.loggers.logger import Entry, Told


class TensorBoard:
    """A Logger through torch's SummaryWriter."""

    def begin(self, told: Told) -> None:
        """Open another event file; steps that are made again replace those of before."""
        self._writer = SummaryWriter(str(told.folder / "tensorboard"), purge_step=told.step + 1)
        if told.step == 0:
            self._writer.add_text("config", f"```\n{json.dumps(told.config, indent=1)}\n```")

    def log(self, entry: Entry) -> None:
        """Add a scalar for each number."""
        for name, value in entry.values.items():
            self._writer.add_scalar(name, value, entry.step, walltime=entry.time_s)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Add the test score, and close the file."""
        for name, value in summary.items():
            if name.startswith("test_") and isinstance(value, int | float):
                self._writer.add_scalar(f"test/{name}", value, int(summary.get("steps", 0)))
        self._writer.close()
