"""What our loggers call of three packages, faked: every call is noted, in the place of the package."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

Calls = list[tuple[Any, ...]]


def tensorboard(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []

    class SummaryWriter:
        def __init__(self, log_dir: str, purge_step: int) -> None:
            calls.append(("begin", log_dir, purge_step))

        def add_text(self, name: str, text: str) -> None:
            calls.append(("text", name))

        def add_scalar(self, name: str, value: float, step: int, walltime: float | None = None) -> None:
            calls.append(("scalar", name, step, value))

        def close(self) -> None:
            calls.append(("end",))

    _stand_in(monkeypatch, "tensorboard")
    _stand_in(monkeypatch, "torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    return calls


def wandb(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []

    class Run:
        summary: dict[str, float] = {}  # noqa: RUF012

        def log(self, values: dict[str, float], step: int) -> None:
            calls.extend(("scalar", name, step, value) for name, value in values.items())

        def finish(self, exit_code: int) -> None:
            calls.append(("end", exit_code, dict(self.summary)))

    def init(**settings: Any) -> Run:
        calls.append(("begin", settings["mode"], settings["dir"]))
        return Run()

    _stand_in(monkeypatch, "wandb", init=init, Settings=SimpleNamespace)
    return calls


def mlflow(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []

    class MlflowClient:
        def __init__(self, tracking_uri: str) -> None:
            calls.append(("begin", tracking_uri))

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str, artifacts: str) -> str:
            return "1"

        def search_runs(self, numbers: list[str], max_results: int) -> list[Any]:
            return []

        def create_run(self, number: str, run_name: str, tags: dict[str, str]) -> Any:
            return SimpleNamespace(info=SimpleNamespace(run_id="r"))

        def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
            calls.extend(("scalar", one.key, one.step, one.value) for one in metrics)

        def log_metric(self, run: str, name: str, value: float, step: int) -> None:
            calls.append(("scalar", name, step, value))

        def set_terminated(self, run: str, status: str) -> None:
            calls.append(("end", status))

    def metric(key: str, value: float, timestamp: int, step: int) -> Any:
        return SimpleNamespace(key=key, value=value, step=step)

    _stand_in(monkeypatch, "mlflow", MlflowClient=MlflowClient)
    _stand_in(monkeypatch, "mlflow.entities", Metric=metric, Param=lambda key, value: (key, value))
    return calls


def _stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **parts: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]  # find_spec asks for it
    for part, made in parts.items():
        setattr(module, part, made)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, f"hil.loggers.{name.split('.')[-1]}", raising=False)
