"""The Logger contract: it is told of a run, and may neither block nor end it (hil/loggers/loggers.py sees to that).

begin     once, before the first entry, in the thread that makes all other calls
log       every step and every epoch, in order; after a resume from an earlier checkpoint steps come again
end       once, with the summary as far as there is one
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

LoggerName = Literal["csv", "tensorboard", "mlflow", "wandb"]
LOGGERS: Mapping[str, tuple[str, str, str]] = {  # name -> module:class, module of the package, what installs it
    "csv": ("hil.loggers.csv_file:CsvFile", "csv", ""),
    "tensorboard": ("hil.loggers.tensorboard:TensorBoard", "tensorboard", "hil[tensorboard]"),
    "mlflow": ("hil.loggers.mlflow:MLflow", "mlflow", "hil[mlflow]"),
    "wandb": ("hil.loggers.wandb:WandB", "wandb", "hil[wandb]"),
}


@dataclass(frozen=True, slots=True)
class Told:
    """The facts that a logger is told when a run begins.

    Args:
        run: the run folder.
        folder: its folder of logs, where everything that a logger writes belongs.
        project: what runs are grouped under.
        name: of the run.
        config: the whole experiment, as config.toml has it.
        step: the entries to come are of later steps.
    """

    run: Path
    folder: Path
    project: str
    name: str
    config: Mapping[str, Any]
    step: int


@dataclass(frozen=True, slots=True)
class Entry:
    """The numbers of a step, or of an epoch.

    Args:
        epoch, step: its place in the run, from 1.
        time_s: since the epoch of Unix.
        values: "step/loss", "train/accuracy", "validation/accuracy", "epoch/device_s", ... -> number.
    """

    epoch: int
    step: int
    time_s: float
    values: Mapping[str, float]


class Logger(Protocol):
    """A listener to a run. What it raises is noted once in the journal, and it is told nothing more."""

    def begin(self, told: Told) -> None:
        """The run begins, or goes on."""

    def log(self, entry: Entry) -> None:
        """Take one step or epoch."""

    def end(self, summary: Mapping[str, Any]) -> None:
        """Close what is open; the summary is empty if there is none."""


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"epochs": 5}} -> {"train.epochs": 5}."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
