"""[log]: every number of a run reaches its loggers, and nothing that a logger does reaches the run."""

from __future__ import annotations

import csv
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import fakes
import pytest
from killing.same import differences as unlike

from hil import cli
from hil.loggers import loggers
from hil.loggers.logger import LOGGERS, Entry, Told

EXPERIMENT = """
seed = 2
data = {{ use = "digits", train_examples = 256 }}
network = {{ widths = [64, 12, 10] }}
device = {{ use = "mach_zehnder" }}
encode = {{ overflow = "clip" }}
learner = {{ use = "adfa" }}
train = {{ epochs = 2, batch = 64 }}
log = {{ to = {to} }}
"""


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """Train with these loggers, and return the run folder."""

    def train(*to: str, code: int = 0, name: str = "run") -> Path:
        (tmp_path / f"{name}.toml").write_text(EXPERIMENT.format(to=json.dumps(list(to))), encoding="utf-8")
        assert cli.run(["train", str(tmp_path / f"{name}.toml"), "--run", str(tmp_path / name)]) == code
        return tmp_path / name

    return train


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without any logger."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "run.toml").write_text(EXPERIMENT.format(to="[]"), encoding="utf-8")
    assert cli.run(["train", str(folder / "run.toml"), "--run", str(folder / "run")]) == 0
    return folder / "run"


def measured(run: Path) -> dict[tuple[str, int], float]:
    """(name, step) -> value of the epochs, as the run folder has them."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {(f"{line['split']}/{key}", line["step"]): line[key] for line in lines for key in ("loss", "accuracy")}


def notes(run: Path) -> list[str]:
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event["message"] for event in events if event["kind"] == "beware" and event["message"].startswith("log ")]


def test_csv_has_every_step_and_epoch(trained: Callable[..., Path]) -> None:
    run = trained("csv")
    rows = list(csv.DictReader((run / "logs" / "metrics.csv").open(encoding="utf-8")))
    found = {(row["name"], int(row["step"])): float(row["value"]) for row in rows}
    assert len(found) == len(rows)
    assert {step for name, step in found if name == "step/loss"} == set(range(1, 9))
    for place, value in measured(run).items():
        assert found[place] == value
    assert notes(run) == []


def test_csv_forgets_the_steps_that_are_made_again(trained: Callable[..., Path]) -> None:
    run = trained("csv")
    whole = [
        line.split(",", 1)[1]
        for line in (run / "logs" / "metrics.csv").read_text(encoding="utf-8").splitlines()
        if "_s," not in line
    ]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    (run / "summary.json").write_text(json.dumps({**summary, "status": "interrupted"}), encoding="utf-8")
    first = sorted((run / "checkpoints").glob("step-*.json"))[-2]  # of the first epoch
    assert cli.run(["resume", str(run), "--from", str(first)]) == 0
    again = [
        line.split(",", 1)[1]
        for line in (run / "logs" / "metrics.csv").read_text(encoding="utf-8").splitlines()
        if "_s," not in line
    ]
    assert again == whole


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_every_number_reaches_the_package(name: str, trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: fakes.Calls = getattr(fakes, name)(monkeypatch)
    run = trained(name)
    assert notes(run) == []
    assert calls[0][0] == "begin"
    assert str(run / "logs") in str(calls[0])
    assert calls[-1][0] == "end"
    scalars = {(call[1], call[2]): call[3] for call in calls if call[0] == "scalar"}
    assert {step for key, step in scalars if key == "step/loss"} == set(range(1, 9))
    assert measured(run).items() <= scalars.items()
    test = json.loads((run / "summary.json").read_text(encoding="utf-8"))["test_accuracy"]
    assert calls[-1][2]["test/test_accuracy"] == test if name == "wandb" else scalars["test/test_accuracy", 8] == test


class Faulty:
    """A logger that fails in one of its calls."""

    where, kind = "", OSError
    held = threading.Event()

    def _do(self, what: str) -> None:
        if self.where == what:
            if self.kind is TimeoutError:
                self.held.wait(20)
            else:
                raise self.kind("no network")

    def begin(self, told: Told) -> None:
        self._do("begin")

    def log(self, entry: Entry) -> None:
        self._do("log")

    def end(self, summary: Mapping[str, Any]) -> None:
        self._do("end")


@pytest.mark.parametrize(
    ("where", "kind"),
    [("begin", OSError), ("log", SystemExit), ("end", KeyboardInterrupt), ("begin", TimeoutError), ("log", TimeoutError)],
)
def test_no_logger_can_end_a_run(
    where: str, kind: type[BaseException], plain: Path, trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = ModuleType("faulty_logger")
    faulty.Faulty = type("Faulty", (Faulty,), {"where": where, "kind": kind, "held": threading.Event()})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faulty_logger", faulty)
    monkeypatch.setitem(LOGGERS, "wandb", ("faulty_logger:Faulty", "json", ""))  # type: ignore[arg-type]
    monkeypatch.setattr(loggers.Loggers.__init__, "__defaults__", (0.3,))
    run = trained("wandb", "csv")
    (note,) = notes(run)
    assert note.startswith("log wandb: ")
    assert ("did not finish within" in note) == (kind is TimeoutError)
    assert kind is TimeoutError or kind.__name__ in note
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["status"] == "done"
    assert [line for line in unlike(plain, run) if "log" not in line] == []
    assert "step/loss" in (run / "logs" / "metrics.csv").read_text(encoding="utf-8")  # the other one goes on
    faulty.Faulty.held.set()


def test_a_package_that_is_not_installed_is_refused_at_once_and_on_a_resume_left_out(
    trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(LOGGERS, "mlflow", ("hil.loggers.no_such:MLflow", "no_such_package", "hil[mlflow]"))  # type: ignore[arg-type]
    trained("mlflow", code=2)
    told = capfd.readouterr().err
    assert "pip install 'hil[mlflow]'" in told
    assert "csv" in told
    assert not (tmp_path / "run").exists()
    run = trained("csv", name="other")
    config = run / "config.toml"
    config.write_text(config.read_text(encoding="utf-8").replace('"csv"', '"mlflow"'), encoding="utf-8")
    assert cli.run(["resume", str(run), "--set", "train.epochs=3"]) == 0
    (note,) = notes(run)
    assert "ModuleNotFoundError" in note
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["status"] == "done"


def test_a_name_that_is_no_logger_is_refused(trained: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    trained("wandbb", code=2)
    assert "wandb" in capfd.readouterr().err


def test_a_link_in_the_place_of_logs_is_refused(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = trained("csv")
    (tmp_path / "elsewhere").mkdir()
    for file in (run / "logs").iterdir():
        file.unlink()
    (run / "logs").rmdir()
    (run / "logs").symlink_to(tmp_path / "elsewhere")
    assert cli.run(["resume", str(run), "--set", "train.epochs=3"]) == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


# ---- the packages themselves, where they are installed --------------------------------------------------------------------


def test_tensorboard_reads_what_was_logged(trained: Callable[..., Path]) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = trained("tensorboard")
    found = reading.EventAccumulator(str(run / "logs" / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("step/loss")] == list(range(1, 9))
    for (name, step), value in measured(run).items():
        assert {event.step: event.value for event in found.Scalars(name)}[step] == pytest.approx(value)


def test_mlflow_reads_what_was_logged(trained: Callable[..., Path]) -> None:
    mlflow = pytest.importorskip("mlflow")
    run = trained("mlflow")
    assert notes(run) == []
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run / 'logs' / 'mlflow.db'}")
    number = client.get_experiment_by_name("hil").experiment_id
    (found,) = client.search_runs([number])
    assert found.info.status == "FINISHED"
    assert found.data.params["learner.use"] == "adfa"
    assert [one.step for one in client.get_metric_history(found.info.run_id, "step/loss")] == list(range(1, 9))
    for (name, step), value in measured(run).items():
        assert {m.step: m.value for m in client.get_metric_history(found.info.run_id, name)}[step] == pytest.approx(value)


def records_of(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file: blocks of 32 KiB, in them a sum (4 bytes), a length (2), a kind (1), the data."""
    data, at, held = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        held += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield held
            held = b""


def test_wandb_reads_what_was_logged(trained: Callable[..., Path]) -> None:
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    run = trained("wandb")
    assert notes(run) == []
    (file,) = (run / "logs" / "wandb").glob("offline-run-*/*.wandb")
    found: dict[tuple[str, int], float] = {}
    for data in records_of(file):
        record = messages.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            found |= {(name, values["_step"]): value for name, value in values.items()}
    assert {step for name, step in found if name == "step/loss"} == set(range(1, 9))
    for place, value in measured(run).items():
        assert found[place] == pytest.approx(value)
