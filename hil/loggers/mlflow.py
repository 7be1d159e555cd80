"""logs/mlflow.db: a store of MLflow in one file. Look at it by `mlflow ui --backend-store-uri sqlite:///RUN/logs/mlflow.db`.

One run a run folder: a resume goes on with it, and steps that are made again stand there twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from hil.loggers.logger import Entry, Told, flat

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # says on stderr that it makes its tables
AT_ONCE = 100  # parameters in one call


class MLflow:
    """A Logger through a client of MLflow's own; nothing global of it is set, and no server is asked."""

    def begin(self, told: Told) -> None:
        """Open the store and its run, or make them."""
        told.folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=f"sqlite:///{(told.folder / 'mlflow.db').resolve()}")
        known = self._client.get_experiment_by_name(told.project)
        artifacts = (told.folder / "mlflow").resolve().as_uri()
        number = self._client.create_experiment(told.project, artifacts) if known is None else known.experiment_id
        found = self._client.search_runs([number], max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._client.create_run(number, run_name=told.name, tags={"hil.run": str(told.run)}).info.run_id
        params = [Param(key, str(value)[:500]) for key, value in flat(told.config).items()]
        for start in range(0, len(params), AT_ONCE):
            self._client.log_batch(self._run, params=params[start : start + AT_ONCE])

    def log(self, entry: Entry) -> None:
        """Log its numbers in one call."""
        at = int(1000 * entry.time_s)
        self._client.log_batch(self._run, [Metric(name, value, at, entry.step) for name, value in entry.values.items()])

    def end(self, summary: Mapping[str, Any]) -> None:
        """Log the test score and how the run ended."""
        for name, value in summary.items():
            if name.startswith("test_") and isinstance(value, int | float):
                self._client.log_metric(self._run, f"test/{name}", float(value), step=int(summary.get("steps", 0)))
        status = {"done": "FINISHED", "fault": "FAILED"}.get(str(summary.get("status")), "KILLED")
        self._client.set_terminated(self._run, status)
